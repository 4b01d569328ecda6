import { backoff, type RetryPolicy } from './backoff.ts';
import type { RookeryContext } from './context.ts';
import type { Driver, DriverConnection, TopicSpec } from './driver.ts';
import { milliseconds, type Duration } from './duration.ts';
import { orAborted } from './or-aborted.ts';
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

export type PublishTo = PublishOptions & { readonly connection?: string };

interface Opened {
  readonly name: string;
  readonly driver: Driver;
  readonly connection: DriverConnection;
  readonly publisher: Publisher;
}

const defaultConnection = 'default';
const mebibyte = 1024 * 1024;
/** After so long without a broker it is said that one is awaited. */
const patienceMs = 2_000;

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
  readonly #subscribers: Subscriber[] = [];
  /** How many of the handlers have been started. */
  #started = 0;
  #hasStarted = false;
  #patience: NodeJS.Timeout | null = null;
  #draining: Promise<void> | null = null;

  /** @throws RookeryError RK2001, RK2002 */
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
    if (options.defaults?.retry !== undefined) checkRetry(options.defaults.retry, 'defaults.retry');
    for (const [name, driver] of Object.entries(options.connections)) this.#open(name, driver, timeoutMs);
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
  }

  /** A topic by its name, or the object itself. */
  topic<T>(of: Topic<T> | string): Topic<T> {
    if (typeof of !== 'string') return of;
    const known = this.#topics.get(of) ?? (makeTopic(of) as Topic<never>);
    this.#topics.set(of, known);
    return known as unknown as Topic<T>;
  }

  /** @throws RookeryError see Publisher.publish */
  publish<T>(to: Topic<T> | string, payload: T | null, options: PublishTo = {}): Promise<Position> {
    try {
      return this.#of(options.connection).publisher.publish(this.topic(to), payload, options);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /**
   * Adds a handler; it gets records from the next `start` on.
   * @throws RookeryError RK2001, RK2002, naming the handler
   */
  subscribe<T>(
    to: Topic<T> | string,
    handle: (payload: T, context: RookeryContext) => unknown,
    options: SubscribeOptions = {},
  ): void {
    const name = options.name ?? handle.name;
    const handler = withName(name, () => this.#handler(this.topic(to), name, options));
    this.#handlers.push({ ...handler, handle: handle as Handler['handle'] });
  }

  /**
   * Starts the subscriptions that have been added since the last start; they wait for their brokers in the
   * background.
   * @throws RookeryError RK2002
   */
  async start(): Promise<void> {
    this.#hasStarted = true;
    const added = this.#handlers.slice(this.#started);
    this.#started = this.#handlers.length;
    const groups = Map.groupBy(added, ({ connection, group }) => `${connection} ${group}`);
    const subscribers = [...groups.values()].map((handlers) => this.#subscriber(handlers));
    await Promise.all(subscribers.map((subscriber) => subscriber.prepare()));
    if (this.#stopping.signal.aborted) return;
    this.#subscribers.push(...subscribers);
    for (const subscriber of subscribers) void this.#startWhenReady(subscriber);
    if (subscribers.length > 0) this.#sayWhoIsAwaited();
  }

  /** Ends all subscriptions: what is in hand is finished and acknowledged. Publishing goes on. */
  drain(): Promise<void> {
    this.#draining ??= this.#drain();
    return this.#draining;
  }

  /** Lets what was published leave, then closes the connections. */
  async close(): Promise<void> {
    await this.drain();
    const deadline = performance.now() + this.#drainMs;
    const opened = [...this.#opened.values()];
    await Promise.all(opened.map(({ publisher }) => publisher.close(this.#drainMs)));
    this.#closing.abort(new RookeryError('RK1004', this.#options.service));
    const restMs = Math.max(0, deadline - performance.now());
    await Promise.all(opened.map(({ connection }) => connection.close(restMs)));
  }

  async #drain(): Promise<void> {
    this.#stopping.abort(new RookeryError('RK1004', this.#options.service));
    clearTimeout(this.#patience ?? undefined);
    await Promise.all(this.#subscribers.map((subscriber) => subscriber.drain()));
    await Promise.all(this.#subscribers.map((subscriber) => subscriber.close()));
  }

  #open(name: string, driver: Driver, timeoutMs: number): void {
    const { service, publish, instanceId } = this.#options;
    if (instanceId !== undefined && !driver.capabilities.staticMembership)
      throw new RookeryError('RK2001', `instanceId, and driver '${driver.name}' has no static membership`);
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
    const publisher = new Publisher(connection, {
      unsettledMax: publish?.unsettledMax ?? 100_000,
      unsettledBytesMax: publish?.unsettledBytesMax ?? 32 * mebibyte,
      timeoutMs,
      prepare: (topic) => this.#ensure(name, topic),
    });
    this.#opened.set(name, { name, driver, connection, publisher });
  }

  #of(name = defaultConnection): Opened {
    const opened = this.#opened.get(name);
    if (opened !== undefined) return opened;
    const known = [...this.#opened.keys()].map((each) => `'${each}'`).join(', ');
    throw new RookeryError('RK2002', `connection: there is no '${name}', only ${known}`);
  }

  /** Checks what a handler asks for. */
  #handler<T>(topic: Topic<T>, name: string, options: SubscribeOptions): Omit<Handler, 'handle'> {
    const { service, defaults } = this.#options;
    const { driver, name: connection } = this.#of(options.connection);
    if (!driver.capabilities.consumerGroups)
      throw new RookeryError('RK2001', `group: driver '${driver.name}' has no consumer groups`);
    const { group = service, from = defaults?.from ?? 'earliest' } = options;
    if (typeof group !== 'string' || group === '') throw new RookeryError('RK2002', 'group is empty');
    if (from !== 'earliest' && from !== 'latest')
      throw new RookeryError('RK2002', `from: '${String(from)}' is neither 'earliest' nor 'latest'`);
    if (options.retry !== undefined) checkRetry(options.retry, 'retry');
    const others = this.#handlers.filter((other) => other.group === group && other.connection === connection);
    for (const other of others) {
      if (other.topic.name === topic.name)
        throw new RookeryError(
          'RK2002',
          `group: ${other.name} handles '${topic.name}' in group '${group}' already; give one of them a group of its own`,
        );
      if (other.from !== from)
        throw new RookeryError(
          'RK2002',
          `from: ${other.name} of the same group '${group}' begins at the other end`,
        );
    }
    return {
      name,
      topic: topic as unknown as Topic<never>,
      group,
      connection,
      from,
      retry: options.retry ?? defaults?.retry ?? backoff(),
    };
  }

  #subscriber(handlers: readonly Handler[]): Subscriber {
    const { group, connection } = handlers[0]!;
    return new Subscriber({
      connection: this.#of(connection).connection,
      connectionName: connection,
      group,
      instanceId: this.#options.instanceId ?? null,
      handlers,
      logger: this.#logger,
      drainMs: this.#drainMs,
    });
  }

  async #startWhenReady(subscriber: Subscriber): Promise<void> {
    const { signal } = this.#stopping;
    try {
      for (const { topic, connection } of subscriber.handlers)
        await orAborted(this.#ensure(connection, topic), signal);
      subscriber.start();
    } catch (error) {
      if (!signal.aborted) subscriber.failed(error as Error);
    }
  }

  /** Makes the topic where that is wanted; once, however many ask. */
  #ensure(connection: string, topic: Topic<never>): Promise<void> {
    const { topics = 'create' } = this.#options;
    const { driver, connection: to } = this.#of(connection);
    if (topics === 'ignore' || !driver.capabilities.topicAdmin) return Promise.resolve();
    const name = `${connection} ${topic.name}`;
    let ensured = this.#ensured.get(name);
    if (ensured === undefined) {
      const spec: TopicSpec = { name: topic.name, partitions: topic.partitions, configs: topic.configs };
      ensured = to.ensureTopics([spec], this.#closing.signal);
      this.#ensured.set(name, ensured);
      ensured.catch(() => this.#ensured.delete(name));
    }
    return ensured;
  }

  /** Who boots before its broker should see in its log what it waits for. */
  #sayWhoIsAwaited(): void {
    this.#patience ??= setTimeout(() => {
      for (const { name, connection } of this.#opened.values())
        if (connection.status === 'connecting')
          this.#logger.warn(
            `connection '${name}' (${connection.describe()}) is not there yet, waiting for it`,
            {
              connection: name,
            },
          );
    }, patienceMs).unref();
  }
}

/** Runs a check; what it throws says whose it is. */
function withName<T>(name: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof RookeryError)) throw error;
    throw new RookeryError(error.code, `${name}: ${error.detail}`, error.context, { cause: error });
  }
}

function checkRetry({ attempts, delayMs }: RetryPolicy, option: string): void {
  if (!Number.isInteger(attempts) || attempts < 1 || typeof delayMs !== 'function')
    throw new RookeryError('RK2002', `${option}: not what backoff() makes`);
}
