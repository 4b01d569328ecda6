import type { Clock, Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { PartitionLog } from './partition-log.ts';

export interface ScrubberOptions {
  readonly clock: Clock;
  readonly events: EventBus;
  readonly logs: () => Iterable<PartitionLog>;
  /** How much is read in a second; 0 reads nothing. */
  readonly bytesPerSecond: number;
}

/** The pause after every log was read once. */
const restMs = 60_000;

/**
 * Reads closed segments again, slowly, for ever: a disk that changes bytes is found out before somebody needs
 * them. A piece is read on the pool, and the next one only when its share of time has passed.
 */
export class Scrubber {
  readonly #options: ScrubberOptions;
  #timer: Timer | null = null;
  #isStopped = false;

  constructor(options: ScrubberOptions) {
    this.#options = options;
    if (options.bytesPerSecond > 0) this.#later();
  }

  /** One pass over every log. */
  async scrub(): Promise<void> {
    const { logs, events } = this.#options;
    for (const log of [...logs()]) {
      try {
        await log.scrub((bytes) => this.#pause(bytes));
      } catch (error) {
        events.emit('backgroundFailed', { task: `reading ${log.name} again`, error });
      }
      if (this.#isStopped) return;
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #later(): void {
    this.#timer = this.#options.clock.after(restMs, () => {
      void this.scrub().then(() => {
        if (!this.#isStopped) this.#later();
      });
    });
  }

  async #pause(bytes: number): Promise<boolean> {
    const { clock, bytesPerSecond } = this.#options;
    if (bytesPerSecond > 0)
      await new Promise<void>((resolve) => clock.after((bytes / bytesPerSecond) * 1_000, resolve));
    return !this.#isStopped;
  }
}
