import { RookeryError } from './errors.ts';

/** Milliseconds, or text such as `100ms`, `5s`, `1m`, `1h`, `7d`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`;

const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** @throws RookeryError RK2002 */
export function milliseconds(duration: Duration, name: string): number {
  if (typeof duration === 'number' && duration >= 0 && Number.isFinite(duration)) return duration;
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(String(duration));
  if (match === null)
    throw new RookeryError('RK2002', `${name}: '${duration}' is no duration such as 100ms, 5s or 7d`);
  return Number(match[1]) * units[match[2] as keyof typeof units];
}
