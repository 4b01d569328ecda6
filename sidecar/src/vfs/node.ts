import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SidecarError } from '../errors.ts';
import { readFully, type File, type FileSystem, type Lock } from './file-system.ts';

/** The real disk. Nothing else in the sidecar imports `node:fs`. */
export const nodeFileSystem: FileSystem = {
  open: (path, mode) => new NodeFile(path, fs.openSync(path, flags[mode], 0o644)),
  exists: (path) => fs.existsSync(path),
  size: (path) => fs.statSync(path).size,
  list: (directory) => fs.readdirSync(directory).sort(),
  isDirectory: (path) => fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false,
  makeDirectory: (path) => void fs.mkdirSync(path, { recursive: true }),
  rename: (from, to) => fs.renameSync(from, to),
  remove: (path) => fs.unlinkSync(path),
  removeDirectory: (path) => fs.promises.rm(path, { recursive: true, force: true }),
  async syncDirectory(path) {
    const handle = await fs.promises.open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
  syncDirectoryNow(path) {
    const fd = fs.openSync(path, 'r');
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  },
  freeBytes(directory) {
    const { bavail, bsize } = fs.statfsSync(directory);
    return bavail * bsize;
  },
  lock: lockFile,
};

/** A directory of its own under the system's temporary one; `removeNow` works at a process's exit too. */
export function temporaryDirectory(): { readonly path: string; removeNow(): void } {
  const path = fs.mkdtempSync(join(tmpdir(), 'rookery-'));
  return { path, removeNow: () => fs.rmSync(path, { recursive: true, force: true }) };
}

const { O_RDONLY, O_RDWR, O_CREAT } = fs.constants;
const flags = { read: O_RDONLY, write: O_RDWR, create: O_RDWR | O_CREAT };

class NodeFile implements File {
  readonly path: string;
  readonly #fd: number;
  #holders = 1;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  size(): number {
    return fs.fstatSync(this.#fd).size;
  }

  read(into: Uint8Array, position: number): Promise<number> {
    this.retain();
    return new Promise((resolve, reject) => {
      const more = (have: number): void => {
        fs.read(this.#fd, into, have, into.length - have, position + have, (error, count) => {
          if (error === null && count > 0 && have + count < into.length) return more(have + count);
          this.release();
          if (error === null) resolve(have + count);
          else reject(error);
        });
      };
      more(0);
    });
  }

  readNow(into: Uint8Array, position: number): number {
    return readFully((rest, at) => fs.readSync(this.#fd, rest, 0, rest.length, at), into, position);
  }

  write(chunks: readonly Uint8Array[], position: number): Promise<void> {
    this.retain();
    return new Promise((resolve, reject) => {
      const more = (left: readonly Uint8Array[], at: number): void => {
        fs.writev(this.#fd, left.slice(0, ioVectorMax), at, (error, written) => {
          const rest = error === null ? after(left, written) : [];
          if (rest.length > 0) return more(rest, at + written);
          this.release();
          if (error === null) resolve();
          else reject(error);
        });
      };
      more(chunks, position);
    });
  }

  writeNow(chunks: readonly Uint8Array[], position: number): void {
    let left = chunks;
    while (left.length > 0) {
      // The kernel takes at most 1024 pieces at once, and on a nearly full disk fewer bytes than it was given.
      const some = left.length > ioVectorMax ? left.slice(0, ioVectorMax) : left;
      const written = fs.writevSync(this.#fd, some, position);
      position += written;
      left = after(left, written);
    }
  }

  truncateNow(size: number): void {
    fs.ftruncateSync(this.#fd, size);
  }

  sync(): Promise<void> {
    this.retain();
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#fd, (error) => {
        this.release();
        if (error === null) resolve();
        else reject(error);
      });
    });
  }

  syncNow(): void {
    fs.fdatasyncSync(this.#fd);
  }

  retain(): void {
    this.#holders++;
  }

  release(): void {
    if (--this.#holders === 0) fs.closeSync(this.#fd);
  }
}

const ioVectorMax = 1024;

/** What is left of the chunks when so many bytes of them are written. */
function after(chunks: readonly Uint8Array[], written: number): readonly Uint8Array[] {
  let i = 0;
  while (i < chunks.length && written >= chunks[i]!.length) written -= chunks[i++]!.length;
  if (i === chunks.length) return [];
  return written === 0 ? chunks.slice(i) : [chunks[i]!.subarray(written), ...chunks.slice(i + 1)];
}

const lockExclusive = 2;
const lockWithoutWaiting = 4;

/** flock through FFI: Node has no call for it, and a lock by file content would outlive a crash. */
function lockFile(path: string): Lock | null {
  const fd = fs.openSync(path, O_RDWR | O_CREAT, 0o644);
  const flock = loadFlock();
  if (flock(fd, lockExclusive | lockWithoutWaiting) !== 0) {
    fs.closeSync(fd);
    return null;
  }
  return { release: () => fs.closeSync(fd) };
}

function loadFlock(): (fd: number, operation: number) => number {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi').default;
    const libc = koffi.load(process.platform === 'darwin' ? 'libc.dylib' : 'libc.so.6');
    return libc.func('int flock(int fd, int operation)') as (fd: number, operation: number) => number;
  } catch (error) {
    throw new SidecarError('RK0301', 'this system offers no file lock through FFI', { cause: error });
  }
}
