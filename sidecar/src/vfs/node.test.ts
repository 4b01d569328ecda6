import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { File } from './file-system.ts';
import { nodeFileSystem, temporaryDirectory } from './node.ts';

const directory = temporaryDirectory();
afterAll(() => directory.removeNow());

const opened: File[] = [];
afterEach(() => {
  for (const file of opened.splice(0)) file.release();
});

const mebibyte = 1024 * 1024;
let files = 0;

/** A file whose every four bytes say where they are. */
function fileOf(size: number): { path: string; bytes: Buffer; file: File } {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32BE(at, at);
  const path = `${directory.path}/file-${files++}`;
  writeFileSync(path, bytes);
  const file = nodeFileSystem.open(path, 'read');
  opened.push(file);
  return { path, bytes, file };
}

async function socketPair(): Promise<{ ours: Socket; theirs: Socket; close: () => void }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const theirs = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const ours = await accepted;
  server.close();
  return {
    ours,
    theirs,
    close: () => {
      ours.destroy();
      theirs.destroy();
    },
  };
}

const descriptorOf = (socket: Socket): number =>
  (socket as unknown as { _handle: { fd: number } })._handle.fd;

describe.runIf(process.platform === 'linux')('the page cache', () => {
  test('a range goes to a socket without passing through us', async () => {
    const { bytes, file } = fileOf(mebibyte);
    const { ours, theirs, close } = await socketPair();
    const received: Buffer[] = [];
    theirs.on('data', (chunk) => received.push(chunk));
    const sent = file.pageCache!.send(descriptorOf(ours), 1000, 50_000);
    ours.end();
    await new Promise((resolve) => theirs.once('end', resolve));
    expect(sent).toBe(50_000);
    expect(Buffer.concat(received).equals(bytes.subarray(1000, 51_000))).toBe(true);
    close();
  });

  test('a full socket takes a part, then nothing, and nobody waits', async () => {
    const { file } = fileOf(32 * mebibyte);
    const { ours, theirs, close } = await socketPair();
    theirs.pause();
    let position = 0;
    for (;;) {
      const sent = file.pageCache!.send(descriptorOf(ours), position, 32 * mebibyte - position);
      if (sent === 0) break;
      position += sent;
    }
    expect(position).toBeGreaterThan(0);
    expect(position).toBeLessThan(32 * mebibyte);
    close();
  });

  test('nothing is sent from behind the end of the file, to a socket that is gone, or from a file that is', async () => {
    const { file } = fileOf(4096);
    const { ours, close } = await socketPair();
    expect(file.pageCache!.send(descriptorOf(ours), 4096, 10)).toBe(0);
    expect(file.pageCache!.send(-1, 0, 10)).toBe(0);
    const pages = file.pageCache!;
    opened.pop();
    file.release();
    expect(() => pages.send(descriptorOf(ours), 0, 10)).toThrow('only an open file');
    expect(() => pages.isWarm(0, 10)).toThrow('only an open file');
    close();
  });

  test('positions beyond four gibibytes are the same positions', () => {
    const path = `${directory.path}/sparse`;
    const file = nodeFileSystem.open(path, 'create');
    opened.push(file);
    const far = 5 * 1024 * mebibyte + 123;
    file.writeNow([Buffer.from('far away')], far);
    expect(file.pageCache!.isWarm(far, 8)).toBe(true);
    expect(file.pageCache!.isWarm(far, 9)).toBe(false);
  });

  test('what was just written is warm; what the kernel has dropped is cold until it is warmed', async (context) => {
    const { path, file } = fileOf(4 * mebibyte);
    const pages = file.pageCache!;
    expect(pages.isWarm(0, 4 * mebibyte)).toBe(true);
    await file.sync();
    execFileSync('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'], {
      stdio: 'ignore',
    });
    // A file system that lives in memory has nothing to drop.
    if (pages.isWarm(3 * mebibyte, mebibyte)) return context.skip();
    await pages.warm(3 * mebibyte, mebibyte);
    expect(pages.isWarm(3 * mebibyte, mebibyte)).toBe(true);
  });

  test('warming holds the file open, and what is behind its end stays cold', async () => {
    const { file } = fileOf(mebibyte);
    const pages = file.pageCache!;
    const warming = pages.warm(0, 2 * mebibyte);
    opened.pop();
    file.release();
    const before = existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0;
    await warming;
    expect(readdirSync('/proc/self/fd').length).toBe(before - 1);
    expect(() => pages.isWarm(0, 1)).toThrow('only an open file');
  });
});
