import { backoff, type RetryPolicy } from './backoff.ts';
import type { RookeryContext } from './context.ts';
import type { Driver, DriverConnection, TopicSpec } from './driver.ts';
import { milliseconds, type Duration } from './duration.ts';
import { RookeryError } from './errors.ts';
import type { Logger } from './logger.ts';
import { Publisher, type Position, type PublishOptions } from './publisher.ts';
import { Subscriber, type Handler } from './subscriber.ts';
import { topic as makeTopic, type Topic } from './topic.ts';

export interface EngineOptions {
  /** The service's name: its client id, and the group of handlers that name none. */
  readonly service: string;
  readonly connections: Readonly<Record<string, Driver>>;
  /** Whether topics that are used and not there are made (`create`, the default) or left to the broker. */
  readonly topics?: 'create' | 'ignore';
  readonly defaults?: { readonly from?: 'earliest' | 'latest'; readonly retry?: RetryPolicy };
  readonly publish?: {
    /** Until a message is given up; 30 s by default. */
    readonly timeout?: Duration;
    /** Messages that may be unsettled: 100,000 by default. */
    readonly unsettledMax?: number;
    /** Bytes that may be unsettled: 32 MiB by default. */
    readonly unsettledBytesMax?: number;
  };
  readonly shutdown?: {
    /** How long handlers may finish what they have in hand; 20 s by default. */
    readonly drain?: Duration;
  };
  /** A name of this very process that survives its restarts: it keeps its partitions over a quick one. */
  readonly instanceId?: string;
}

export interface SubscribeOptions {
  /** What the handler is called in logs; its function's name when left out. */
  readonly name?: string;
  /** The service's name when left out. */
  readonly group?: string;
  readonly connection?: string;
  readonly from?: 'earliest' | 'latest';
  readonly retry?: RetryPolicy;
}

interface Opened {
  readonly name: string;
  readonly driver: Driver;
  readonly connection: DriverConnection;
  readonly publisher: Publisher;
}

const defaultConnection = 'default';
const mebibyte = 1024 * 1024;

/**
 * Message delivery for one service, whatever the transport: publishers at once, subscriptions from `start` to
 * `drain`. Nothing here fails because a broker is not there yet.
 */
export class Engine {
  readonly #options: EngineOptions;
  readonly #logger: Logger;
  readonly #opened = new Map<string, Opened>();
  readonly #topics = new Map<string, Topic<never>>();
  readonly #ensured = new Map<string, Promise<void>>();
  readonly #handlers: Handler[] = [];
  readonly #stopping = new AbortController();
  readonly #closing = new AbortController();
  readonly #drainMs: number;
  #subscribers: Subscriber[] = [];

  /** @throws RookeryError RK2002 */
  constructor(options: EngineOptions, logger: Logger) {
    this.#options = options;
    this.#logger = logger;
    if (typeof options.service !== 'string' || options.service === '')
      throw new RookeryError('RK2002', 'service has no name');
    if (Object.keys(options.connections ?? {}).length === 0)
      throw new RookeryError(
        'RK2002',
        'connections is empty; name at least one, such as { default: sidecar() }',
      );
    this.#drainMs = milliseconds(options.shutdown?.drain ?? '20s', 'shutdown.drain');
    const timeoutMs = milliseconds(options.publish?.timeout ?? '30s', 'publish.timeout');
    for (const [name, driver] of Object.entries(options.connections)) this.#open(name, driver, timeoutMs);
  }

  /** A topic by its name, or the object itself. */
  topic<T>(of: Topic<T> | string): Topic<T> {
    if (typeof of !== 'string') return of;
    const known = this.#topics.get(of) ?? (makeTopic(of) as Topic<never>);
    this.#topics.set(of, known);
    return known as unknown as Topic<T>;
  }

  /** @throws RookeryError see Publisher.publish */
  publish<T>(
    to: Topic<T> | string,
    payload: T,
    options: PublishOptions & { readonly connection?: string } = {},
  ): Promise<Position> {
    try {
      return this.#of(options.connection).publisher.publish(this.topic(to), payload, options);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /**
   * Adds a handler; it gets records from `start` on.
   * @throws RookeryError RK2001, RK2002
   */
  subscribe<T>(
    to: Topic<T> | string,
    handle: (payload: T, context: RookeryContext) => unknown,
    options: SubscribeOptions = {},
  ): void {
    const { service, defaults } = this.#options;
    const topic = this.topic(to);
    const { driver, name: connection } = this.#of(options.connection);
    const name = options.name ?? handle.name;
    if (!driver.capabilities.consumerGroups)
      throw new RookeryError('RK2001', `${name} subscribes in a group, and driver '${driver.name}' has none`);
    this.#handlers.push({
      name,
      topic: topic as unknown as Topic<never>,
      group: options.group ?? service,
      connection,
      from: options.from ?? defaults?.from ?? 'earliest',
      retry: options.retry ?? defaults?.retry ?? backoff(),
      handle: handle as Handler['handle'],
    });
  }

  /** Starts all subscriptions; they wait for their brokers in the background. @throws RookeryError RK2002 */
  async start(): Promise<void> {
    const groups = Map.groupBy(this.#handlers, ({ connection, group }) => `${connection} ${group}`);
    const subscribers: [Subscriber, readonly Handler[]][] = [];
    for (const handlers of groups.values()) {
      const { group, connection } = handlers[0]!;
      const subscriber = new Subscriber({
        connection: this.#of(connection).connection,
        connectionName: connection,
        group,
        instanceId: this.#options.instanceId ?? null,
        handlers,
        logger: this.#logger,
        drainMs: this.#drainMs,
      });
      subscribers.push([subscriber, handlers]);
    }
    this.#subscribers = subscribers.map(([subscriber]) => subscriber);
    for (const [subscriber, handlers] of subscribers) void this.#startWhenReady(subscriber, handlers);
  }

  /** Ends all subscriptions: what is in hand is finished and acknowledged. Publishing goes on. */
  async drain(): Promise<void> {
    this.#stopping.abort(new RookeryError('RK1004', this.#options.service));
    await Promise.all(this.#subscribers.map((subscriber) => subscriber.drain()));
    await Promise.all(this.#subscribers.map((subscriber) => subscriber.close()));
    this.#subscribers = [];
  }

  /** Lets what was published leave, then closes the connections. */
  async close(): Promise<void> {
    await this.drain();
    this.#closing.abort(new RookeryError('RK1004', this.#options.service));
    await Promise.all([...this.#opened.values()].map(({ connection }) => connection.close(this.#drainMs)));
  }

  #open(name: string, driver: Driver, timeoutMs: number): void {
    const { service, publish } = this.#options;
    const connection = driver.connect({
      clientId: service,
      logger: this.#logger,
      publishTimeoutMs: timeoutMs,
    });
    connection.onStatus((status, error) => {
      const where = `'${name}' (${connection.describe()})`;
      if (status === 'ready') this.#logger.info(`connection ${where} is ready`, { connection: name });
      else if (status === 'reconnecting')
        this.#logger.warn(`connection ${where} is lost, trying again`, { connection: name, err: error });
    });
    const publisher = new Publisher(
      connection,
      {
        unsettledMax: publish?.unsettledMax ?? 100_000,
        unsettledBytesMax: publish?.unsettledBytesMax ?? 32 * mebibyte,
      },
      {
        prepare: (topic) => this.#ensure(name, topic, this.#closing.signal),
        signal: this.#closing.signal,
        timeoutMs,
      },
    );
    this.#opened.set(name, { name, driver, connection, publisher });
  }

  #of(name = defaultConnection): Opened {
    const opened = this.#opened.get(name);
    if (opened !== undefined) return opened;
    const known = [...this.#opened.keys()].map((each) => `'${each}'`).join(', ');
    throw new RookeryError('RK2002', `there is no connection '${name}', only ${known}`);
  }

  async #startWhenReady(subscriber: Subscriber, handlers: readonly Handler[]): Promise<void> {
    try {
      for (const { topic, connection } of handlers)
        await this.#ensure(connection, topic, this.#stopping.signal);
      await subscriber.start();
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      subscriber.failed(error as Error);
    }
  }

  /** Makes the topic where that is wanted; once, however many ask. */
  #ensure(connection: string, topic: Topic<never>, signal: AbortSignal): Promise<void> {
    const { topics = 'create' } = this.#options;
    const { driver, connection: to } = this.#of(connection);
    if (topics === 'ignore' || !driver.capabilities.topicAdmin) return Promise.resolve();
    const name = `${connection} ${topic.name}`;
    let ensured = this.#ensured.get(name);
    if (ensured === undefined) {
      const spec: TopicSpec = { name: topic.name, partitions: topic.partitions, configs: topic.configs };
      ensured = to.ensureTopics([spec], signal);
      this.#ensured.set(name, ensured);
      ensured.catch(() => this.#ensured.delete(name));
    }
    return ensured;
  }
}
