import type { Clock, Timer } from '../clock.ts';

/** How late a deadline may be told of. */
const lookEveryMs = 100;

/** What `add` gives, for `met`. */
export interface Deadline {
  readonly at: number;
  readonly missed: () => void;
  /** Where it stands among the open ones. */
  place: number;
}

/**
 * Deadlines that are hardly ever missed, such as those of appends: an answer comes in a fraction of a millisecond, a
 * timer of its own for every request would take a noticeable part of that. One timer looks at all of them, and only
 * while there are any.
 *
 * They stand in an array, not in a Map or Set: when V8 gives one of those a new table, the old table keeps what was in
 * it and leads to the new one. Once an old table is in the old generation, each keeps the next and whole requests with
 * it, until everything is collected: a quarter of what a busy broker allocates.
 */
export class Deadlines {
  readonly #clock: Clock;
  readonly #open: Deadline[] = [];
  #timer: Timer | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `missed` once, some `ms` from now, unless it is met before. */
  add(ms: number, missed: () => void): Deadline {
    const deadline = { at: this.#clock.monotonic() + ms, missed, place: this.#open.length };
    this.#open.push(deadline);
    this.#timer ??= this.#clock.every(lookEveryMs, () => this.#look());
    return deadline;
  }

  /** Nobody is told of it any more. It may have been missed already. */
  met(deadline: Deadline): void {
    const { place } = deadline;
    if (this.#open[place] !== deadline) return;
    const last = this.#open.pop()!;
    if (last === deadline) return;
    this.#open[place] = last;
    last.place = place;
  }

  #look(): void {
    if (this.#open.length === 0) {
      this.#timer!.cancel();
      this.#timer = null;
      return;
    }
    const now = this.#clock.monotonic();
    for (const deadline of this.#open.filter(({ at }) => at <= now)) {
      this.met(deadline);
      deadline.missed();
    }
  }
}
