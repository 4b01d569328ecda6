import type { Clock } from '../clock.ts';

/**
 * Keeps the loop awake for whoever sends one request after another and waits for each answer. A process that has gone
 * to sleep is woken tens of microseconds late, which is a third of what such a request takes, and waking it costs
 * nearly as much processor time as looking again would have. Nobody gains where several connections are at work, for
 * then the core may be what the others wait for; nor where requests come seldom.
 */
export class BusyPoll {
  readonly #clock: Pick<Clock, 'monotonic' | 'nextTurn'>;
  readonly #ms: number;
  /** Who sent the last request, and when. */
  #sender: object | null = null;
  #sentAt = -Infinity;
  /** The last request came from the sender of the one before it, and soon after it. */
  #isWorthwhile = false;
  #isLooking = false;

  /** @param ms how soon a request must follow another, and for how long the loop stays awake; 0 never */
  constructor(ms: number, clock: Pick<Clock, 'monotonic' | 'nextTurn'>) {
    this.#ms = ms;
    this.#clock = clock;
  }

  /** A small request has come: it takes so little that sleep would be a good part of it. */
  came(sender: object): void {
    const now = this.#clock.monotonic();
    this.#isWorthwhile = sender === this.#sender && now - this.#sentAt < this.#ms;
    this.#sender = sender;
    this.#sentAt = now;
    if (!this.#isWorthwhile || this.#isLooking) return;
    this.#isLooking = true;
    this.#clock.nextTurn(this.#look);
  }

  /** A connection that is gone is not held on to. */
  forget(sender: object): void {
    if (this.#sender === sender) this.#sender = null;
  }

  /** What waits for the next turn of the loop keeps it from sleeping in this one. */
  readonly #look = (): void => {
    this.#isLooking = this.#isWorthwhile && this.#clock.monotonic() - this.#sentAt < this.#ms;
    if (this.#isLooking) this.#clock.nextTurn(this.#look);
  };
}
