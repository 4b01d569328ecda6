import { randomBytes } from 'node:crypto';

export interface Timer {
  cancel(): void;
}

/**
 * Time, timers and chance, all through one object: what takes a clock can be run under a manual one
 * (`manual-clock.ts`) and replayed.
 */
export interface Clock {
  /** Wall clock, milliseconds since the epoch. */
  now(): number;
  /** Milliseconds that only ever grow. */
  monotonic(): number;
  after(ms: number, run: () => void): Timer;
  every(ms: number, run: () => void): Timer;
  /** Runs at the end of this turn of the event loop, after all that has arrived in it. */
  nextTurn(run: () => void): void;
  randomBytes(size: number): Buffer;
}

/** Node's longest timer; a longer one would fire at once. */
const longestMs = 0x7fffffff;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, Math.min(ms, longestMs));
    return { cancel: () => clearTimeout(timer) };
  },
  every(ms, run) {
    const timer = setInterval(run, Math.min(ms, longestMs));
    return { cancel: () => clearInterval(timer) };
  },
  nextTurn: (run) => void setImmediate(run),
  randomBytes,
};

/** A uuid in Kafka's form. Like Kafka's, it does not begin with a dash, which command lines would trip over. */
export function randomUuid(clock: Clock): string {
  for (;;) {
    const bytes = clock.randomBytes(16);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    const text = bytes.toString('base64url');
    if (!text.startsWith('-')) return text;
  }
}
