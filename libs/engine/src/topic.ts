import { milliseconds, type Duration } from './duration.ts';
import { RookeryError } from './errors.ts';

export type Schema<T> = new () => T;

export interface TopicOptions<T> {
  /** A class with class-validator decorators: payloads are checked against it when they leave and when they arrive. */
  readonly schema?: Schema<T>;
  /** What keeps payloads in order: those with the same key go to the same partition. */
  readonly key?: (payload: T) => string | Uint8Array | undefined;
  /** How many partitions to make it with; the broker's default when left out. */
  readonly partitions?: number;
  /** How long records are kept. */
  readonly retention?: Duration;
  /** Any other setting of the broker's for this topic, by its name there. */
  readonly configs?: Readonly<Record<string, string>>;
}

/** A topic as code knows it: the one place where its name, its shape and its key stand. */
export interface Topic<T = unknown> {
  readonly name: string;
  readonly schema: Schema<T> | null;
  readonly key: ((payload: T) => string | Uint8Array | undefined) | null;
  readonly partitions: number | null;
  readonly configs: Readonly<Record<string, string>>;
}

/** What a topic's payload is. */
export type PayloadOf<T> = T extends Topic<infer P> ? P : never;

const nameMax = 249;

/** @throws RookeryError RK2002 for a name or number that no broker would take */
export function topic<T = unknown>(name: string, options: TopicOptions<T> = {}): Topic<T> {
  if (!/^[a-zA-Z0-9._-]+$/.test(name) || name === '.' || name === '..' || name.length > nameMax) {
    throw new RookeryError(
      'RK2002',
      `topic '${name}': a name has 1 to ${nameMax} letters, digits, dots, dashes and underscores`,
    );
  }
  const { schema = null, key = null, partitions = null, retention, configs = {} } = options;
  if (partitions !== null && (!Number.isInteger(partitions) || partitions < 1))
    throw new RookeryError('RK2002', `topic '${name}': ${partitions} partitions`);
  const kept =
    retention === undefined ? {} : { 'retention.ms': String(milliseconds(retention, 'retention')) };
  return { name, schema, key, partitions, configs: { ...kept, ...configs } };
}
