import type { Clock, Timer } from '../clock.ts';

/** How late a deadline may be told of. */
const lookEveryMs = 100;

/**
 * Deadlines that are hardly ever missed, such as those of appends: an answer comes in a fraction of a millisecond, a
 * timer of its own for every request would take a noticeable part of that. One timer looks at all of them, and only
 * while there are any.
 */
export class Deadlines {
  readonly #clock: Clock;
  readonly #open = new Map<() => void, number>();
  #timer: Timer | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `missed` once, some `ms` from now, unless it is met before. */
  add(ms: number, missed: () => void): void {
    this.#open.set(missed, this.#clock.monotonic() + ms);
    this.#timer ??= this.#clock.every(lookEveryMs, () => this.#look());
  }

  met(missed: () => void): void {
    this.#open.delete(missed);
  }

  #look(): void {
    if (this.#open.size === 0) {
      this.#timer!.cancel();
      this.#timer = null;
      return;
    }
    const now = this.#clock.monotonic();
    for (const [missed, at] of this.#open) {
      if (at > now) continue;
      this.#open.delete(missed);
      missed();
    }
  }
}
