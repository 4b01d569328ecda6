import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SidecarError } from '../errors.ts';
import { assert } from '../invariant.ts';
import { parentOf, readFully, type File, type FileSystem, type Lock, type PageCache } from './file-system.ts';
import { linuxCalls, lockDescriptor } from './libc.ts';

/** The real disk. Nothing else in the sidecar imports `node:fs`. */
export const nodeFileSystem: FileSystem = {
  open: (path, mode) => new NodeFile(path, fs.openSync(path, flags[mode], 0o644)),
  exists: (path) => fs.existsSync(path),
  size: (path) => fs.statSync(path).size,
  list: (directory) => fs.readdirSync(directory).sort(),
  isDirectory: (path) => fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false,
  makeDirectory,
  rename: (from, to) => fs.renameSync(from, to),
  remove: (path) => fs.unlinkSync(path),
  removeFile: (path) => fs.promises.unlink(path),
  modifiedMs: (path) => fs.statSync(path).mtimeMs,
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

/**
 * Parents included, one after another: Node's own recursive call never ends where the system says that a parent
 * does not exist although it does, as in /proc.
 */
function makeDirectory(path: string): void {
  if (fs.statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  const parent = parentOf(path);
  if (parent !== path) makeDirectory(parent);
  try {
    fs.mkdirSync(path);
  } catch (error) {
    // Somebody else may have made it meanwhile.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !fs.statSync(path).isDirectory()) throw error;
  }
}

/** A directory of its own under the system's temporary one; `removeNow` works at a process's exit too. */
export function temporaryDirectory(): { readonly path: string; removeNow(): void } {
  const path = fs.mkdtempSync(join(tmpdir(), 'rookery-'));
  return { path, removeNow: () => fs.rmSync(path, { recursive: true, force: true }) };
}

const { O_RDONLY, O_RDWR, O_CREAT } = fs.constants;
const flags = { read: O_RDONLY, write: O_RDWR, create: O_RDWR | O_CREAT };

/** How far apart a range is probed. The kernel reads ahead, and drops what it read, in runs of this order. */
const probeStride = 256 * 1024;
/** Where warming reads to: one for all, since nobody ever looks at what is in it. */
const nowhere = Buffer.allocUnsafeSlow(256 * 1024);

class NodeFile implements File, PageCache {
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

  get pageCache(): PageCache | null {
    return linuxCalls() === null ? null : this;
  }

  isWarm(position: number, size: number): boolean {
    assert(this.#holders > 0, 'only an open file is probed');
    const { isResident } = linuxCalls()!;
    const last = position + size - 1;
    for (let at = position; at < last; at += probeStride) if (!isResident(this.#fd, at)) return false;
    return isResident(this.#fd, last);
  }

  warm(position: number, size: number): Promise<void> {
    this.retain();
    return new Promise((resolve) => {
      const more = (at: number): void => {
        const length = Math.min(nowhere.length, position + size - at);
        fs.read(this.#fd, nowhere, 0, length, at, (error, count) => {
          if (error === null && count > 0 && at + count < position + size) return more(at + count);
          this.release();
          resolve();
        });
      };
      more(position);
    });
  }

  send(socket: number, position: number, size: number): number {
    // The number of a closed file is another file's by now, with another reader's bytes.
    assert(this.#holders > 0, 'only an open file is sent');
    return linuxCalls()!.send(socket, this.#fd, position, size);
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

/** A lock by file content would outlive a crash; the kernel's own goes with the process. */
function lockFile(path: string): Lock | null {
  const fd = fs.openSync(path, O_RDWR | O_CREAT, 0o644);
  let isLocked = false;
  try {
    isLocked = lockDescriptor(fd);
  } catch (error) {
    throw new SidecarError('RK0301', 'this system offers no file lock through FFI', { cause: error });
  } finally {
    if (!isLocked) fs.closeSync(fd);
  }
  return isLocked ? { release: () => fs.closeSync(fd) } : null;
}
