import { createRequire } from 'node:module';

/**
 * Calls of the C library for which Node has none. They are looked up in the process itself, which has a C
 * library loaded already, glibc or another; koffi, which makes them callable, loads with the first call.
 *
 * All of them run on the loop and none may wait. Nothing here is ever handed to a pool thread: a descriptor that
 * is closed meanwhile goes to the next file or client, and memory that is collected meanwhile to anybody.
 */

type Koffi = (typeof import('koffi'))['default'];

let koffi: Koffi | undefined;

function load(): Koffi {
  koffi ??= createRequire(import.meta.url)('koffi') as Koffi;
  return koffi;
}

const find = <F>(prototype: string): F => load().load(null).func(prototype) as unknown as F;

const lockExclusive = 2;
const lockWithoutWaiting = 4;
type Flock = (fd: number, operation: number) => number;
let flock: Flock | undefined;

/**
 * Locks an open file; the kernel drops the lock with the descriptor, however the process ends.
 * @returns false when another process has it
 * @throws Error on a system without the call
 */
export function lockDescriptor(fd: number): boolean {
  flock ??= find<Flock>('int flock(int fd, int operation)');
  return flock(fd, lockExclusive | lockWithoutWaiting) === 0;
}

/** `RLIMIT_NOFILE`, which has a number of its own on every system. */
const openFilesLimit: Partial<Record<NodeJS.Platform, number>> = { linux: 7, darwin: 8, freebsd: 8 };

/**
 * How many descriptors this process may have: Node has raised the soft limit as far as the hard one lets it.
 * Null where the system does not say.
 */
export function descriptorLimit(): number | null {
  const resource = openFilesLimit[process.platform];
  if (resource === undefined) return null;
  try {
    const getrlimit = find<(resource: number, limits: Buffer) => number>(
      'int getrlimit(int resource, void *limits)',
    );
    const limits = Buffer.alloc(16);
    return getrlimit(resource, limits) === 0 ? Number(limits.readBigUInt64LE(0)) : null;
  } catch {
    return null;
  }
}

/** What Linux offers to send a file without touching its bytes. */
export interface LinuxCalls {
  /** Bytes that went from the file into the socket at once; 0 when it took none, whatever the reason. */
  send(socket: number, fd: number, position: number, size: number): number;
  /** Whether the byte at this position could be read without waiting for the disk. */
  isResident(fd: number, position: number): boolean;
}

let linux: LinuxCalls | null | undefined;

/** Null where there is no such thing. */
export function linuxCalls(): LinuxCalls | null {
  if (linux !== undefined) return linux;
  try {
    linux = process.platform === 'linux' ? findLinuxCalls() : null;
  } catch {
    linux = null;
  }
  return linux;
}

const readWithoutWaiting = 8;

function findLinuxCalls(): LinuxCalls {
  const sendfile = find<(socket: number, fd: number, offset: Buffer, size: number) => number>(
    'int64_t sendfile(int socket, int fd, void *offset, uint64_t size)',
  );
  const preadv2 = find<(fd: number, into: Buffer, count: number, offset: number, flags: number) => number>(
    'int64_t preadv2(int fd, void *into, int count, int64_t offset, int flags)',
  );
  // The kernel touches these during a call only, so one of each serves all calls. They share one piece of memory
  // because only that keeps the probed byte alive: nothing but an address in the vector leads to it.
  const memory = Buffer.from(new ArrayBuffer(32));
  const [offset, vector, probed] = [memory.subarray(0, 8), memory.subarray(8, 24), memory.subarray(24, 25)];
  vector.writeBigUInt64LE(load().address(probed), 0);
  vector.writeBigUInt64LE(1n, 8);
  return {
    send(socket, fd, position, size) {
      offset.writeUInt32LE(position % 0x100000000, 0);
      offset.writeUInt32LE(Math.floor(position / 0x100000000), 4);
      return Math.max(0, sendfile(socket, fd, offset, size));
    },
    isResident: (fd, position) => preadv2(fd, vector, 1, position, readWithoutWaiting) === 1,
  };
}
