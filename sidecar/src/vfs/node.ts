import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { SidecarError } from '../errors.ts';
import { assert } from '../invariant.ts';
import { DescriptorBudget, type Holder } from './descriptor-budget.ts';
import { parentOf, readFully, type File, type FileSystem, type Lock, type PageCache } from './file-system.ts';
import { descriptorLimit, linuxCalls, lockDescriptor } from './libc.ts';
import { OpenNames, type Place } from './open-names.ts';

/** How many sockets there are to be room for, however few descriptors there are. */
const othersMin = 8;
/** What Node itself has open, and the sidecar beside files and the clients' sockets. */
const ownDescriptors = 32;
/** Where the system does not say how many there may be. */
const unknownLimit = 1024;

/** Files get half of what there is, for every connection takes a descriptor too. */
function halfOfTheLimit(): () => { max: number; leftForOthers: number } {
  let limits: { max: number; leftForOthers: number } | undefined;
  return () => {
    if (limits !== undefined) return limits;
    const all = descriptorLimit() ?? unknownLimit;
    const max = Math.max(1, Math.floor(all / 2));
    limits = { max, leftForOthers: Math.max(othersMin, all - max - ownDescriptors) };
    return limits;
  };
}

/**
 * The real disk. Nothing else in the sidecar imports `node:fs`.
 *
 * A file is open as long as somebody holds it, yet its descriptor is not: where there are more files than
 * descriptors, the one used longest ago gives up its own, and opens again when it is used. So it must be known
 * under which name it is to be found by then, and what is removed while somebody holds it stays open. That other
 * processes and threads rename files is not seen: then the file that is found is not the one that was closed, and
 * using it is an error.
 */
class NodeFileSystem implements FileSystem {
  readonly descriptors: DescriptorBudget;
  readonly #names = new OpenNames<NodeFile>();

  constructor(limits = halfOfTheLimit()) {
    this.descriptors = new DescriptorBudget(limits);
  }

  open(path: string, mode: 'read' | 'write' | 'create'): File {
    // Where the budget is spent, a file that is there is opened when it is first used: an operation on the pool
    // can wait until another has given its descriptor back.
    const isLate = this.descriptors.isSpent && fs.existsSync(path);
    const opened = isLate ? null : this.openNow(path, flags[mode]);
    return new NodeFile(this, this.#names, resolve(path), mode === 'read' ? O_RDONLY : O_RDWR, opened);
  }

  exists(path: string): boolean {
    return fs.existsSync(path);
  }

  size(path: string): number {
    return fs.statSync(path).size;
  }

  list(directory: string): string[] {
    return this.#making(() => fs.readdirSync(directory).sort());
  }

  isDirectory(path: string): boolean {
    return fs.statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  }

  makeDirectory(path: string): void {
    makeDirectory(path);
  }

  rename(from: string, to: string): void {
    this.#takingAway(to, () => fs.renameSync(from, to));
    this.#names.rename(resolve(from), resolve(to));
  }

  remove(path: string): void {
    this.#takingAway(path, () => fs.unlinkSync(path));
  }

  removeFile(path: string): Promise<void> {
    return this.#takingAway(path, () => fs.promises.unlink(path));
  }

  modifiedMs(path: string): number {
    return fs.statSync(path).mtimeMs;
  }

  removeDirectory(path: string): Promise<void> {
    // It opens every directory in it; tries again, a little later each time, where there is no descriptor.
    const options = { recursive: true, force: true, maxRetries: 5 };
    return this.#takingAway(path, () => fs.promises.rm(path, options));
  }

  async syncDirectory(path: string): Promise<void> {
    const { fd } = await this.openInTurn(() => path, O_RDONLY);
    try {
      await fsync(fd);
    } finally {
      fs.closeSync(fd);
      this.descriptors.closed(null);
      this.descriptors.ended();
    }
  }

  syncDirectoryNow(path: string): void {
    const { fd } = this.openNow(path, O_RDONLY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
      this.descriptors.closed(null);
    }
  }

  freeBytes(directory: string): number {
    const { bavail, bsize } = fs.statfsSync(directory);
    return bavail * bsize;
  }

  lock(path: string): Lock | null {
    return lockFile(path);
  }

  /** A descriptor, for which another file gives up its own if it must. */
  openNow(path: string, how: number): Opened {
    this.descriptors.makeRoom();
    const opened = this.#making(() => openOrRead(path, how));
    this.descriptors.opened();
    return opened;
  }

  /**
   * The same for who can wait: while the budget is spent, until an operation that is under way has ended. The
   * operation for which it is opened has begun when it is there: between the two, others would take it for idle.
   *
   * @param path asked when it is opened: it may be another by then
   */
  async openInTurn(path: () => string, how: number): Promise<Opened> {
    const { descriptors } = this;
    for (;;) {
      if (descriptors.isSpent && (descriptors.settleOldest() || descriptors.mayBecomeFree)) {
        await descriptors.whenFree();
        continue;
      }
      try {
        const opened = this.openNow(path(), how);
        descriptors.began();
        return opened;
      } catch (error) {
        if (!isExhausted(error) || !descriptors.mayBecomeFree) throw error;
        await descriptors.whenFree();
      }
    }
  }

  /** Does what takes a descriptor. The limit is the whole process's, so it can be reached before the budget is spent. */
  #making<T>(act: () => T): T {
    for (;;) {
      try {
        return act();
      } catch (error) {
        const { descriptors } = this;
        if (!isExhausted(error) || !(descriptors.closeOldest() || descriptors.settleOldestNow())) throw error;
      }
    }
  }

  /** Does what removes the names at a path. What is open there stays open until nobody holds it any more. */
  #takingAway<T>(path: string, act: () => T): T {
    const open = this.#names.at(resolve(path));
    for (const file of open) file.willLoseName();
    let done: T;
    try {
      done = act();
    } catch (error) {
      for (const file of open) file.keepsName();
      throw error;
    }
    for (const file of open) file.lostName();
    return done;
  }
}

export const nodeFileSystem: FileSystem = new NodeFileSystem();

/** The same disk with a limit of its own for open files. */
export const fileSystemWithin = (max: number): FileSystem =>
  new NodeFileSystem(() => ({ max, leftForOthers: Infinity }));

/** The process, or the system, has no descriptor left. */
const isExhausted = (error: unknown): boolean =>
  ['EMFILE', 'ENFILE'].includes((error as NodeJS.ErrnoException).code ?? '');

const fsync = promisify(fs.fsync);

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

interface Opened {
  readonly fd: number;
  /** It was to be written, and the disk takes no writes. */
  readonly isReadOnly: boolean;
}

/** A file system that has met an error turns read-only, and what is on it can still be read. */
function openOrRead(path: string, how: number): Opened {
  try {
    return { fd: fs.openSync(path, how, 0o644), isReadOnly: false };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EROFS' || !fs.existsSync(path)) throw error;
    return { fd: fs.openSync(path, O_RDONLY), isReadOnly: true };
  }
}

const { O_RDONLY, O_RDWR, O_CREAT } = fs.constants;
const flags = { read: O_RDONLY, write: O_RDWR, create: O_RDWR | O_CREAT };

/** How far apart a range is probed. The kernel reads ahead, and drops what it read, in runs of this order. */
const probeStride = 256 * 1024;
/** Where warming reads to: one for all, since nobody ever looks at what is in it. */
const nowhere = Buffer.allocUnsafeSlow(256 * 1024);

class NodeFile implements File, PageCache, Holder {
  readonly #fs: NodeFileSystem;
  readonly #names: OpenNames<NodeFile>;
  /** Null once the file has no name any more. */
  #place: Place<NodeFile> | null;
  #lastPath: string;
  readonly #how: number;
  #fd: number | null;
  /** Its descriptor was to be for writing, and is not. */
  #isReadOnly: boolean;
  /** Which file it was when its descriptor was given back. */
  #identity: { readonly dev: number; readonly ino: number } | null = null;
  #holders = 1;
  #operations = 0;
  /** Operations that have no descriptor yet: each of them is a holder. */
  #waiting = 0;
  /** Grows with each change, at its beginning and at its end, so that a sync knows what it covers. */
  #changes = 0;
  /**
   * Bytes were written, and no sync has said that they are on the platter. The kernel tells of a write that it
   * could not carry out by the next sync of a descriptor that was open at that time: a descriptor opened later may
   * hear nothing of it, and a sync of it report success. So this one stays open until a sync has told.
   */
  #isUnsynced = false;
  /**
   * Why a sync failed, of which whoever asks for one is told from then on: it may have been the budget that had asked,
   * and a second one might report success for what the first has lost.
   */
  #failure: Error | null = null;
  /** Nobody could open it again. */
  #isNameless = false;

  constructor(
    system: NodeFileSystem,
    names: OpenNames<NodeFile>,
    path: string,
    how: number,
    opened: Opened | null,
  ) {
    this.#fs = system;
    this.#names = names;
    this.#place = names.add(path, this);
    this.#lastPath = path;
    this.#how = how;
    this.#fd = opened?.fd ?? null;
    this.#isReadOnly = opened?.isReadOnly ?? false;
    this.#sortIn();
  }

  get path(): string {
    return this.#place?.path ?? this.#lastPath;
  }

  size(): number {
    return this.#now((fd) => fs.fstatSync(fd).size);
  }

  read(into: Uint8Array, position: number): Promise<number> {
    return this.#onPool((fd, done) => {
      const more = (have: number): void => {
        fs.read(fd, into, have, into.length - have, position + have, (error, count) => {
          if (error === null && count > 0 && have + count < into.length) return more(have + count);
          done(error, have + count);
        });
      };
      more(0);
    });
  }

  readNow(into: Uint8Array, position: number): number {
    return this.#now((fd) =>
      readFully((rest, at) => fs.readSync(fd, rest, 0, rest.length, at), into, position),
    );
  }

  async write(chunks: readonly Uint8Array[], position: number): Promise<void> {
    this.#letGoOfReadOnly();
    await this.#onPool<void>((fd, done) => {
      this.#change();
      const more = (left: readonly Uint8Array[], at: number): void => {
        fs.writev(fd, left.slice(0, ioVectorMax), at, (error, written) => {
          const rest = error === null ? after(left, written) : [];
          if (rest.length > 0) return more(rest, at + written);
          this.#change();
          done(error);
        });
      };
      more(chunks, position);
    });
  }

  writeNow(chunks: readonly Uint8Array[], position: number): void {
    this.#letGoOfReadOnly();
    this.#now((fd) => {
      this.#change();
      let left = chunks;
      while (left.length > 0) {
        // The kernel takes at most 1024 pieces at once, and on a nearly full disk fewer bytes than it was given.
        const some = left.length > ioVectorMax ? left.slice(0, ioVectorMax) : left;
        const written = fs.writevSync(fd, some, position);
        position += written;
        left = after(left, written);
      }
    });
  }

  truncateNow(size: number): void {
    this.#letGoOfReadOnly();
    this.#now((fd) => {
      this.#change();
      fs.ftruncateSync(fd, size);
    });
  }

  async sync(): Promise<void> {
    await this.#onPool<void>((fd, done) => {
      if (this.#failure !== null) return done(this.#failure);
      const upTo = this.#changes;
      fs.fdatasync(fd, (error) => {
        this.#failure ??= error;
        if (this.#changes === upTo) this.#isUnsynced = false;
        done(this.#failure);
      });
    });
  }

  syncNow(): void {
    if (this.#failure !== null) throw this.#failure;
    this.#now((fd) => {
      try {
        fs.fdatasyncSync(fd);
      } catch (error) {
        this.#failure = error as Error;
        throw error;
      } finally {
        this.#isUnsynced = false;
      }
    });
  }

  settle(): void {
    this.sync().catch(() => {});
  }

  settleNow(): void {
    try {
      this.syncNow();
    } catch {
      // Kept for whoever asks for a sync next.
    }
  }

  get pageCache(): PageCache | null {
    return linuxCalls() === null ? null : this;
  }

  isWarm(position: number, size: number): boolean {
    assert(this.#holders > 0, 'only an open file is probed');
    const { isResident } = linuxCalls()!;
    const last = position + size - 1;
    return this.#now((fd) => {
      for (let at = position; at < last; at += probeStride) if (!isResident(fd, at)) return false;
      return isResident(fd, last);
    });
  }

  warm(position: number, size: number): Promise<void> {
    const warmed = this.#onPool<void>((fd, done) => {
      const more = (at: number): void => {
        const length = Math.min(nowhere.length, position + size - at);
        fs.read(fd, nowhere, 0, length, at, (error, count) => {
          if (error === null && count > 0 && at + count < position + size) return more(at + count);
          done(null);
        });
      };
      more(position);
    });
    return warmed.catch(() => {});
  }

  send(socket: number, position: number, size: number): number {
    // The number of a closed file is another file's by now, with another reader's bytes.
    assert(this.#holders > 0, 'only an open file is sent');
    return this.#now((fd) => linuxCalls()!.send(socket, fd, position, size));
  }

  retain(): void {
    assert(this.#holders > 0, 'only an open file is held');
    this.#holders++;
  }

  release(): void {
    if (--this.#holders > 0) return;
    if (this.#place !== null) this.#names.remove(this.#place, this);
    if (this.#fd === null) return;
    const fd = this.#fd;
    this.#fd = null;
    this.#fs.descriptors.closed(this);
    fs.closeSync(fd);
  }

  close(): void {
    assert(this.#fd !== null && this.#mayClose, 'only a file at rest is closed');
    const fd = this.#fd;
    const { dev, ino } = fs.fstatSync(fd);
    this.#identity = { dev, ino };
    this.#fd = null;
    this.#fs.descriptors.closed(this);
    fs.closeSync(fd);
  }

  /**
   * Its name is about to go, so it opens now or never. Not when it is open for nobody but operations that have not
   * begun: they are those of a log that has gone with the name.
   */
  willLoseName(): void {
    this.#isNameless = true;
    try {
      if (this.#holders > this.#waiting && this.#fs.descriptors.mayExceed) this.#descriptor();
    } catch {
      // Nothing may keep a name from going; whoever holds the file hears of it with the next use.
    }
    this.#sortIn();
  }

  keepsName(): void {
    this.#isNameless = false;
    this.#sortIn();
  }

  lostName(): void {
    if (this.#place === null) return;
    this.#lastPath = this.path;
    this.#names.remove(this.#place, this);
    this.#place = null;
  }

  get #mayClose(): boolean {
    return this.#operations === 0 && !this.#isUnsynced && !this.#isNameless;
  }

  /** Tells the budget whether it may be closed. */
  #sortIn(): void {
    if (this.#fd === null) return;
    const { descriptors } = this.#fs;
    if (this.#mayClose) descriptors.rest(this);
    else if (this.#operations === 0 && !this.#isNameless) descriptors.owe(this);
    else descriptors.pin(this);
  }

  /** The disk may take writes again by now. */
  #letGoOfReadOnly(): void {
    if (this.#isReadOnly && this.#fd !== null && this.#mayClose) this.close();
  }

  #change(): void {
    if (this.#isReadOnly)
      throw Object.assign(new Error(`EROFS: ${this.path} is open for reading alone`), { code: 'EROFS' });
    this.#changes++;
    this.#isUnsynced = true;
  }

  /** Something that is over before anybody else has a turn. */
  #now<T>(act: (fd: number) => T): T {
    const fd = this.#descriptor();
    try {
      return act(fd);
    } finally {
      this.#sortIn();
    }
  }

  /** Something that takes its time: until then the file is held, and its descriptor with it. */
  async #onPool<T>(start: (fd: number, done: (error: Error | null, result: T) => void) => void): Promise<T> {
    this.retain();
    try {
      const fd = this.#fd === null ? await this.#beginInTurn() : this.#begin(this.#fd);
      try {
        return await new Promise((resolve, reject) => {
          start(fd, (error, result) => (error === null ? resolve(result) : reject(error)));
        });
      } finally {
        this.#operations--;
        this.#sortIn();
        this.#fs.descriptors.ended();
      }
    } finally {
      this.release();
    }
  }

  #begin(fd: number): number {
    this.#operations++;
    this.#sortIn();
    this.#fs.descriptors.began();
    return fd;
  }

  /** As soon as there is a descriptor, unless somebody else comes to need it before: then that one is used too. */
  async #beginInTurn(): Promise<number> {
    const { descriptors } = this.#fs;
    this.#waiting++;
    try {
      const opened = await this.#fs.openInTurn(() => this.#findable, this.#how);
      descriptors.ended();
      this.#opened(opened);
      return this.#begin(this.#fd!);
    } finally {
      this.#waiting--;
    }
  }

  #descriptor(): number {
    if (this.#fd === null) this.#opened(this.#fs.openNow(this.#findable, this.#how));
    return this.#fd!;
  }

  /** @throws Error for a file that was removed while it was closed */
  get #findable(): string {
    assert(this.#holders > 0, 'only an open file is used');
    if (this.#place !== null) return this.#place.path;
    throw Object.assign(new Error(`ENOENT: ${this.#lastPath} was removed`), { code: 'ENOENT' });
  }

  #opened({ fd, isReadOnly }: Opened): void {
    const { descriptors } = this.#fs;
    if (this.#fd !== null) {
      fs.closeSync(fd);
      return descriptors.closed(null);
    }
    if (this.#identity !== null) {
      const { dev, ino } = fs.fstatSync(fd);
      if (dev !== this.#identity.dev || ino !== this.#identity.ino) {
        fs.closeSync(fd);
        descriptors.closed(null);
        throw Object.assign(new Error(`ESTALE: ${this.path} is another file now`), { code: 'ESTALE' });
      }
    }
    this.#fd = fd;
    this.#isReadOnly = isReadOnly;
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
