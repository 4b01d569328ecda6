/** A turn's writes that took longer held up the loop: the kernel makes writers wait for the disk. */
const stallMs = 8;
/** How long after a stall writes go to the pool. */
const cautiousMs = 1_000;

/**
 * Where writes happen. A write into the page cache takes microseconds, so the loop does it itself, until the
 * disk falls behind: then the kernel blocks whoever writes, and that must be a pool thread.
 */
export class WritePace {
  readonly #unsyncedMax: number;
  #cautiousUntil = -Infinity;

  /** @param unsyncedMax bytes in flight to the disk beyond which the kernel is expected to block */
  constructor(unsyncedMax: number) {
    this.#unsyncedMax = unsyncedMax;
  }

  prefersPool(nowMs: number, unsyncedBytes: number): boolean {
    return nowMs < this.#cautiousUntil || unsyncedBytes > this.#unsyncedMax;
  }

  /** @param tookMs how long writing on the loop has taken */
  observe(nowMs: number, tookMs: number): void {
    if (tookMs > stallMs) this.#cautiousUntil = nowMs + cautiousMs;
  }
}
