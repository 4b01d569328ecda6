import { milliseconds, type Duration } from './duration.ts';
import { RookeryError } from './errors.ts';

export interface BackoffOptions {
  /** How often a record is handled at the most, the first time included. */
  readonly attempts?: number;
  readonly initial?: Duration;
  readonly factor?: number;
  readonly max?: Duration;
  /** `full`: anything between nothing and the delay, so that many consumers do not come back at once. */
  readonly jitter?: 'full' | 'none';
}

/** How often, and after which pauses, a record is handled again. */
export interface RetryPolicy {
  readonly attempts: number;
  /** @param attempt the one that failed, from 1 on */
  delayMs(attempt: number): number;
}

/** Pauses that grow by a factor up to a limit. @throws RookeryError RK2002 */
export function backoff(options: BackoffOptions = {}): RetryPolicy {
  const { attempts = 3, initial = '100ms', factor = 4, max = '5s', jitter = 'full' } = options;
  if (!Number.isInteger(attempts) || attempts < 1)
    throw new RookeryError('RK2002', `backoff attempts: ${attempts} is no whole number from 1 on`);
  if (!(factor >= 1)) throw new RookeryError('RK2002', `backoff factor: ${factor} is less than 1`);
  const initialMs = milliseconds(initial, 'backoff initial');
  const maxMs = milliseconds(max, 'backoff max');
  return {
    attempts,
    delayMs(attempt) {
      const ms = Math.min(initialMs * factor ** (attempt - 1), maxMs);
      return jitter === 'full' ? Math.random() * ms : ms;
    },
  };
}
