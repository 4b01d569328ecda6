import type { Clock, Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { removeUnfinished, type FileSystem } from '../vfs/file-system.ts';

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
 * The disk is shared with the services of the host. While it is nearly full, appends are refused before they fail
 * halfway. A file that holds nothing is given up once there is no room for what makes room, which are deletes and
 * the checkpoints that they need; and not before: others would take what it gives.
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
    const { fs, clock, minFreeBytes, reserveBytes } = options;
    const isThere = fs.exists(this.#reserve);
    this.#hasReserve = isThere && reserveBytes > 0 && fs.size(this.#reserve) >= reserveBytes;
    // Begun and not finished, or of a time with other settings.
    if (isThere && !this.#hasReserve) removeUnfinished(fs, this.#reserve);
    const isIdle = minFreeBytes === 0 && reserveBytes === 0;
    this.#timer = isIdle ? null : clock.every(lookEveryMs, () => this.look());
    if (!isIdle) this.look();
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
    try {
      this.#freeBytes = fs.freeBytes(directory);
    } catch (error) {
      events.emit('backgroundFailed', { task: 'looking for free space', error });
      return;
    }
    const freeBytes = this.#freeBytes;
    // The reserve is free space too, once it is given up: what was low may not look better for that alone.
    const isLow = freeBytes < minFreeBytes + (this.#isLow && !this.#hasReserve ? reserveBytes : 0);
    if (!this.#hasReserve && freeBytes >= minFreeBytes + 2 * reserveBytes) this.#makeReserve();
    if (isLow === this.#isLow) return;
    this.#isLow = isLow;
    if (isLow) events.emit('diskLow', { freeBytes, minFreeBytes });
    else events.emit('diskRelieved', { freeBytes });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /**
   * Does what makes room, or what must be known for it. Where the disk has none for that, the reserve is given up, and
   * it is done again.
   */
  async makingRoom<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (!isFull(error) || !this.giveUpReserve()) throw error;
      return act();
    }
  }

  /** The same before the loop turns. */
  makingRoomNow(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!isFull(error) || !this.giveUpReserve()) throw error;
      act();
    }
  }

  /** Before an orderly stop, which has much to write and cannot be tried again. */
  makeRoomForStop(): void {
    this.look();
    const { minFreeBytes, reserveBytes } = this.#options;
    if (this.#freeBytes < Math.max(minFreeBytes, reserveBytes)) this.giveUpReserve();
  }

  /** @returns whether there was one */
  giveUpReserve(): boolean {
    if (!this.#hasReserve) return false;
    try {
      this.#options.fs.remove(this.#reserve);
    } catch (error) {
      return this.#failed('giving up the reserve', error);
    }
    this.#hasReserve = false;
    this.#options.events.emit('reserveGivenUp', { bytes: this.#options.reserveBytes });
    return true;
  }

  #makeReserve(): void {
    const { fs, reserveBytes } = this.#options;
    if (reserveBytes === 0) return;
    try {
      const file = fs.open(this.#reserve, 'create');
      try {
        const zeros = Buffer.alloc(Math.min(chunkBytes, reserveBytes));
        for (let at = 0; at < reserveBytes; at += zeros.length)
          file.writeNow([zeros.subarray(0, reserveBytes - at)], at);
      } finally {
        file.release();
      }
      this.#hasReserve = true;
    } catch (error) {
      this.#failed('making the reserve', error);
      removeUnfinished(fs, this.#reserve);
    }
  }

  /** A reserve that cannot be made or given up is no reason to stop serving. */
  #failed(task: string, error: unknown): false {
    this.#options.events.emit('backgroundFailed', { task, error });
    return false;
  }
}

const isFull = (error: unknown): boolean =>
  error instanceof Error &&
  (['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '') || isFull(error.cause));
