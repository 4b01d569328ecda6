import type { InRecord, Lane } from './driver.ts';

/** What a handler may know of the record that it handles, beside the payload. */
export class RookeryContext {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly group: string;
  readonly connection: string;
  /** From 1 on; more than 1 when an earlier attempt failed. */
  readonly attempt: number;
  /** Aborts when the lane goes to another consumer, or when the service must stop. */
  readonly signal: AbortSignal;
  readonly #record: InRecord;

  constructor(
    lane: Lane,
    record: InRecord,
    of: { group: string; connection: string; attempt: number; signal: AbortSignal },
  ) {
    this.topic = lane.topic;
    this.partition = lane.partition;
    this.offset = record.offset;
    this.group = of.group;
    this.connection = of.connection;
    this.attempt = of.attempt;
    this.signal = of.signal;
    this.#record = record;
  }

  get timestamp(): Date {
    return new Date(this.#record.timestamp);
  }

  /** The key as text; undefined when the record has none. */
  get key(): string | undefined {
    return this.#record.key?.toString('utf8');
  }

  get keyBytes(): Buffer | null {
    return this.#record.key;
  }

  /** The value as it came. */
  get valueBytes(): Buffer | null {
    return this.#record.value;
  }

  /** Headers as text; of those with the same name the last one counts. */
  get headers(): Readonly<Record<string, string>> {
    return Object.fromEntries(
      this.#record.headers.map(({ key, value }) => [key, value?.toString('utf8') ?? '']),
    );
  }

  header(name: string): string | undefined {
    return this.#record.headers.findLast(({ key }) => key === name)?.value?.toString('utf8');
  }

  /** Where the record stands, `topic/partition@offset`. */
  get position(): string {
    return `${this.topic}/${this.partition}@${this.offset}`;
  }

  // Nest's own RPC contexts have these two, and interceptors written for them ask.

  getArgs(): [this] {
    return [this];
  }

  getArgByIndex(index: number): unknown {
    return this.getArgs()[index];
  }
}
