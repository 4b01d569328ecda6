import type { LogRecord } from '@rookery/wire';
import type { TopicPartitions } from './assignor.ts';
import type { ClusterView } from './cluster-view.ts';
import { ClientError } from './errors.ts';
import { Fetcher, type FetchedPartition } from './fetcher.ts';
import { Membership, type Generation } from './membership.ts';
import { OffsetCommits } from './offset-commits.ts';

export interface ConsumerOptions {
  readonly group: string;
  readonly topics: readonly string[];
  readonly from?: 'earliest' | 'latest' | 'none';
  readonly instanceId?: string;
  readonly sessionTimeoutMs?: number;
  readonly rebalanceTimeoutMs?: number;
  readonly heartbeatMs?: number;
  readonly maxWaitMs?: number;
  readonly partitionBytesMax?: number;
  readonly fetchBytesMax?: number;
  readonly prefetchBytes?: number;
}

export interface ConsumerEvents {
  /** Nothing comes of a partition before it is asked for by `request`. */
  assigned(partitions: readonly AssignedPartition[]): void | Promise<void>;
  /** Awaited before the partitions go to others: finish, commit. No records come any more. */
  revoking(partitions: readonly AssignedPartition[]): Promise<void>;
  /** The partitions are others' already. */
  lost(partitions: readonly AssignedPartition[]): void;
  /** In the order of the log; never more than were requested. */
  records(partition: AssignedPartition, records: LogRecord[]): void;
  /** Something is tried again. */
  troubled(error: Error): void;
  /** The consumer has ended for good. */
  failed(error: Error): void;
}

/** A partition for as long as this member has it: after a rebalance it is another object. */
export class AssignedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly generation: number;
  /** The epoch of the records that came last. */
  leaderEpoch = -1;
  reading: FetchedPartition | null = null;

  constructor(topic: string, partition: number, generation: number) {
    this.topic = topic;
    this.partition = partition;
    this.generation = generation;
  }
}

let consumers = 0;

/** A member of a consumer group that reads its partitions on demand and commits what its owner has done. */
export class Consumer {
  readonly #view: ClusterView;
  readonly #events: ConsumerEvents;
  readonly #membership: Membership;
  readonly #commits: OffsetCommits;
  readonly #fetcher: Fetcher;
  #assigned = new Map<string, AssignedPartition>();
  readonly #purposes: readonly [group: string, fetch: string];
  #closing: Promise<void> | null = null;

  constructor(view: ClusterView, options: ConsumerOptions, events: ConsumerEvents) {
    const { group, topics, instanceId = null } = options;
    if (group === '') throw new ClientError('RK9207', 'group is empty');
    if (topics.length === 0) throw new ClientError('RK9207', 'topics is empty');
    this.#view = view;
    this.#events = events;
    const number = ++consumers;
    this.#purposes = [`group-${number}`, `fetch-${number}`];
    const [groupPurpose, fetchPurpose] = this.#purposes;
    view.want(topics);
    this.#membership = new Membership(
      view,
      {
        purpose: groupPurpose,
        group,
        topics: [...new Set(topics)],
        instanceId,
        sessionTimeoutMs: options.sessionTimeoutMs ?? 45_000,
        rebalanceTimeoutMs: options.rebalanceTimeoutMs ?? 60_000,
        heartbeatMs: options.heartbeatMs ?? 3_000,
      },
      {
        assigned: (generation, partitions, signal) => this.#assign(generation, partitions, signal),
        revoking: () => this.#revoke(),
        lost: () => this.#lose(),
        troubled: (error) => events.troubled(error),
        failed: (error) => {
          this.#lose();
          events.failed(error);
        },
      },
    );
    this.#commits = new OffsetCommits(
      view,
      { group, purpose: groupPurpose },
      () => this.#membership.generation,
      () => this.#membership.suspect(),
    );
    this.#fetcher = new Fetcher(
      view,
      {
        purpose: fetchPurpose,
        from: options.from ?? 'earliest',
        maxWaitMs: options.maxWaitMs ?? 500,
        partitionBytesMax: options.partitionBytesMax ?? 1024 * 1024,
        fetchBytesMax: options.fetchBytesMax ?? 16 * 1024 * 1024,
        prefetchBytes: options.prefetchBytes ?? 1024 * 1024,
      },
      {
        records: ({ topic, partition }, records, leaderEpoch) => {
          const assigned = this.#assigned.get(nameOf(topic, partition));
          if (assigned === undefined) return;
          assigned.leaderEpoch = leaderEpoch;
          events.records(assigned, records);
        },
        troubled: (_, error) => events.troubled(error),
      },
    );
  }

  /** Joins the group, as soon as there is a broker. */
  start(): void {
    this.#membership.start();
  }

  /**
   * Asks for so many more records of a partition; a negative number takes back.
   * @throws ClientError RK9207
   */
  request(partition: AssignedPartition, count: number): void {
    if (!Number.isSafeInteger(count)) throw new ClientError('RK9207', `request: ${count} records`);
    if (partition.reading !== null) this.#fetcher.request(partition.reading, count);
  }

  /** Takes back what was requested and has not come: no record comes before the next request. */
  pause(partition: AssignedPartition): void {
    if (partition.reading !== null) this.#fetcher.pause(partition.reading);
  }

  /**
   * @param offset −1: wherever `from` says
   * @throws ClientError RK9207
   */
  seek(partition: AssignedPartition, offset: number): void {
    // One that cannot be sent would stop the fetches of every other partition too.
    if (!Number.isSafeInteger(offset) || offset < -1)
      throw new ClientError('RK9207', `seek: offset ${offset}`);
    if (partition.reading !== null) this.#fetcher.seek(partition.reading, offset);
  }

  /**
   * Keeps how far the partition is done.
   * @param offset of the next record to read
   * @throws ClientError RK9207, RK9210 when the partition has gone to another member
   */
  commit(partition: AssignedPartition, offset: number): Promise<void> {
    const { topic, leaderEpoch } = partition;
    if (!Number.isSafeInteger(offset) || offset < 0)
      return Promise.reject(new ClientError('RK9207', `commit: offset ${offset}`));
    if (this.#assigned.get(nameOf(topic, partition.partition)) !== partition)
      return Promise.reject(new ClientError('RK9210', nameOf(topic, partition.partition)));
    return this.#commits.commit(topic, partition.partition, { offset, leaderEpoch });
  }

  /** Fetches no more; what is done may still be committed. */
  stop(): void {
    this.#fetcher.stop();
  }

  get isClosed(): boolean {
    return this.#closing !== null;
  }

  /** Hands its partitions over and leaves the group. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#fetcher.stop();
    await this.#membership.stop();
    for (const purpose of this.#purposes) this.#view.release(purpose);
  }

  async #assign(
    generation: Generation,
    assignment: readonly TopicPartitions[],
    signal: AbortSignal,
  ): Promise<void> {
    const positions = await this.#commits.fetch(assignment, signal);
    if (signal.aborted) return;
    this.#assigned = new Map();
    for (const { topic, partitions } of assignment) {
      for (const partition of partitions) {
        const { offset, leaderEpoch } = positions.get(topic)!.get(partition)!;
        const assigned = new AssignedPartition(topic, partition, generation.id);
        assigned.leaderEpoch = leaderEpoch;
        assigned.reading = this.#fetcher.add(topic, partition, offset, leaderEpoch);
        this.#assigned.set(nameOf(topic, partition), assigned);
      }
    }
    await this.#events.assigned([...this.#assigned.values()]);
  }

  async #revoke(): Promise<void> {
    const partitions = this.#release();
    if (partitions.length > 0) await this.#events.revoking(partitions);
    this.#assigned = new Map();
  }

  #lose(): void {
    const partitions = this.#release();
    this.#assigned = new Map();
    if (partitions.length > 0) this.#events.lost(partitions);
  }

  /** Reads no more of what is assigned; it can still be committed. */
  #release(): AssignedPartition[] {
    const partitions = [...this.#assigned.values()];
    for (const partition of partitions) {
      if (partition.reading !== null) this.#fetcher.remove(partition.reading);
      partition.reading = null;
    }
    return partitions;
  }
}

const nameOf = (topic: string, partition: number): string => `${topic}-${partition}`;
