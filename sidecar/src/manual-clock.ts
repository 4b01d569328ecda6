import type { Clock, Timer } from './clock.ts';

interface Pending extends Timer {
  due: number;
  readonly every: number | null;
  readonly run: () => void;
}

/** A clock that stands still until it is told to go on. Chance comes from a seed. */
export class ManualClock implements Clock {
  #now: number;
  readonly #start: number;
  #pending: Pending[] = [];
  #turns: (() => void)[] = [];
  #state: number;

  constructor(options: { now?: number; seed?: number } = {}) {
    this.#now = this.#start = options.now ?? 1_700_000_000_000;
    this.#state = options.seed ?? 1;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now - this.#start;
  }

  after(ms: number, run: () => void): Timer {
    return this.#add(ms, null, run);
  }

  every(ms: number, run: () => void): Timer {
    return this.#add(ms, ms, run);
  }

  nextTurn(run: () => void): void {
    this.#turns.push(run);
  }

  randomBytes(size: number): Buffer {
    return Buffer.from(Array.from({ length: size }, () => this.#byte()));
  }

  /** Runs what waits for the end of the turn, and what that leaves waiting, until nothing does. */
  turn(): void {
    while (this.#turns.length > 0) for (const run of this.#turns.splice(0)) run();
  }

  /** Lets time pass, firing each timer at its own moment and ending a turn after each. */
  advance(ms: number): void {
    const until = this.#now + ms;
    this.turn();
    for (;;) {
      const next = this.#pending.filter(({ due }) => due <= until).sort((a, b) => a.due - b.due)[0];
      if (next === undefined) break;
      this.#now = Math.max(this.#now, next.due);
      if (next.every === null) next.cancel();
      else next.due += next.every;
      next.run();
      this.turn();
    }
    this.#now = until;
  }

  #add(ms: number, every: number | null, run: () => void): Timer {
    const pending: Pending = {
      due: this.#now + ms,
      every,
      run,
      cancel: () => void (this.#pending = this.#pending.filter((other) => other !== pending)),
    };
    this.#pending.push(pending);
    return pending;
  }

  #byte(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state >>> 24;
  }
}
