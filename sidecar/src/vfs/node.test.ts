import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import type { File, FileSystem } from './file-system.ts';
import { fileSystemWithin, nodeFileSystem, temporaryDirectory } from './node.ts';

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

describe('with more files than descriptors', () => {
  /** Files `0`, `1` and so on with their number in them, all open, in a directory of their own. */
  function numbered(fs: FileSystem, count: number): { at: string; files: File[] } {
    const at = `${directory.path}/numbered-${files++}`;
    fs.makeDirectory(at);
    const numbers = Array.from({ length: count }, (_, n) => {
      writeFileSync(`${at}/${n}`, String(n).padStart(8));
      const file = fs.open(`${at}/${n}`, 'write');
      opened.push(file);
      return file;
    });
    return { at, files: numbers };
  }

  const numberIn = (file: File): number => {
    const bytes = Buffer.alloc(8);
    return file.readNow(bytes, 0) === 8 ? Number(bytes.toString()) : NaN;
  };
  const descriptors = (): number => readdirSync('/proc/self/fd').length;

  test.runIf(existsSync('/proc/self/fd'))('all can be used, and few are open at a time', async () => {
    const before = descriptors();
    const fs = fileSystemWithin(4);
    const { files: numbers } = numbered(fs, 20);
    for (let round = 0; round < 3; round++) {
      expect(numbers.map(numberIn)).toEqual(numbers.map((_, n) => n));
      expect(descriptors() - before).toBeLessThanOrEqual(4);
      expect(fs.descriptors.open).toBe(4);
    }
    const read = await Promise.all(
      numbers.map(async (file) => {
        const bytes = Buffer.alloc(8);
        await file.read(bytes, 0);
        return Number(bytes.toString());
      }),
    );
    expect(read).toEqual(numbers.map((_, n) => n));
    for (const file of opened.splice(0)) file.release();
    expect(fs.descriptors.open).toBe(0);
    expect(descriptors()).toBe(before);
  });

  test('a descriptor is kept until a sync has told of what was written', async () => {
    const fs = fileSystemWithin(2);
    const { at, files: numbers } = numbered(fs, 6);
    for (const file of numbers) file.writeNow([Buffer.from('written!')], 0);
    expect(fs.descriptors.open).toBe(6);
    expect(fs.descriptors.isSpent).toBe(true);
    numbers[0]!.syncNow();
    await Promise.all(numbers.slice(1).map((file) => file.sync()));
    expect(fs.descriptors.isSpent).toBe(false);
    numbered(fs, 1);
    expect(fs.descriptors.open).toBe(2);
    expect(readFileSync(`${at}/5`, 'utf8')).toBe('written!');
  });

  test('a write that a sync did not cover keeps the descriptor too', async () => {
    const fs = fileSystemWithin(1);
    const [file] = numbered(fs, 1).files as [File];
    file.writeNow([Buffer.from('1')], 0);
    const syncing = file.sync();
    file.writeNow([Buffer.from('2')], 1);
    await syncing;
    expect(fs.descriptors.isSpent).toBe(true);
    await file.sync();
    expect(fs.descriptors.isSpent).toBe(false);
  });

  test('operations wait their turn where all descriptors are in use', async () => {
    const fs = fileSystemWithin(3);
    const { at, files: numbers } = numbered(fs, 40);
    let most = 0;
    await Promise.all(
      numbers.map(async (file, n) => {
        await file.write([Buffer.from(String(n + 100).padStart(8))], 0);
        most = Math.max(most, fs.descriptors.open);
        await file.sync();
      }),
    );
    await fs.syncDirectory(at);
    expect(numbers.map(numberIn)).toEqual(numbers.map((_, n) => n + 100));
    expect(fs.descriptors.open).toBeLessThanOrEqual(3);
  });

  test('whoever reads beside operations that wait takes no descriptor away for good', async () => {
    const fs = fileSystemWithin(4);
    const { at, files: numbers } = numbered(fs, 40);
    const most: number[] = [];
    for (let round = 1; round <= 3; round++) {
      const working = numbers.map(async (file, n) => {
        await file.write([Buffer.from(String(100 * round + n).padStart(8))], 0);
        if (n % 10 === 0) await fs.syncDirectory(at);
        await file.sync();
      });
      while (numbers.some((file, n) => numberIn(file) !== 100 * round + n)) {
        most.push(fs.descriptors.open);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(working);
    }
    expect(Math.max(0, ...most)).toBeLessThanOrEqual(4);
    expect(fs.descriptors.open).toBeLessThanOrEqual(4);
  });

  test('a file is found again under its new name, and under that of its directory', () => {
    const fs = fileSystemWithin(1);
    const { at, files: numbers } = numbered(fs, 4);
    fs.rename(`${at}/0`, `${at}/0.deleted`);
    expect(numbers.map(numberIn)).toEqual([0, 1, 2, 3]);
    fs.rename(at, `${at}-moved`);
    expect(numbers.map(numberIn)).toEqual([0, 1, 2, 3]);
    expect(numbers[0]!.path).toBe(`${at}-moved/0.deleted`);
    expect(numbers.map((file) => file.size())).toEqual([8, 8, 8, 8]);
  });

  test('what is removed or replaced stays open for those who hold it', async () => {
    const fs = fileSystemWithin(1);
    const { at, files: numbers } = numbered(fs, 6);
    fs.remove(`${at}/0`);
    await fs.removeFile(`${at}/1`);
    fs.rename(`${at}/2`, `${at}/3`);
    expect(numbers.map(numberIn)).toEqual([0, 1, 2, 3, 4, 5]);
    await fs.removeDirectory(at);
    expect(existsSync(at)).toBe(false);
    expect(numbers.map(numberIn)).toEqual([0, 1, 2, 3, 4, 5]);
    numbered(fs, 1);
    expect(numbers.map(numberIn)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('a removal that fails leaves the file as it was', () => {
    const fs = fileSystemWithin(1);
    const { at, files: numbers } = numbered(fs, 2);
    expect(() => fs.remove(at)).toThrow();
    expect(() => fs.rename(`${at}/none`, `${at}/0`)).toThrow('ENOENT');
    expect(fs.descriptors.isSpent).toBe(false);
    expect(numbers.map(numberIn)).toEqual([0, 1]);
    expect(fs.descriptors.open).toBe(1);
  });

  test('a name under which another file stands by now is not taken for the first one', async () => {
    const fs = fileSystemWithin(1);
    const { at, files: numbers } = numbered(fs, 2);
    // As another process does it: behind our back.
    writeFileSync(`${at}/other`, 'other!!!');
    execFileSync('mv', [`${at}/other`, `${at}/0`]);
    expect(() => numberIn(numbers[0]!)).toThrow('ESTALE');
    await expect(numbers[0]!.read(Buffer.alloc(8), 0)).rejects.toThrow('ESTALE');
    expect(numberIn(numbers[1]!)).toBe(1);
  });

  test.runIf(process.platform === 'linux')(
    'a range is sent from a file that was closed meanwhile',
    async () => {
      const fs = fileSystemWithin(1);
      const { files: numbers } = numbered(fs, 3);
      const { ours, theirs, close } = await socketPair();
      const received: Buffer[] = [];
      theirs.on('data', (chunk) => received.push(chunk));
      for (const file of numbers) {
        expect(file.pageCache!.isWarm(0, 8)).toBe(true);
        expect(file.pageCache!.send(descriptorOf(ours), 0, 8)).toBe(8);
      }
      ours.end();
      await new Promise((resolve) => theirs.once('end', resolve));
      expect(Buffer.concat(received).toString().split(/ +/).slice(1)).toEqual(['0', '1', '2']);
      close();
    },
  );

  test('a limit of the process that is reached before the budget is spent closes files too', () => {
    const script = `
      const { fileSystemWithin } = await import(${JSON.stringify(new URL('./node.ts', import.meta.url).href)});
      const fs = fileSystemWithin(1000);
      const files = [];
      for (let n = 0; n < 200; n++) {
        const file = fs.open(\`\${process.argv[1]}/many-\${n}\`, 'create');
        file.writeNow([Buffer.from(String(n))], 0);
        file.syncNow();
        files.push(file);
      }
      fs.list(process.argv[1]);
      await fs.syncDirectory(process.argv[1]);
      const bytes = Buffer.alloc(8);
      for (const [n, file] of files.entries())
        if (Number(bytes.toString('utf8', 0, file.readNow(bytes, 0))) !== n) throw new Error('not ' + n);
      console.log(fs.descriptors.open < 100 && fs.descriptors.evictions > 200);`;
    const command = 'ulimit -n 100 && exec "$0" --input-type=module -e "$1" "$2"';
    const answer = execFileSync('sh', ['-c', command, process.execPath, script, directory.path]);
    expect(answer.toString()).toBe('true\n');
  });
});
