import { jsonCodec, type Codec } from './codec.ts';
import type { DriverConnection, OutRecord, RecordHeader } from './driver.ts';
import { RookeryError } from './errors.ts';
import type { Topic } from './topic.ts';

export interface PublishOptions {
  /** Instead of the topic's own key. */
  readonly key?: string | Uint8Array;
  readonly headers?: Readonly<Record<string, string | Uint8Array>>;
  /** Milliseconds since the epoch; now, when left out. */
  readonly timestamp?: number;
  /** Instead of the partition that the key would choose. */
  readonly partition?: number;
}

/** Where a message stands in the log. */
export interface Position {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
}

export interface PublisherLimits {
  readonly unsettledMax: number;
  readonly unsettledBytesMax: number;
}

interface Prepared {
  readonly codec: Codec<never>;
  readonly lanes: number;
}

const recordOverhead = 64;
const noHeaders: readonly RecordHeader[] = [];

/**
 * Messages on their way out over one connection. Encoding, checking and placing happen in the call; what is
 * published in one turn of the event loop travels together. What is unsettled is bounded.
 */
export class Publisher {
  readonly #connection: DriverConnection;
  readonly #limits: PublisherLimits;
  readonly #prepare: (topic: Topic<never>) => Promise<void>;
  readonly #signal: AbortSignal;
  readonly #timeoutMs: number;
  readonly #prepared = new Map<Topic<never>, Prepared>();
  readonly #preparing = new Map<Topic<never>, Promise<Prepared>>();
  #unsettled = 0;
  #unsettledBytes = 0;

  /** @param prepare makes sure that the topic is there, before its first message */
  constructor(
    connection: DriverConnection,
    limits: PublisherLimits,
    options: { prepare: (topic: Topic<never>) => Promise<void>; signal: AbortSignal; timeoutMs: number },
  ) {
    this.#connection = connection;
    this.#limits = limits;
    this.#prepare = options.prepare;
    this.#signal = options.signal;
    this.#timeoutMs = options.timeoutMs;
  }

  /**
   * @param payload null for a tombstone
   * @throws RookeryError RK1004 shutting down, RK3001 not confirmed in time, RK3002 too large, RK3003 refused,
   *   RK3005 too much unsettled, RK4002 not valid
   */
  publish<T>(topic: Topic<T>, payload: T | null, options: PublishOptions): Promise<Position> {
    return new Promise((resolve, reject) => {
      if (this.#signal.aborted) return reject(this.#signal.reason as Error);
      if (
        this.#unsettled >= this.#limits.unsettledMax ||
        this.#unsettledBytes >= this.#limits.unsettledBytesMax
      )
        return reject(
          new RookeryError('RK3005', `${this.#unsettled} messages, ${this.#unsettledBytes} bytes`, {
            topic: topic.name,
          }),
        );
      const prepared = this.#prepared.get(topic as unknown as Topic<never>);
      if (prepared !== undefined && prepared.lanes > 0)
        return this.#send(topic, payload, options, prepared, resolve, reject);
      // Waiting for the topic counts as unsettled too: nobody may pile up messages while the broker is away.
      this.#unsettled++;
      this.#whenPrepared(topic as unknown as Topic<never>)
        .finally(() => this.#unsettled--)
        .then((ready) => this.#send(topic, payload, options, ready, resolve, reject))
        .catch(reject);
    });
  }

  /** Checks the payload and hands it over. */
  #send<T>(
    topic: Topic<T>,
    payload: T | null,
    options: PublishOptions,
    { codec, lanes }: Prepared,
    resolve: (position: Position) => void,
    reject: (error: Error) => void,
  ): void {
    try {
      const value = payload === null ? null : (codec as unknown as Codec<T>).encode(payload);
      const key = keyOf(topic, payload, options);
      const partition = options.partition ?? this.#connection.place(topic.name, key, lanes);
      if (!Number.isInteger(partition) || partition < 0 || partition >= lanes)
        throw new RookeryError('RK2002', `partition ${partition} of ${topic.name}, which has ${lanes}`);
      const record = { key, value, headers: headersOf(options), timestamp: options.timestamp ?? Date.now() };
      const size = sizeOf(record);
      this.#unsettled++;
      this.#unsettledBytes += size;
      const settle = (): void => {
        this.#unsettled--;
        this.#unsettledBytes -= size;
      };
      this.#connection.produce(topic.name, partition, record, {
        delivered: (offset, timestamp) => {
          settle();
          resolve({ topic: topic.name, partition, offset, timestamp });
        },
        failed: (error) => {
          settle();
          reject(error);
        },
      });
    } catch (error) {
      reject(error as Error);
    }
  }

  #whenPrepared(topic: Topic<never>): Promise<Prepared> {
    let preparing = this.#preparing.get(topic);
    if (preparing === undefined) {
      preparing = this.#findOut(topic).finally(() => this.#preparing.delete(topic));
      this.#preparing.set(topic, preparing);
    }
    return preparing;
  }

  async #findOut(topic: Topic<never>): Promise<Prepared> {
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    try {
      const codec = await jsonCodec(topic);
      await this.#prepare(topic);
      const lanes = await this.#connection.lanes(topic.name, AbortSignal.any([this.#signal, timeout]));
      const prepared = { codec, lanes };
      this.#prepared.set(topic, prepared);
      return prepared;
    } catch (error) {
      if (!timeout.aborted || this.#signal.aborted) throw error;
      throw new RookeryError(
        'RK3001',
        `${topic.name}: no broker in ${this.#timeoutMs} ms`,
        { topic: topic.name, outcomeUnknown: false },
        { cause: error },
      );
    }
  }
}

function keyOf<T>(topic: Topic<T>, payload: T | null, { key }: PublishOptions): Uint8Array | null {
  const chosen = key ?? (payload === null ? undefined : topic.key?.(payload));
  if (chosen === undefined) return null;
  return typeof chosen === 'string' ? Buffer.from(chosen) : chosen;
}

function headersOf({ headers }: PublishOptions): readonly RecordHeader[] {
  if (headers === undefined) return noHeaders;
  return Object.entries(headers).map(([key, value]) => ({
    key,
    value: typeof value === 'string' ? Buffer.from(value) : value,
  }));
}

function sizeOf({ key, value, headers }: OutRecord): number {
  let size = recordOverhead + (key?.length ?? 0) + (value?.length ?? 0);
  for (const header of headers) size += header.key.length + (header.value?.length ?? 0);
  return size;
}
