import { readdirSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import type { ByteSpan } from '@rookery/wire';
import { systemClock } from '../clock.ts';
import { FileRegion } from '../vfs/file-region.ts';
import type { File, FileSystem, PageCache } from '../vfs/file-system.ts';
import { MemoryFileSystem } from '../vfs/memory.ts';
import { nodeFileSystem, temporaryDirectory } from '../vfs/node.ts';
import { BufferPool } from './buffer-pool.ts';
import { Outbox, type OutboxDeps } from './outbox.ts';
import { TurnBudget } from './turn-budget.ts';

const seed = Number(process.env['ROOKERY_SEED'] ?? 1);
const mebibyte = 1024 * 1024;
const directory = temporaryDirectory();
afterAll(() => directory.removeNow());

/** Numbers in [0, 1), the same for the same seed. */
function chanceOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const below = (chance: () => number, limit: number): number => Math.floor(chance() * limit);

function noise(size: number, chance: () => number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32BE(below(chance, 2 ** 32), at);
  return bytes;
}

const fileBytes = noise(24 * mebibyte, chanceOf(seed));
const filePath = `${directory.path}/file`;
writeFileSync(filePath, fileBytes);

/** The ways that are open to regions. */
const ways = {
  sendfile: { fs: nodeFileSystem, sendfile: true, path: filePath },
  'a copy, sendfile turned off': { fs: nodeFileSystem, sendfile: false, path: filePath },
  'a copy from a disk without a page cache': { fs: memoryDisk(), sendfile: true, path: '/file' },
};
const wayNames = Object.keys(ways) as (keyof typeof ways)[];

function memoryDisk(): FileSystem {
  const fs = new MemoryFileSystem();
  const file = fs.open('/file', 'create');
  file.writeNow([fileBytes], 0);
  file.release();
  return fs;
}

interface Peers {
  readonly outbox: Outbox;
  readonly ours: Socket;
  readonly theirs: Socket;
  readonly deps: OutboxDeps;
  readonly failures: unknown[];
  /** Everything that has arrived so far. */
  received(): Buffer;
  /** Both ends are gone and the outbox was told so. */
  closed: Promise<void>;
}

const sharedTurns = new TurnBudget(systemClock, mebibyte);

async function peers(options: Partial<OutboxDeps> = {}): Promise<Peers> {
  const server = createServer({ noDelay: true });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const theirs = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const ours = await accepted;
  server.close();
  const failures: unknown[] = [];
  const deps: OutboxDeps = {
    pool: new BufferPool(4, 256 * 1024),
    turns: sharedTurns,
    sendfile: true,
    sent: { memory: 0, sendfile: 0, copy: 0 },
    unreadBytesMax: mebibyte,
    traffic: { bytesOut: 0 },
    moved: () => {},
    ready: () => {},
    failed: (error) => {
      failures.push(error);
      ours.destroy();
    },
    ...options,
  };
  const outbox = new Outbox(ours, deps);
  const chunks: Buffer[] = [];
  theirs.on('data', (chunk) => chunks.push(chunk));
  for (const socket of [ours, theirs]) socket.on('error', () => {});
  const closed = Promise.all([
    new Promise<void>((resolve) => theirs.once('close', () => resolve())),
    new Promise<void>((resolve) => {
      ours.once('close', () => {
        outbox.close();
        resolve();
      });
    }),
  ]).then(() => {});
  return { outbox, ours, theirs, deps, failures, received: () => Buffer.concat(chunks), closed };
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await nextTurn();
}

/** Answers as a broker makes them, and their bytes: headers, records in files, records in memory, all sizes. */
function answers(
  chance: () => number,
  file: File,
  bytesMax: number,
): { spans: ByteSpan[][]; bytes: Buffer; recordBytes: number } {
  const spans: ByteSpan[][] = [];
  const pieces: Buffer[] = [];
  const sizes = [200, 3_000, 30_000, 70_000, 300_000, 3 * mebibyte];
  let size = 0;
  let recordBytes = 0;
  while (size < bytesMax) {
    const answer: ByteSpan[] = [];
    for (let partitions = 1 + below(chance, 5); partitions > 0; partitions--) {
      const header = noise(4 + below(chance, 300), chance);
      const length = 1 + below(chance, sizes[below(chance, sizes.length)]!);
      const position = below(chance, fileBytes.length - length);
      const records = fileBytes.subarray(position, position + length);
      const inMemory = chance() < 0.4 ? cut(records, chance) : null;
      answer.push(header, new FileRegion(file, position, length, inMemory));
      pieces.push(header, records);
      size += header.length + length;
      recordBytes += length;
    }
    spans.push(answer);
  }
  return { spans, bytes: Buffer.concat(pieces), recordBytes };
}

function cut(bytes: Buffer, chance: () => number): Buffer[] {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const size = 1 + below(chance, 65_536);
    pieces.push(bytes.subarray(at, at + size));
    at += size;
  }
  return pieces;
}

/** Reads as a busy client does: now and then not at all for a while. */
async function readFitfully(peer: Socket, chance: () => number, isDone: () => boolean): Promise<void> {
  while (!isDone()) {
    if (chance() < 0.3) peer.pause();
    else peer.resume();
    for (let turns = below(chance, 20); turns >= 0; turns--) await nextTurn();
  }
  peer.resume();
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;

describe.each(wayNames)('by %s', (way) => {
  const { fs, sendfile, path } = ways[way];

  test.each([0, 1, 2, 3])(
    `a peer that reads by fits and starts gets every byte in order (seed ${seed} + %i)`,
    async (more) => {
      const chance = chanceOf(seed * 100 + more);
      const { outbox, theirs, ours, deps, received, closed, failures } = await peers({ sendfile });
      const file = fs.open(path, 'read');
      const { spans, bytes, recordBytes } = answers(chance, file, 20 * mebibyte);
      file.release();
      let arrived = 0;
      theirs.on('data', (chunk) => (arrived += chunk.length));
      const reading = readFitfully(theirs, chance, () => arrived >= bytes.length);
      for (const answer of spans) {
        outbox.add(answer);
        if (chance() < 0.5) await nextTurn();
      }
      await reading;
      expect(received().equals(bytes)).toBe(true);
      expect(deps.traffic.bytesOut).toBe(bytes.length);
      const { memory, sendfile: direct, copy } = deps.sent;
      expect(memory + direct + copy).toBe(recordBytes);
      expect(direct > 0).toBe(way === 'sendfile' && process.platform === 'linux');
      expect([outbox.isEmpty, outbox.unreadBytes, failures]).toEqual([true, 0, []]);
      ours.destroy();
      await closed;
    },
  );

  test(`a peer that dies at any point leaves nothing open and nothing waiting (seed ${seed})`, async () => {
    const chance = chanceOf(seed * 1000);
    const before = descriptors();
    for (let round = 0; round < 30; round++) {
      const { outbox, theirs, ours, closed, failures } = await peers({ sendfile });
      const file = fs.open(path, 'read');
      const { spans } = answers(chance, file, 8 * mebibyte);
      file.release();
      let arrived = 0;
      const deadAfter = below(chance, 8 * mebibyte);
      theirs.on('data', (chunk) => {
        arrived += chunk.length;
        if (arrived >= deadAfter) (round % 2 === 0 ? theirs : ours).destroy();
      });
      if (round % 3 === 0) ours.resume();
      for (const answer of spans) {
        outbox.add(answer);
        if (chance() < 0.3) await nextTurn();
      }
      if (round % 3 !== 0) ours.resume();
      await closed;
      expect(failures, `round ${round}`).toEqual([]);
      // An answer that comes too late is let go of at once.
      const late = fs.open(path, 'read');
      outbox.add([new FileRegion(late, 0, 100_000)]);
      late.release();
      expect(outbox.isEmpty).toBe(true);
    }
    // What is being read on the pool holds its file until it is through; a leak would hold it for good.
    await until(() => descriptors() <= before);
  });

  test('a peer that does not read is not waited for, and holds little memory', async () => {
    const { outbox, theirs, ours, closed, deps } = await peers({ sendfile });
    theirs.pause();
    const file = fs.open(path, 'read');
    const regions = Array.from({ length: 40 }, (_, i) => {
      const records = fileBytes.subarray(i * 500_000, (i + 1) * 500_000);
      return new FileRegion(file, i * 500_000, 500_000, [records]);
    });
    for (const region of regions) outbox.add([Buffer.alloc(50), region]);
    let still = 0;
    for (let last = -1; still < 50; still++) {
      await nextTurn();
      if (deps.traffic.bytesOut !== last) still = 0;
      last = deps.traffic.bytesOut;
    }
    expect(outbox.isEmpty).toBe(false);
    expect(outbox.unreadBytes).toBeLessThan(2 * mebibyte);
    expect(regions.filter(({ inMemory }) => inMemory !== null)).toEqual([]);
    theirs.resume();
    await until(() => outbox.isEmpty);
    ours.destroy();
    await closed;
    file.release();
  });

  test('a file that ends too early closes the connection and says why', async () => {
    const { outbox, failures, closed } = await peers({ sendfile });
    const file = fs.open(path, 'read');
    outbox.add([new FileRegion(file, fileBytes.length - 100_000, 200_000)]);
    file.release();
    await closed;
    expect(failures.map(String)).toEqual([
      expect.stringContaining(`${path} ends at position ${fileBytes.length}`),
    ]);
  });
});

/** The real file, with an eye on what is done to its page cache. */
function watched(
  file: File,
  see: { send?: (socket: number) => void; isWarm?: (position: number) => boolean; warm?: () => void },
): File {
  const pages = file.pageCache!;
  const watch: PageCache = {
    isWarm: (position, size) => see.isWarm?.(position) ?? pages.isWarm(position, size),
    warm: (position, size) => {
      see.warm?.();
      return pages.warm(position, size);
    },
    send: (socket, position, size) => {
      see.send?.(socket);
      return pages.send(socket, position, size);
    },
  };
  Object.defineProperty(file, 'pageCache', { value: watch });
  return file;
}

const descriptorOf = (socket: Socket): number | undefined =>
  (socket as unknown as { _handle: { fd: number } | null })._handle?.fd;

describe.runIf(process.platform === 'linux')('sendfile', () => {
  test(`is called only on a living socket of its own, with nothing in its queue (seed ${seed})`, async () => {
    const chance = chanceOf(seed * 7);
    let calls = 0;
    let wrong = 0;
    for (let round = 0; round < 12; round++) {
      const { outbox, theirs, ours, closed } = await peers();
      const file = watched(nodeFileSystem.open(filePath, 'read'), {
        send: (socket) => {
          calls++;
          if (ours.destroyed || ours.writableLength > 0 || socket !== descriptorOf(ours)) wrong++;
        },
      });
      const { spans } = answers(chance, file, 12 * mebibyte);
      file.release();
      const endsAt = below(chance, 40);
      for (const [i, answer] of spans.entries()) {
        outbox.add(answer);
        await nextTurn();
        if (i === endsAt) ours.destroy();
      }
      await readFitfully(theirs, chance, () => ours.destroyed || outbox.isEmpty);
      ours.destroy();
      await closed;
    }
    expect(calls).toBeGreaterThan(12);
    expect(wrong).toBe(0);
  });

  test('of cold pages waits until the pool has warmed them, and the loop does not', async () => {
    const { outbox, ours, closed, received, deps } = await peers();
    let warmed = 0;
    const file = watched(nodeFileSystem.open(filePath, 'read'), {
      isWarm: () => false,
      warm: () => void warmed++,
      send: () => expect(warmed).toBeGreaterThan(0),
    });
    outbox.add([new FileRegion(file, 100, 5 * mebibyte)]);
    file.release();
    let turns = 0;
    for (; !outbox.isEmpty; turns++) await nextTurn();
    await until(() => received().length === 5 * mebibyte);
    expect(received().equals(fileBytes.subarray(100, 100 + 5 * mebibyte))).toBe(true);
    expect(deps.sent.sendfile).toBeGreaterThan(4 * mebibyte);
    expect(warmed).toBe(5);
    expect(turns).toBeGreaterThan(4);
    ours.destroy();
    await closed;
  });

  test('goes on from a file that was renamed and deleted under its reader, and closes it in the end', async () => {
    const { outbox, theirs, ours, closed, received } = await peers();
    theirs.pause();
    const path = `${directory.path}/doomed`;
    nodeFileSystem.open(path, 'create').release();
    writeFileSync(path, fileBytes);
    const before = descriptors();
    const file = nodeFileSystem.open(path, 'read');
    outbox.add([new FileRegion(file, 0, fileBytes.length)]);
    file.release();
    await nextTurn();
    nodeFileSystem.rename(path, `${path}.deleted`);
    nodeFileSystem.remove(`${path}.deleted`);
    expect(descriptors()).toBe(before + 1);
    theirs.resume();
    await until(() => received().length === fileBytes.length);
    expect(received().equals(fileBytes)).toBe(true);
    expect(descriptors()).toBe(before);
    ours.destroy();
    await closed;
  });

  test('serves readers in turns: a small one is not behind all of a large one', async () => {
    const turns = new TurnBudget(systemClock, mebibyte);
    const [large, small] = [await peers({ turns }), await peers({ turns })];
    const file = nodeFileSystem.open(filePath, 'read');
    for (let i = 0; i < 20; i++) large.outbox.add([new FileRegion(file, 0, fileBytes.length)]);
    small.outbox.add([new FileRegion(file, 0, 200_000)]);
    file.release();
    await until(() => small.received().length === 200_000);
    expect(large.outbox.isEmpty).toBe(false);
    for (const { ours, closed } of [large, small]) {
      ours.destroy();
      await closed;
    }
  });
});
