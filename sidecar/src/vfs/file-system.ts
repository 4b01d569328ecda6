import type { Descriptors } from './descriptor-budget.ts';

/**
 * The disk as the sidecar sees it: the only door to files. `node.ts` is the real one, `memory.ts` its hostile
 * twin. Synchronous calls are for what the loop does itself (a write into the page cache, opening); what waits
 * for the platter is a promise and runs on the pool.
 *
 * Errors are the operating system's: an `Error` with a `code` (ENOSPC, EIO, ENOENT, …).
 */
export interface FileSystem {
  /** @param mode `create` makes the file where there is none */
  open(path: string, mode: 'read' | 'write' | 'create'): File;
  exists(path: string): boolean;
  /** Size in bytes. */
  size(path: string): number;
  /** Names in a directory, sorted. */
  list(directory: string): string[];
  isDirectory(path: string): boolean;
  /** Parents included; fine when it is there. */
  makeDirectory(path: string): void;
  /** Replaces what stands at `to`. Durable after the directory is synced. */
  rename(from: string, to: string): void;
  remove(path: string): void;
  /** The same on the pool: freeing a large file takes a while. */
  removeFile(path: string): Promise<void>;
  /** When the file was last written, in milliseconds since the epoch. */
  modifiedMs(path: string): number;
  /** Removes a directory and all in it. */
  removeDirectory(path: string): Promise<void>;
  /** Makes creations, renames and removals in a directory durable. */
  syncDirectory(path: string): Promise<void>;
  syncDirectoryNow(path: string): void;
  /** Bytes that may still be written to the file system that a directory is on. */
  freeBytes(directory: string): number;
  /**
   * Takes a lock that the kernel drops with the process.
   * @returns null when another process has it
   */
  lock(path: string): Lock | null;
  readonly descriptors: Descriptors;
}

export interface Lock {
  release(): void;
}

/** An open file. It closes when the last holder lets go, so that a region outlives the file's deletion. */
export interface File {
  /** Where it is now, or was last. */
  readonly path: string;
  size(): number;
  /** Bytes read: fewer than asked for only at the end of the file. */
  read(into: Uint8Array, position: number): Promise<number>;
  readNow(into: Uint8Array, position: number): number;
  /** Writes all of the chunks, in order, or fails; what was written of them is unknown then. */
  write(chunks: readonly Uint8Array[], position: number): Promise<void>;
  writeNow(chunks: readonly Uint8Array[], position: number): void;
  truncateNow(size: number): void;
  /** Makes what was written durable. After a failure nothing is known of the unsynced bytes. */
  sync(): Promise<void>;
  syncNow(): void;
  /** Null where the system has no such calls. */
  readonly pageCache: PageCache | null;
  retain(): void;
  release(): void;
}

/** A file's bytes where the kernel keeps them: they can go to a socket without passing through our memory. */
export interface PageCache {
  /** Whether a range is in memory as far as a few probes can tell, so that touching it does not wait for the disk. */
  isWarm(position: number, size: number): boolean;
  /** Brings a range into memory, on the pool. A failure stays unsaid: who reads the range next will meet it. */
  warm(position: number, size: number): Promise<void>;
  /**
   * Hands a range to the descriptor of a socket, on the loop and without waiting.
   * @returns bytes that the socket took: fewer when it is full, 0 when it took none, whatever the reason
   */
  send(socket: number, position: number, size: number): number;
}

/** Whether the operating system said it: it has a code, and is about one file or one moment. */
export const isSystemError = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && /^E[A-Z0-9]+$/.test((error as NodeJS.ErrnoException).code ?? '');

/** The whole of a file, null when there is none. */
export function readFile(fs: FileSystem, path: string): Buffer | null {
  if (!fs.exists(path)) return null;
  const file = fs.open(path, 'read');
  try {
    const bytes = Buffer.allocUnsafe(file.size());
    return bytes.subarray(0, file.readNow(bytes, 0));
  } finally {
    file.release();
  }
}

/** What the kernel tells in a file of a few bytes, null where it does not: of its size it says nothing. */
export function readKernelFile(fs: FileSystem, path: string): string | null {
  if (!fs.exists(path)) return null;
  const file = fs.open(path, 'read');
  try {
    const bytes = Buffer.alloc(64);
    return bytes.toString('utf8', 0, file.readNow(bytes, 0)).trim();
  } finally {
    file.release();
  }
}

/** Puts a file in place whole or not at all: written aside, synced, renamed, the directory synced. */
export async function writeAtomically(fs: FileSystem, path: string, bytes: Uint8Array): Promise<void> {
  const aside = `${path}.tmp`;
  const file = fs.open(aside, 'create');
  try {
    file.truncateNow(0);
    file.writeNow([bytes], 0);
    await file.sync();
    fs.rename(aside, path);
  } catch (error) {
    removeUnfinished(fs, aside);
    throw error;
  } finally {
    file.release();
  }
  await fs.syncDirectory(parentOf(path));
}

/** The same before the loop turns: at start and stop, when nobody waits for the loop. */
export function writeAtomicallyNow(fs: FileSystem, path: string, bytes: Uint8Array): void {
  replaceNow(fs, path, bytes, (file) => file.syncNow());
  fs.syncDirectoryNow(parentOf(path));
}

/** Whole or not at all as far as other processes see; after a power cut, anything may be there. */
export function replaceNow(
  fs: FileSystem,
  path: string,
  bytes: Uint8Array,
  beforeRename: (file: File) => void = () => {},
): void {
  const aside = `${path}.tmp`;
  const file = fs.open(aside, 'create');
  try {
    file.truncateNow(0);
    file.writeNow([bytes], 0);
    beforeRename(file);
    fs.rename(aside, path);
  } catch (error) {
    removeUnfinished(fs, aside);
    throw error;
  } finally {
    file.release();
  }
}

/** What was begun would take room on a disk that may be full. */
export function removeUnfinished(fs: FileSystem, path: string): void {
  try {
    if (fs.exists(path)) fs.remove(path);
  } catch {
    // Why it could not be finished is what the caller has to know.
  }
}

export const parentOf = (path: string): string => path.slice(0, path.lastIndexOf('/')) || '/';

/** Reads until `into` is full or the file ends. */
export function readFully(
  read: (into: Uint8Array, position: number) => number,
  into: Uint8Array,
  position: number,
): number {
  let have = 0;
  while (have < into.length) {
    const count = read(into.subarray(have), position + have);
    if (count === 0) break;
    have += count;
  }
  return have;
}
