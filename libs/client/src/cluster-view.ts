import { errorName, findCoordinator, metadata, zeroUuid, type Response } from '@rookery/wire';
import { Backoff } from './backoff.ts';
import { ConnectionPool } from './connection-pool.ts';
import type { Address, Connection, ConnectionOptions } from './connection.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';
import { sleep, until } from './waiting.ts';

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

/** The longest that a timer can wait: beyond it, it would not wait at all. */
const timerMaxMs = 2 ** 31 - 1;
/** Milliseconds between two refreshes, at the least. */
const refreshGapMs = 50;
/** A topic that nobody used for this long is asked for no more: to ask for it could create it again. */
const topicIdleMs = 300_000;

/**
 * What the client knows of the brokers: who is there, who leads what, and one connection to each that is
 * needed. It waits for brokers that are not there yet, and goes back to the seeds when all have gone.
 */
export class ClusterView {
  readonly #options: ClusterViewOptions;
  readonly #pool: ConnectionPool;
  readonly #brokers = new Map<number, Address>();
  readonly #topics = new Map<string, TopicView>();
  readonly #names = new Map<string, string>();
  readonly #errors = new Map<string, BrokerError>();
  #wanted = new Set<string>();
  /** Those of the wanted that were used since the last sweep. */
  #used = new Set<string>();
  #sweptAt = performance.now();
  readonly #coordinators = new Map<string, Promise<number>>();
  readonly #statusListeners = new Set<(status: Status, error: unknown) => void>();
  readonly #closing = new AbortController();
  #status: Status = 'connecting';
  #refreshing: Promise<void> | null = null;
  #refreshedAt = -Infinity;
  #ages: NodeJS.Timeout | null = null;

  constructor(options: ClusterViewOptions) {
    this.#options = options;
    this.#pool = new ConnectionPool(options, {
      opened: () => this.#setStatus('ready', null),
      lost: (reason, left) => {
        this.#coordinators.clear();
        if (left === 0) this.#setStatus('reconnecting', reason);
        // Where the broker has gone, others may lead now; where it comes back, the view is ready for it.
        this.refreshInBackground();
      },
    });
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
    this.#used.add(topic);
    const found = this.#topics.get(topic)?.partitions[partition];
    return found === undefined || found.leader < 0 || !this.#brokers.has(found.leader) ? undefined : found;
  }

  /** Why the topic could not be had when it was last asked for. */
  errorOf(topic: string): BrokerError | undefined {
    return this.#errors.get(topic);
  }

  /**
   * The topic, as soon as a broker knows it.
   * @throws ClientError RK9208 when the brokers refuse it for good, RK9205 at close, or the signal's reason
   */
  async waitForTopic(name: string, signal?: AbortSignal): Promise<TopicView> {
    const backoff = new Backoff();
    for (;;) {
      const known = this.#topics.get(name);
      if (known !== undefined) return known;
      this.want([name]);
      await this.refresh(signal);
      const error = this.#errors.get(name);
      if (error !== undefined && !error.retriable) throw error;
      if (!this.#topics.has(name)) await this.#pause(backoff.next(), signal);
    }
  }

  /** Names topics that every refresh shall ask for, until nobody uses them any more. */
  want(topics: Iterable<string>): void {
    for (const topic of topics) {
      this.#wanted.add(topic);
      this.#used.add(topic);
    }
  }

  /** Asks the brokers anew, together with everyone who asks meanwhile. Waits for a broker to be there. */
  refresh(signal: AbortSignal = this.signal): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = null));
    return until(this.#refreshing, signal);
  }

  /** Renews the view soon; for callers that go on without it. */
  refreshInBackground(): void {
    if (!this.signal.aborted) this.refresh().catch(() => {});
  }

  /**
   * A connection to the broker: the common one, or one that only those of the same purpose use.
   * @throws ClientError RK9201, RK9205
   */
  async broker(nodeId: number, purpose = ''): Promise<Connection> {
    const address = this.#brokers.get(nodeId);
    if (address === undefined) throw new ClientError('RK9201', `broker ${nodeId} is not known`);
    return this.#pool.connect(address, purpose);
  }

  /** Closes the connections of a purpose. */
  release(purpose: string): void {
    this.#pool.release(purpose);
  }

  /** A connection to any broker that answers. Tries for as long as the signal allows. */
  async anyBroker(signal?: AbortSignal): Promise<Connection> {
    for (;;) {
      this.#check(signal);
      const known = [...this.#brokers.values(), ...this.#options.seeds];
      // One that is there already costs nothing, and cannot keep us waiting for a dead host.
      known.sort((a, b) => Number(this.#pool.isOpen(b)) - Number(this.#pool.isOpen(a)));
      let failure: unknown = null;
      for (const address of known) {
        if (this.#pool.pauseOf(address) > 0) continue;
        try {
          const opening = this.#pool.connect(address);
          return await (signal === undefined ? opening : until(opening, signal));
        } catch (error) {
          failure = error;
        }
        this.#check(signal);
      }
      if (failure !== null && this.#status === 'ready' && !known.some((each) => this.#pool.isOpen(each)))
        this.#setStatus('reconnecting', failure);
      const soonest = Math.min(...known.map((address) => this.#pool.pauseOf(address)));
      await this.#pause(Math.max(10, soonest), signal);
    }
  }

  /**
   * Tries every seed once, for callers that would rather be told than wait.
   * @throws ClientError RK9201
   */
  async reach(): Promise<void> {
    let failure: unknown;
    for (const address of this.#options.seeds) {
      try {
        await this.#pool.connect(address);
        return;
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** The broker that looks after the group. @throws ClientError */
  async coordinator(group: string, purpose: string, signal: AbortSignal = this.signal): Promise<Connection> {
    let found = this.#coordinators.get(group);
    if (found === undefined) {
      found = this.#findCoordinator(group);
      this.#coordinators.set(group, found);
      found.catch(() => this.#coordinators.delete(group));
    }
    try {
      return await until(
        found.then((nodeId) => this.broker(nodeId, purpose)),
        signal,
      );
    } catch (error) {
      if (!signal.aborted) this.forgetCoordinator(group);
      throw error;
    }
  }

  forgetCoordinator(group: string): void {
    this.#coordinators.delete(group);
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new ClientError('RK9205', this.#options.clientId));
    this.#setStatus('closed', null);
    clearTimeout(this.#ages ?? undefined);
    this.#pool.close();
  }

  async #findCoordinator(group: string): Promise<number> {
    const broker = await this.anyBroker();
    const response = await broker.request(findCoordinator, (version) =>
      version >= 4 ? { coordinatorKeys: [group], keyType: 0 } : { key: group, keyType: 0 },
    );
    const found = response.coordinators === undefined ? response : response.coordinators[0];
    const what = `FindCoordinator for group '${group}'`;
    if (found === undefined) throw new ClientError('RK9211', `${what} names none`);
    const { errorCode, nodeId, host, port } = found;
    if (errorCode !== 0) throw new BrokerError(errorName(errorCode), what);
    this.#brokers.set(nodeId, { host, port });
    return nodeId;
  }

  async #refresh(): Promise<void> {
    const since = performance.now() - this.#refreshedAt;
    if (since < refreshGapMs) await this.#pause(refreshGapMs - since);
    this.#sweep();
    const backoff = new Backoff();
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
        return this.#age();
      } catch (error) {
        this.#check();
        if (!isRetriableError(error)) throw error;
        await this.#pause(backoff.next());
      }
    }
  }

  /** Renews the view when it has grown old, needed or not: that keeps an idle connection from being closed, too. */
  #age(): void {
    clearTimeout(this.#ages ?? undefined);
    const ms = Math.min(this.#options.metadataMaxAgeMs, timerMaxMs);
    this.#ages = setTimeout(() => this.refreshInBackground(), ms).unref();
  }

  #sweep(): void {
    const now = performance.now();
    if (now - this.#sweptAt < topicIdleMs) return;
    this.#sweptAt = now;
    for (const name of this.#wanted) if (!this.#used.has(name)) this.#forget(name);
    this.#wanted = new Set([...this.#wanted].filter((name) => this.#used.has(name)));
    this.#used = new Set();
  }

  /** @throws ClientError RK9211, and nothing is taken */
  #take(response: Response<typeof metadata>): void {
    if (response.errorCode) throw new BrokerError(errorName(response.errorCode), 'Metadata');
    const heard = response.topics.map((topic) => ({ ...topic, views: viewsOf(topic) }));
    this.#brokers.clear();
    for (const { nodeId, host, port } of response.brokers) this.#brokers.set(nodeId, { host, port });
    for (const { name, topicId, errorCode, views } of heard) {
      if (name === null || !this.#wanted.has(name)) continue;
      const before = this.#topics.get(name);
      this.#forget(name);
      if (errorCode !== 0) {
        this.#errors.set(name, new BrokerError(errorName(errorCode), `topic '${name}'`));
        continue;
      }
      const id = topicId === undefined || topicId === zeroUuid ? null : topicId;
      const partitions =
        before?.id === id ? views.map((view, i) => newer(before.partitions[i], view)) : views;
      this.#topics.set(name, { name, id, partitions });
      if (id !== null) this.#names.set(id, name);
    }
  }

  #forget(name: string): void {
    const id = this.#topics.get(name)?.id ?? null;
    if (id !== null) this.#names.delete(id);
    this.#topics.delete(name);
    this.#errors.delete(name);
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
    if (status === 'reconnecting' && this.#status === 'connecting') return;
    this.#status = status;
    for (const listener of this.#statusListeners) listener(status, error);
  }
}

type TopicAnswer = Response<typeof metadata>['topics'][number];

/** Partitions come in any order, but each of 0…n−1 exactly once: numbers are not trusted before that is seen. */
function viewsOf({ name, partitions }: TopicAnswer): PartitionView[] {
  const views: PartitionView[] = [];
  const inOrder = partitions.toSorted((a, b) => a.partitionIndex - b.partitionIndex);
  for (const { partitionIndex, leaderId, leaderEpoch } of inOrder) {
    if (partitionIndex !== views.length)
      throw new ClientError('RK9211', `Metadata: topic '${name}' has no partition ${views.length}`);
    views.push({ leader: leaderId, leaderEpoch: leaderEpoch ?? -1 });
  }
  return views;
}

/** A broker that has not heard of the newest leader yet must not take us back to the one before. */
const newer = (known: PartitionView | undefined, heard: PartitionView): PartitionView =>
  known !== undefined && heard.leaderEpoch >= 0 && heard.leaderEpoch < known.leaderEpoch ? known : heard;
