import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { FrameCutter } from '@rookery/wire';
import { afterEach, describe, expect, test } from 'vitest';
import { ManualClock } from '../manual-clock.ts';
import { FrameMemory } from './frame-memory.ts';
import { Receiver } from './receiver.ts';

const closers: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Frames above it go into memory of their own. */
const largeMin = 16 * 1024;

class Side {
  readonly frames: Buffer[] = [];
  readonly pieces: Buffer[] = [];
  readonly receiver: Receiver;
  came = 0;
  readonly #cutter = new FrameCutter(100 * 1024 * 1024);

  constructor(accepted: Socket, memory: FrameMemory, reuses: boolean) {
    const missing = (): number => {
      const { pending, held } = this.#cutter;
      return pending > largeMin ? pending - held : 0;
    };
    this.receiver = new Receiver(accepted, {
      memory,
      missing,
      came: (bytes) => (this.came += bytes),
      received: (chunk) => {
        this.#cutter.push(chunk);
        for (let frame = this.#cutter.next(); frame !== null; frame = this.#cutter.next()) {
          this.frames.push(Buffer.concat(frame));
          const pieces = this.receiver.takePieces();
          this.pieces.push(...pieces);
          if (reuses) for (const piece of pieces) memory.give(piece);
        }
      },
    });
    this.receiver.socket.on('error', () => {});
  }
}

/** A server whose connections share their memory, and as many clients of it as are asked for. */
async function connected(count: number, { pauseOnConnect = true, reuses = true } = {}) {
  const memory = new FrameMemory();
  const sides = new Map<number, Side>();
  const server = createServer({ noDelay: true, pauseOnConnect }, (accepted) => {
    sides.set(accepted.remotePort!, new Side(accepted, memory, reuses));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const clients = await Promise.all(
    Array.from({ length: count }, () => {
      const client = connect({ port, host: '127.0.0.1', noDelay: true });
      closers.push(() => client.destroy());
      return new Promise<Socket>((resolve) => client.once('connect', () => resolve(client)));
    }),
  );
  await expect.poll(() => sides.size).toBe(count);
  closers.unshift(() => new Promise((resolve) => server.close(resolve)));
  return { memory, clients, server, sideOf: (client: Socket) => sides.get(client.localPort!)! };
}

/** Chance of a size that matters: tiny, around where frames become large, larger than a piece. */
class Chance {
  readonly #clock: ManualClock;

  constructor(seed: number) {
    this.#clock = new ManualClock({ seed });
  }

  below(limit: number): number {
    return this.#clock.randomBytes(4).readUInt32LE(0) % limit;
  }

  size(): number {
    const [least, span] = [
      [0, 40],
      [0, 3_000],
      [largeMin - 20, 40],
      [largeMin, 100_000],
      [1_000_000, 100_000],
      [2_000_000, 500_000],
    ][this.below(6)]!;
    return least! + this.below(span!);
  }
}

function frameOf(body: Buffer): Buffer {
  const size = Buffer.alloc(4);
  size.writeInt32BE(body.length);
  return Buffer.concat([size, body]);
}

async function write(socket: Socket, bytes: Buffer): Promise<void> {
  if (!socket.write(bytes)) await new Promise<void>((resolve) => socket.once('drain', () => resolve()));
}

const seed = Number(process.env.SEED ?? 1);

describe.each([
  ['read into memory of ours', true],
  ['read by Node', false],
])('%s', (_, pauseOnConnect) => {
  test(`frames arrive as they were sent, however they were cut, on connections that share their memory (seed ${seed})`, async () => {
    const chance = new Chance(seed);
    const { clients, sideOf } = await connected(4, { pauseOnConnect });
    await Promise.all(
      clients.map(async (client, i) => {
        const bodies = Array.from({ length: 30 }, (_, j) => Buffer.alloc(chance.size(), `${i} ${j} `));
        const stream = Buffer.concat(bodies.map(frameOf));
        for (let at = 0; at < stream.length;) {
          const size = 1 + chance.below(chance.below(3) === 0 ? 50 : 400_000);
          await write(client, stream.subarray(at, at + size));
          at += size;
          // Now and then the other side gets to read a piece of a frame.
          if (chance.below(4) === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        const side = sideOf(client);
        await expect.poll(() => side.frames.length, { timeout: 20_000 }).toBe(bodies.length);
        for (const [j, body] of bodies.entries()) expect(side.frames[j]!.equals(body)).toBe(true);
        expect(side.came).toBe(stream.length);
      }),
    );
  });
});

test('a large frame is received into pieces that nothing else is in', async () => {
  const { memory, clients, sideOf } = await connected(1, { reuses: false });
  const [client] = clients;
  const side = sideOf(client!);
  const bodies = ['a', 'b'].map((letter) => Buffer.alloc(900_000, letter));
  await write(client!, Buffer.concat(bodies.map(frameOf)));
  await expect.poll(() => side.frames.length).toBe(2);
  expect(side.pieces.map(({ length }) => length)).toEqual([1_048_576, 1_048_576]);
  expect(side.pieces[0]).not.toBe(side.pieces[1]);
  expect(memory.freeBytes).toBe(0);
});

test('small frames take no pieces', async () => {
  const { clients, sideOf } = await connected(1);
  const side = sideOf(clients[0]!);
  await write(clients[0]!, Buffer.concat(Array.from({ length: 1_000 }, () => frameOf(Buffer.alloc(300)))));
  await expect.poll(() => side.frames.length).toBe(1_000);
  expect(side.pieces).toEqual([]);
});

test('a connection that closes inside a frame gives the memory back, and the server counts it no more', async () => {
  const { memory, clients, server, sideOf } = await connected(1);
  const side = sideOf(clients[0]!);
  await write(clients[0]!, frameOf(Buffer.alloc(500_000)).subarray(0, 400_000));
  await expect.poll(() => side.came).toBe(400_000);
  clients[0]!.destroy();
  await expect.poll(() => memory.freeBytes).toBe(524_288);
  const connections = () => new Promise((resolve) => server.getConnections((_, count) => resolve(count)));
  await expect.poll(connections).toBe(0);
});

test('one that is paused is not read, and misses nothing when it goes on', async () => {
  const { clients, sideOf } = await connected(1);
  const side = sideOf(clients[0]!);
  const body = Buffer.alloc(700_000, 'p');
  await write(clients[0]!, frameOf(body).subarray(0, 100_000));
  await expect.poll(() => side.came).toBe(100_000);
  side.receiver.socket.pause();
  clients[0]!.write(frameOf(body).subarray(100_000));
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(side.came).toBe(100_000);
  side.receiver.socket.resume();
  await expect.poll(() => side.frames.length).toBe(1);
  expect(side.frames[0]!.equals(body)).toBe(true);
});
