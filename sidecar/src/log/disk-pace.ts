/**
 * What took longer has held up the loop: the kernel makes us wait for the disk. Not less, because on a busy host a
 * process loses its core for several milliseconds, and then a hop to the pool makes it lose more.
 */
const stallMs = 25;
/** How long after a stall the pool does the work. */
const cautiousMs = 1_000;

/**
 * Where the disk is worked with. What takes microseconds the loop does itself, for a hop to the pool and back takes
 * longer, until the disk falls behind: then the kernel blocks whoever asks, and that must be a pool thread.
 */
export class DiskPace {
  readonly #bytesMax: number;
  #cautiousUntil = -Infinity;

  /** @param bytesMax bytes on their way to the disk beyond which the kernel is expected to block */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  prefersPool(nowMs: number, bytes: number): boolean {
    return nowMs < this.#cautiousUntil || bytes > this.#bytesMax;
  }

  /** @param tookMs how long the loop was held up */
  observe(nowMs: number, tookMs: number): void {
    if (tookMs > stallMs) this.#cautiousUntil = nowMs + cautiousMs;
  }
}
