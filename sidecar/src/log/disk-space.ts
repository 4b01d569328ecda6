import type { Clock, Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { FileSystem } from '../vfs/file-system.ts';

export interface DiskSpaceOptions {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly clock: Clock;
  readonly events: EventBus;
  /** Below it nothing is appended any more (`disk.min.free.bytes`); 0 turns the guard off. */
  readonly minFreeBytes: number;
  /** Bytes kept aside for checkpoints and deletes (`disk.reserve.bytes`). */
  readonly reserveBytes: number;
}

const reserveName = '.reserve';
const lookEveryMs = 1_000;
const chunkBytes = 1024 * 1024;

/**
 * The disk is shared with the services of the host. While it is nearly full, appends are refused before they
 * fail halfway; and a file that holds nothing is given up, so that checkpoints and deletes, which make room,
 * can go on.
 */
export class DiskSpace {
  readonly #options: DiskSpaceOptions;
  readonly #reserve: string;
  readonly #timer: Timer | null;
  #freeBytes = Infinity;
  #isLow = false;
  #hasReserve = false;

  constructor(options: DiskSpaceOptions) {
    this.#options = options;
    this.#reserve = `${options.directory}/${reserveName}`;
    const { fs, clock, minFreeBytes } = options;
    this.#hasReserve = fs.exists(this.#reserve) && fs.size(this.#reserve) >= options.reserveBytes;
    this.#timer = minFreeBytes === 0 ? null : clock.every(lookEveryMs, () => this.look());
    this.look();
  }

  get isLow(): boolean {
    return this.#isLow;
  }

  /** Why nothing is appended. */
  get shortage(): string {
    const { minFreeBytes } = this.#options;
    return `${this.#freeBytes} bytes are free on the disk, disk.min.free.bytes is ${minFreeBytes}`;
  }

  /** Looks at the disk now: regularly, and when a write has just failed. */
  look(): void {
    const { fs, directory, events, minFreeBytes, reserveBytes } = this.#options;
    if (minFreeBytes === 0) return;
    try {
      this.#freeBytes = fs.freeBytes(directory);
    } catch (error) {
      events.emit('backgroundFailed', { task: 'looking for free space', error });
      return;
    }
    const freeBytes = this.#freeBytes;
    // The reserve is free space too, once it is given up: what was low may not look better for that alone.
    const isLow = freeBytes < minFreeBytes + (this.#isLow && !this.#hasReserve ? reserveBytes : 0);
    if (isLow && this.#hasReserve) this.#giveUpReserve();
    else if (!isLow && !this.#hasReserve) this.#makeReserve();
    if (isLow === this.#isLow) return;
    this.#isLow = isLow;
    if (isLow) events.emit('diskLow', { freeBytes, minFreeBytes });
    else events.emit('diskRelieved', { freeBytes });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #makeReserve(): void {
    const { fs, reserveBytes } = this.#options;
    if (reserveBytes === 0) return;
    this.#keep('making the reserve', () => {
      const file = fs.open(this.#reserve, 'create');
      try {
        const zeros = Buffer.alloc(Math.min(chunkBytes, reserveBytes));
        for (let at = 0; at < reserveBytes; at += zeros.length)
          file.writeNow([zeros.subarray(0, reserveBytes - at)], at);
      } finally {
        file.release();
      }
      this.#hasReserve = true;
    });
  }

  #giveUpReserve(): void {
    this.#keep('giving up the reserve', () => {
      this.#options.fs.remove(this.#reserve);
      this.#hasReserve = false;
    });
  }

  /** A reserve that cannot be made or given up is no reason to stop serving. */
  #keep(task: string, act: () => void): void {
    try {
      act();
    } catch (error) {
      this.#options.events.emit('backgroundFailed', { task, error });
    }
  }
}
