import type { InRecord, Lane } from './driver.ts';

/** What all records of one lane have in common for as long as it is assigned. */
export interface Delivery {
  readonly lane: Lane;
  readonly group: string;
  readonly connection: string;
  readonly signal: AbortSignal;
}

/** What a handler may know of the record that it handles, beside the payload. */
export class RookeryContext {
  readonly offset: number;
  /** From 1 on; more than 1 when an earlier attempt failed. */
  readonly attempt: number;
  readonly #delivery: Delivery;
  readonly #record: InRecord;

  constructor(delivery: Delivery, record: InRecord, attempt: number) {
    this.offset = record.offset;
    this.attempt = attempt;
    this.#delivery = delivery;
    this.#record = record;
  }

  get topic(): string {
    return this.#delivery.lane.topic;
  }

  get partition(): number {
    return this.#delivery.lane.partition;
  }

  get group(): string {
    return this.#delivery.group;
  }

  get connection(): string {
    return this.#delivery.connection;
  }

  /** Aborts when the lane goes to another consumer, or when the service must stop. */
  get signal(): AbortSignal {
    return this.#delivery.signal;
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
