import type { Clock } from '../clock.ts';

/**
 * How many bytes all connections together may send from files in one turn of the event loop. They take turns,
 * a piece each, so that neither a fast reader nor many of them keep the loop from the small requests between.
 */
export class TurnBudget {
  readonly #clock: Clock;
  readonly #bytes: number;
  #left: number;
  #waiting: (() => number)[] = [];
  #isGranting = false;
  #isRenewing = false;

  constructor(clock: Clock, bytes: number) {
    this.#clock = clock;
    this.#bytes = bytes;
    this.#left = bytes;
  }

  /** Calls `send` when its turn has come, perhaps at once. It sends one piece and returns its size in bytes. */
  ask(send: () => number): void {
    this.#waiting.push(send);
    if (!this.#isGranting) this.#grant();
  }

  #grant(): void {
    this.#isGranting = true;
    for (let send; this.#left > 0 && (send = this.#waiting.shift()) !== undefined;) this.#left -= send();
    this.#isGranting = false;
    if (this.#left < this.#bytes && !this.#isRenewing) {
      this.#isRenewing = true;
      this.#clock.nextTurn(() => this.#renew());
    }
  }

  #renew(): void {
    this.#isRenewing = false;
    this.#left = this.#bytes;
    this.#grant();
  }
}
