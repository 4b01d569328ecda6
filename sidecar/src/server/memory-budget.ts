/**
 * How many bytes of requests may be held at once, over all connections. A large frame is admitted as a whole
 * before its bytes are read, so that admitted frames can always be completed: connections that each held half
 * a frame could otherwise wait for one another forever.
 */
export class MemoryBudget {
  readonly #max: number;
  #held = 0;
  #waiting: (() => void)[] = [];

  constructor(max: number) {
    this.#max = max;
  }

  get held(): number {
    return this.#held;
  }

  /** Takes `size` bytes, or leaves `retry` to be called when some come back. One frame always fits. */
  take(size: number, retry: () => void): boolean {
    if (this.#held > 0 && this.#held + size > this.#max) {
      this.#waiting.push(retry);
      return false;
    }
    this.#held += size;
    return true;
  }

  give(size: number): void {
    this.#held -= size;
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const retry of waiting) retry();
  }
}
