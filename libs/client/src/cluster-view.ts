import { errorName, findCoordinator, metadata, zeroUuid, type Response } from '@rookery/wire';
import { Backoff, sleep } from './backoff.ts';
import { Connection, format, type Address, type ConnectionOptions } from './connection.ts';
import { BrokerError, ClientError } from './errors.ts';

export interface PartitionView {
  /** −1 while there is none. */
  readonly leader: number;
  readonly leaderEpoch: number;
}

export interface TopicView {
  readonly name: string;
  /** Null from brokers that are older than ids. */
  readonly id: string | null;
  /** By partition number. */
  readonly partitions: readonly PartitionView[];
}

export type Status = 'connecting' | 'ready' | 'reconnecting' | 'closed';

export interface ClusterViewOptions extends ConnectionOptions {
  readonly seeds: readonly Address[];
  /** How old the view may become before it is renewed. */
  readonly metadataMaxAgeMs: number;
}

/** Milliseconds between two refreshes, at the least. */
const refreshGapMs = 50;

/**
 * What the client knows of the brokers: who is there, who leads what, and one connection to each that is
 * needed. It waits for brokers that are not there yet, and goes back to the seeds when all have gone.
 */
export class ClusterView {
  readonly #options: ClusterViewOptions;
  readonly #brokers = new Map<number, Address>();
  readonly #topics = new Map<string, TopicView>();
  readonly #names = new Map<string, string>();
  readonly #errors = new Map<string, BrokerError>();
  readonly #wanted = new Set<string>();
  readonly #connections = new Map<string, Promise<Connection>>();
  readonly #failures = new Map<string, { backoff: Backoff; notBefore: number }>();
  readonly #coordinators = new Map<string, Promise<number>>();
  readonly #statusListeners = new Set<(status: Status, error: unknown) => void>();
  readonly #closing = new AbortController();
  #status: Status = 'connecting';
  #refreshing: Promise<void> | null = null;
  #refreshedAt = -Infinity;

  constructor(options: ClusterViewOptions) {
    this.#options = options;
  }

  get status(): Status {
    return this.#status;
  }

  /** Aborts when the client closes. */
  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  onStatus(listener: (status: Status, error: unknown) => void): () => void {
    this.#statusListeners.add(listener);
    return () => this.#statusListeners.delete(listener);
  }

  /** The topic as it was last heard of. */
  topic(name: string): TopicView | undefined {
    return this.#topics.get(name);
  }

  nameOf(topicId: string): string | undefined {
    return this.#names.get(topicId);
  }

  leaderOf(topic: string, partition: number): PartitionView | undefined {
    const found = this.#topics.get(topic)?.partitions[partition];
    return found === undefined || found.leader < 0 || !this.#brokers.has(found.leader) ? undefined : found;
  }

  /** Why the topic could not be had when it was last asked for. */
  errorOf(topic: string): BrokerError | undefined {
    return this.#errors.get(topic);
  }

  get isStale(): boolean {
    return performance.now() - this.#refreshedAt > this.#options.metadataMaxAgeMs;
  }

  /**
   * The topic, as soon as a broker knows it.
   * @throws ClientError RK9208 when the brokers refuse it for good, RK9205 at close, or the signal's reason
   */
  async waitForTopic(name: string, signal?: AbortSignal): Promise<TopicView> {
    this.#wanted.add(name);
    const backoff = new Backoff();
    for (;;) {
      const known = this.#topics.get(name);
      if (known !== undefined) return known;
      await this.refresh(signal);
      const error = this.#errors.get(name);
      if (error !== undefined && !error.retriable) throw error;
      if (!this.#topics.has(name)) await this.#pause(backoff.next(), signal);
    }
  }

  /** Names topics that every refresh shall ask for. */
  want(topics: Iterable<string>): void {
    for (const topic of topics) this.#wanted.add(topic);
  }

  /** Asks the brokers anew, together with everyone who asks meanwhile. Waits for a broker to be there. */
  refresh(signal?: AbortSignal): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = null));
    return signal === undefined ? this.#refreshing : until(this.#refreshing, signal);
  }

  /** Renews the view soon; for callers that go on without it. */
  refreshInBackground(): void {
    this.refresh().catch(() => {});
  }

  /**
   * A connection to the broker: the common one, or one that only those of the same purpose use. Answers on one
   * connection come in order, so what may wait long (a fetch for records, a join for the other members) would
   * hold up everything behind it.
   *
   * @throws ClientError RK9201, RK9205
   */
  async broker(nodeId: number, purpose = ''): Promise<Connection> {
    const address = this.#brokers.get(nodeId);
    if (address === undefined) throw new ClientError('RK9201', `broker ${nodeId} is not known`);
    return this.#connect(address, purpose);
  }

  /** Closes the connections of a purpose. */
  async release(purpose: string): Promise<void> {
    const suffix = `#${purpose}`;
    const released = [...this.#connections].filter(([name]) => name.endsWith(suffix));
    for (const [name] of released) this.#connections.delete(name);
    await Promise.allSettled(released.map(async ([, connection]) => (await connection).close()));
  }

  /** A connection to any broker that answers. Tries for as long as the signal allows. */
  async anyBroker(signal?: AbortSignal): Promise<Connection> {
    for (;;) {
      const known = [...this.#brokers.values(), ...this.#options.seeds];
      for (const address of known) {
        try {
          return await this.#connect(address);
        } catch (error) {
          this.#setStatus(this.#status === 'connecting' ? 'connecting' : 'reconnecting', error);
        }
        this.#check(signal);
      }
      const soonest = Math.min(
        ...known.map((address) => this.#failures.get(`${format(address)}#`)?.notBefore ?? 0),
      );
      await this.#pause(Math.max(10, soonest - performance.now()), signal);
    }
  }

  /** The broker that looks after the group. @throws ClientError */
  async coordinator(group: string, purpose: string): Promise<Connection> {
    let found = this.#coordinators.get(group);
    if (found === undefined) {
      found = this.#findCoordinator(group);
      this.#coordinators.set(group, found);
      found.catch(() => this.#coordinators.delete(group));
    }
    try {
      return await this.broker(await found, purpose);
    } catch (error) {
      this.forgetCoordinator(group);
      throw error;
    }
  }

  forgetCoordinator(group: string): void {
    this.#coordinators.delete(group);
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new ClientError('RK9205', this.#options.clientId));
    this.#setStatus('closed', null);
    const connections = [...this.#connections.values()];
    this.#connections.clear();
    await Promise.allSettled(connections.map(async (connection) => (await connection).close()));
  }

  async #findCoordinator(group: string): Promise<number> {
    const broker = await this.anyBroker();
    const response = await broker.request(findCoordinator, (version) =>
      version >= 4 ? { coordinatorKeys: [group], keyType: 0 } : { key: group, keyType: 0 },
    );
    const { errorCode, nodeId, host, port } = response.coordinators?.[0] ?? response;
    if (errorCode !== 0) throw new BrokerError(errorName(errorCode), `FindCoordinator for group '${group}'`);
    this.#brokers.set(nodeId, { host, port });
    return nodeId;
  }

  #connect(address: Address, purpose = ''): Promise<Connection> {
    const name = `${format(address)}#${purpose}`;
    this.#check();
    const open = this.#connections.get(name);
    if (open !== undefined) return open;
    const failure = this.#failures.get(name);
    if (failure !== undefined && failure.notBefore > performance.now()) {
      return Promise.reject(new ClientError('RK9201', `${name} is given a pause after a failure`));
    }
    const opening = Connection.open(address, this.#options, this.#closing.signal);
    this.#connections.set(name, opening);
    opening.then(
      (connection) => {
        this.#failures.delete(name);
        if (this.#closing.signal.aborted) return connection.close();
        this.#setStatus('ready', null);
        void connection.closed.then((reason) => this.#lost(name, opening, reason));
      },
      () => {
        this.#connections.delete(name);
        const backoff = failure?.backoff ?? new Backoff();
        this.#failures.set(name, { backoff, notBefore: performance.now() + backoff.next() });
      },
    );
    return opening;
  }

  #lost(name: string, connection: Promise<Connection>, reason: ClientError): void {
    if (this.#connections.get(name) !== connection) return;
    this.#connections.delete(name);
    this.#coordinators.clear();
    if (this.#connections.size === 0 && !this.#closing.signal.aborted)
      this.#setStatus('reconnecting', reason);
  }

  async #refresh(): Promise<void> {
    const since = performance.now() - this.#refreshedAt;
    if (since < refreshGapMs) await this.#pause(refreshGapMs - since);
    for (;;) {
      const broker = await this.anyBroker();
      const topics = [...this.#wanted].map((name) => ({ name, topicId: zeroUuid }));
      try {
        this.#take(
          await broker.request(metadata, (version) => ({
            // Version 0 takes an empty list for all topics, and no version is that old any more.
            topics,
            allowAutoTopicCreation: true,
            includeTopicAuthorizedOperations: false,
            ...(version >= 8 && version <= 10 ? { includeClusterAuthorizedOperations: false } : {}),
          })),
        );
        this.#refreshedAt = performance.now();
        return;
      } catch (error) {
        this.#check();
        if (!(error instanceof ClientError && error.retriable)) throw error;
      }
    }
  }

  #take(response: Response<typeof metadata>): void {
    this.#brokers.clear();
    for (const { nodeId, host, port } of response.brokers) this.#brokers.set(nodeId, { host, port });
    for (const { name, topicId, errorCode, partitions } of response.topics) {
      if (name === null) continue;
      if (errorCode !== 0) {
        this.#errors.set(name, new BrokerError(errorName(errorCode), `topic '${name}'`));
        this.#forget(name);
        continue;
      }
      this.#errors.delete(name);
      this.#forget(name);
      const views: PartitionView[] = [];
      for (const { partitionIndex, leaderId, leaderEpoch } of partitions)
        views[partitionIndex] = { leader: leaderId, leaderEpoch: leaderEpoch ?? -1 };
      const id = topicId === undefined || topicId === zeroUuid ? null : topicId;
      this.#topics.set(name, { name, id, partitions: views });
      if (id !== null) this.#names.set(id, name);
    }
  }

  #forget(name: string): void {
    const id = this.#topics.get(name)?.id ?? null;
    if (id !== null) this.#names.delete(id);
    this.#topics.delete(name);
  }

  async #pause(ms: number, signal?: AbortSignal): Promise<void> {
    const both = signal === undefined ? this.signal : AbortSignal.any([this.signal, signal]);
    await sleep(ms, both);
    this.#check(signal);
  }

  #check(signal?: AbortSignal): void {
    this.#closing.signal.throwIfAborted();
    signal?.throwIfAborted();
  }

  #setStatus(status: Status, error: unknown): void {
    if (this.#status === status || this.#status === 'closed') return;
    this.#status = status;
    for (const listener of this.#statusListeners) listener(status, error);
  }
}

/** The promise, or the signal's reason if that is sooner. */
function until<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
