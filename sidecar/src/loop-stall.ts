import type { Clock, Timer } from './clock.ts';

const everyMs = 500;

/**
 * How long the event loop has been kept from turning: a timer that is late by that much. A histogram of every
 * turn would cost an idle broker more than everything else it does.
 */
export class LoopStall {
  #longestMs = 0;
  readonly #timer: Timer;

  constructor(clock: Clock) {
    let due = clock.monotonic() + everyMs;
    this.#timer = clock.every(everyMs, () => {
      const now = clock.monotonic();
      this.#longestMs = Math.max(this.#longestMs, now - due);
      due = now + everyMs;
    });
  }

  /** The longest stall since the last call, in seconds. */
  take(): number {
    const seconds = this.#longestMs / 1000;
    this.#longestMs = 0;
    return seconds;
  }

  stop(): void {
    this.#timer.cancel();
  }
}
