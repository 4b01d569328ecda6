import { jsonCodec, type Codec } from './codec.ts';
import type { DeliveryReceipt, DriverConnection, OutRecord, RecordHeader } from './driver.ts';
import { RookeryError } from './errors.ts';
import { orAborted } from './or-aborted.ts';
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

export interface PublisherOptions {
  readonly unsettledMax: number;
  readonly unsettledBytesMax: number;
  /** Milliseconds until a message is given up. */
  readonly timeoutMs: number;
  /** Makes sure that the topic is there, before its first message. */
  readonly prepare: (topic: Topic<never>) => Promise<void>;
}

const recordOverhead = 64;
const noHeaders: readonly RecordHeader[] = [];

/**
 * Messages on their way out over one connection. Encoding, checking and placing happen in the call; what is
 * published in one turn of the event loop travels together, in the order of the calls. What is unsettled is
 * bounded.
 */
export class Publisher {
  readonly #connection: DriverConnection;
  readonly #options: PublisherOptions;
  readonly #routes = new Map<Topic<never>, Route>();
  readonly #closing = new AbortController();
  #unsettled = 0;
  #unsettledBytes = 0;
  #isClosed = false;
  #idle: (() => void)[] = [];

  constructor(connection: DriverConnection, options: PublisherOptions) {
    this.#connection = connection;
    this.#options = options;
  }

  /**
   * @param payload null for a tombstone
   * @throws RookeryError RK1004 shutting down, RK3001 not confirmed in time, RK3002 too large, RK3003 refused,
   *   RK3005 too much unsettled, RK4002 not valid
   */
  publish<T>(topic: Topic<T>, payload: T | null, options: PublishOptions): Promise<Position> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new RookeryError('RK1004', topic.name, { topic: topic.name }));
      const { unsettledMax, unsettledBytesMax } = this.#options;
      if (this.#unsettled >= unsettledMax || this.#unsettledBytes >= unsettledBytesMax)
        return reject(
          new RookeryError('RK3005', `${this.#unsettled} messages, ${this.#unsettledBytes} bytes`, {
            topic: topic.name,
          }),
        );
      this.#unsettled++;
      const message = new Message(this, payload, options, resolve, reject);
      this.#route(topic as unknown as Topic<never>).add(message);
    });
  }

  /** Takes no more; resolves when what was taken is settled, and fails what is not after so long. */
  async close(deadlineMs: number): Promise<void> {
    this.#isClosed = true;
    if (this.#unsettled > 0) {
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([
        new Promise<void>((resolve) => this.#idle.push(resolve)),
        new Promise((resolve) => (timer = setTimeout(resolve, deadlineMs))),
      ]);
      clearTimeout(timer);
    }
    this.#closing.abort(new RookeryError('RK1004', 'the publisher'));
  }

  grow(bytes: number): void {
    this.#unsettledBytes += bytes;
  }

  settled(bytes: number): void {
    this.#unsettled--;
    this.#unsettledBytes -= bytes;
    if (this.#unsettled === 0) for (const told of this.#idle.splice(0)) told();
  }

  #route(topic: Topic<never>): Route {
    let route = this.#routes.get(topic);
    if (route === undefined) {
      const { timeoutMs, prepare } = this.#options;
      route = new Route(topic, this.#connection, {
        timeoutMs,
        prepare: () => prepare(topic),
        signal: this.#closing.signal,
      });
      this.#routes.set(topic, route);
    }
    return route;
  }
}

/** A message from the call until its promise settles: the receipt of its own record. */
class Message implements DeliveryReceipt {
  readonly options: PublishOptions;
  readonly deadlineFrom = performance.now();
  readonly #publisher: Publisher;
  readonly #resolve: (position: Position) => void;
  readonly #reject: (error: Error) => void;
  #payload: unknown;
  record: OutRecord | null = null;
  route: Route | null = null;
  partition = -1;
  #sizeInBytes = 0;

  constructor(
    publisher: Publisher,
    payload: unknown,
    options: PublishOptions,
    resolve: (position: Position) => void,
    reject: (error: Error) => void,
  ) {
    this.#publisher = publisher;
    this.#payload = payload;
    this.options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** False when it is not valid, which its promise has been told then. */
  encode(topic: Topic<never>, codec: Codec<never>): boolean {
    const payload = this.#payload as never;
    const { options } = this;
    try {
      this.record = {
        key: keyOf(topic, payload, options),
        value: payload === null ? null : codec.encode(payload),
        headers: headersOf(options),
        timestamp: options.timestamp ?? Date.now(),
      };
    } catch (error) {
      this.failed(error as RookeryError);
      return false;
    }
    this.#payload = null;
    this.#sizeInBytes = sizeOf(this.record);
    this.#publisher.grow(this.#sizeInBytes);
    return true;
  }

  delivered(offset: number, timestamp: number): void {
    this.#publisher.settled(this.#sizeInBytes);
    this.#resolve({ topic: this.route!.name, partition: this.partition, offset, timestamp });
  }

  failed(error: RookeryError): void {
    this.#publisher.settled(this.#sizeInBytes);
    this.route?.doubt(error);
    this.#reject(error);
  }
}

interface RouteOptions {
  readonly timeoutMs: number;
  readonly prepare: () => Promise<void>;
  readonly signal: AbortSignal;
}

/** The way of one topic's messages: they wait in the order of their calls until its codec and its lanes are known. */
class Route {
  readonly name: string;
  readonly #topic: Topic<never>;
  readonly #connection: DriverConnection;
  readonly #options: RouteOptions;
  #codec: Codec<never> | null = null;
  #lanes = 0;
  #waiting: Message[] = [];
  #isPreparing = false;

  constructor(topic: Topic<never>, connection: DriverConnection, options: RouteOptions) {
    this.name = topic.name;
    this.#topic = topic;
    this.#connection = connection;
    this.#options = options;
  }

  add(message: Message): void {
    if (this.#codec !== null && !message.encode(this.#topic, this.#codec)) return;
    if (this.#lanes > 0 && this.#waiting.length === 0) return this.#send(message);
    this.#waiting.push(message);
    if (!this.#isPreparing) void this.#prepare();
  }

  /** A topic that a broker does not know any more is looked up again. */
  doubt({ code }: RookeryError): void {
    if (code === 'RK2003' || code === 'RK3001') this.#lanes = 0;
  }

  #send(message: Message): void {
    const { options, record } = message;
    // A topic may get more lanes at any time; one that is just being looked up keeps those it had.
    this.#lanes = this.#connection.lanesNow(this.name) || this.#lanes;
    const partition = options.partition ?? this.#connection.place(this.name, record!.key, this.#lanes);
    if (!Number.isInteger(partition) || partition < 0 || partition >= this.#lanes)
      return message.failed(
        new RookeryError('RK2002', `partition ${partition} of ${this.name}, which has ${this.#lanes}`),
      );
    message.route = this;
    message.partition = partition;
    this.#connection.produce(this.name, partition, record!, message);
  }

  async #prepare(): Promise<void> {
    this.#isPreparing = true;
    while (this.#waiting.length > 0) {
      try {
        await this.#encodeWaiting();
        this.#lanes = await this.#findLanes(this.#waiting[0]?.deadlineFrom ?? performance.now());
        for (const message of this.#waiting.splice(0)) this.#send(message);
      } catch (error) {
        this.#failWaiting(error as Error);
      }
    }
    this.#isPreparing = false;
  }

  async #encodeWaiting(): Promise<void> {
    if (this.#codec !== null) return;
    const codec = (await jsonCodec(this.#topic)) as Codec<never>;
    // From here on `add` encodes.
    this.#codec = codec;
    this.#waiting = this.#waiting.filter((message) => message.encode(this.#topic, codec));
  }

  /** Waits for as long as the first message may wait. */
  async #findLanes(since: number): Promise<number> {
    const { timeoutMs, prepare, signal } = this.#options;
    const timeout = AbortSignal.timeout(Math.max(0, Math.ceil(since + timeoutMs - performance.now())));
    const either = AbortSignal.any([signal, timeout]);
    await orAborted(prepare(), either);
    return this.#connection.lanes(this.name, either);
  }

  /** Those whose time is up, or all where waiting longer would be in vain. */
  #failWaiting(error: Error): void {
    const { timeoutMs, signal } = this.#options;
    const now = performance.now();
    const isTimeout = error.name === 'TimeoutError' && !signal.aborted;
    const failure = isTimeout
      ? new RookeryError(
          'RK3001',
          `${this.name}: no broker in ${timeoutMs} ms`,
          { topic: this.name, outcomeUnknown: false },
          { cause: error },
        )
      : (error as RookeryError);
    const failed = isTimeout
      ? this.#waiting.filter(({ deadlineFrom }) => deadlineFrom + timeoutMs <= now)
      : this.#waiting;
    this.#waiting = this.#waiting.slice(failed.length);
    for (const message of failed) message.failed(failure);
  }
}

function keyOf(topic: Topic<never>, payload: never, { key }: PublishOptions): Uint8Array | null {
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
