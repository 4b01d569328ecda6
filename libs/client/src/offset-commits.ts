import { errorName, offsetCommit, offsetFetch } from '@rookery/wire';
import type { TopicPartitions } from './assignor.ts';
import { Backoff } from './backoff.ts';
import type { ClusterView } from './cluster-view.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';
import type { Generation } from './membership.ts';
import { sleep, within } from './waiting.ts';

export interface Position {
  /** The offset of the next record to read. */
  readonly offset: number;
  /** The epoch of the last record read, −1 when it is not known. */
  readonly leaderEpoch: number;
}

export interface OffsetCommitsOptions {
  readonly group: string;
  /** Names the connection that only this member uses. */
  readonly purpose: string;
}

/** A position on its way, and everyone who waits for it: those of older ones of the partition too. */
interface Pending {
  readonly topic: string;
  readonly partition: number;
  readonly generation: Generation;
  position: Position;
  readonly deadline: number;
  readonly waiting: { resolve(): void; reject(error: Error): void }[];
}

/** How long a commit is tried again before whoever waits is told. */
const commitMs = 30_000;

/**
 * How far a group has read, kept by its coordinator. Commits that come while one is under way are joined into
 * the next: per partition only the newest position counts. A position belongs to the generation in which it was
 * reached, and is never kept in the name of a later one.
 */
export class OffsetCommits {
  readonly #view: ClusterView;
  readonly #options: OffsetCommitsOptions;
  readonly #generation: () => Generation | null;
  /** The broker says that the generation is over. */
  readonly #suspect: () => void;
  #pending = new Map<string, Pending>();
  #isUnderWay = false;

  constructor(
    view: ClusterView,
    options: OffsetCommitsOptions,
    generation: () => Generation | null,
    suspect: () => void,
  ) {
    this.#view = view;
    this.#options = options;
    this.#generation = generation;
    this.#suspect = suspect;
  }

  /**
   * Resolves when the position, or a later one of the same partition, is kept.
   * @throws ClientError RK9210 when the generation is over, RK9208 for other refusals
   */
  commit(topic: string, partition: number, position: Position): Promise<void> {
    const generation = this.#generation();
    if (generation === null) return Promise.reject(new ClientError('RK9210', `${topic}-${partition}`));
    return new Promise((resolve, reject) => {
      const deadline = performance.now() + commitMs;
      const waiting = [{ resolve, reject }];
      this.#join({ topic, partition, generation, position, deadline, waiting });
      if (!this.#isUnderWay) void this.#run();
    });
  }

  /** Committed positions; −1 as offset where nothing is. Tried until it succeeds or the signal aborts. */
  async fetch(
    assignment: readonly TopicPartitions[],
    signal: AbortSignal,
  ): Promise<Map<string, Map<number, Position>>> {
    if (assignment.length === 0) return new Map();
    const backoff = new Backoff();
    for (;;) {
      try {
        return await this.#fetch(assignment, signal);
      } catch (error) {
        signal.throwIfAborted();
        // A failure must never look like 'nothing committed': that would start the partition all over.
        if (!isRetriableError(error)) throw error;
        this.#view.forgetCoordinator(this.#options.group);
        await sleep(backoff.next(), signal);
        signal.throwIfAborted();
      }
    }
  }

  /** Puts a newer position in the place of an older one; an older generation's is over. */
  #join(added: Pending): void {
    const key = `${added.topic}/${added.partition}`;
    const earlier = this.#pending.get(key);
    if (earlier === undefined) {
      this.#pending.set(key, added);
    } else if (earlier.generation === added.generation) {
      earlier.position = added.position;
      earlier.waiting.push(...added.waiting);
    } else {
      this.#pending.set(key, added);
      fail(earlier, new ClientError('RK9210', key));
    }
  }

  async #run(): Promise<void> {
    this.#isUnderWay = true;
    // What else is settled in this turn goes along.
    await Promise.resolve();
    const backoff = new Backoff();
    while (this.#pending.size > 0) {
      const taken = [...this.#pending.values()];
      this.#pending = new Map();
      const again = await this.#commit(taken);
      if (again.length === 0) {
        backoff.reset();
        continue;
      }
      await sleep(backoff.next(), this.#view.signal);
      this.#takeBack(again);
    }
    this.#isUnderWay = false;
  }

  /** What failed goes again, unless a newer position has come meanwhile: then that one answers for both. */
  #takeBack(failed: readonly Pending[]): void {
    for (const pending of failed) {
      const key = `${pending.topic}/${pending.partition}`;
      const newer = this.#pending.get(key);
      if (newer === undefined) this.#pending.set(key, pending);
      else if (newer.generation === pending.generation) newer.waiting.unshift(...pending.waiting);
      else fail(pending, new ClientError('RK9210', key));
    }
  }

  /** Settles what it can. @returns what is worth another attempt */
  async #commit(taken: readonly Pending[]): Promise<Pending[]> {
    const generation = this.#generation();
    const current: Pending[] = [];
    for (const pending of taken) {
      if (generation !== null && pending.generation === generation) current.push(pending);
      else fail(pending, new ClientError('RK9210', `${pending.topic}-${pending.partition}`));
    }
    if (generation === null || current.length === 0) return [];
    let answers: Map<string, number>;
    try {
      answers = await this.#ask(generation, current);
    } catch (error) {
      this.#view.forgetCoordinator(this.#options.group);
      return current.filter((pending) => this.#mayTryAgain(pending, error));
    }
    return current.filter((pending) => {
      const { topic, partition } = pending;
      const errorCode = answers.get(`${topic}/${partition}`);
      const where = `offset of ${topic}-${partition} for group '${this.#options.group}'`;
      if (errorCode === undefined) return this.#mayTryAgain(pending, new ClientError('RK9211', where));
      if (errorCode !== 0) return this.#refused(pending, new BrokerError(errorName(errorCode), where));
      for (const { resolve } of pending.waiting) resolve();
      return false;
    });
  }

  #refused(pending: Pending, error: BrokerError): boolean {
    if (isOver.has(error.error)) {
      this.#suspect();
      fail(pending, new ClientError('RK9210', error.detail, { cause: error }));
      return false;
    }
    if (isElsewhere.has(error.error)) this.#view.forgetCoordinator(this.#options.group);
    return this.#mayTryAgain(pending, error);
  }

  #mayTryAgain(pending: Pending, error: unknown): boolean {
    if (isRetriableError(error) && pending.deadline > performance.now() && !this.#view.signal.aborted)
      return true;
    fail(pending, error as Error);
    return false;
  }

  async #ask(generation: Generation, positions: readonly Pending[]): Promise<Map<string, number>> {
    const { group, purpose } = this.#options;
    const coordinator = await within(commitMs, this.#view.signal, (inTime) =>
      this.#view.coordinator(group, purpose, inTime).catch((error: unknown) => {
        if (!inTime.aborted || this.#view.signal.aborted) throw error;
        throw new ClientError('RK9201', `the coordinator of group '${group}' in ${commitMs} ms`);
      }),
    );
    const byTopic = Map.groupBy(positions, ({ topic }) => topic);
    const response = await coordinator.request(
      offsetCommit,
      {
        groupId: group,
        generationIdOrMemberEpoch: generation.id,
        memberId: generation.memberId,
        groupInstanceId: generation.instanceId,
        topics: [...byTopic].map(([name, partitions]) => ({
          name,
          partitions: partitions.map(({ partition, position }) => ({
            partitionIndex: partition,
            committedOffset: position.offset,
            committedLeaderEpoch: position.leaderEpoch,
            committedMetadata: '',
          })),
        })),
      },
      // From version 10 on topics go by id.
      { versionMax: 9 },
    );
    const answers = new Map<string, number>();
    for (const { name, partitions } of response.topics)
      for (const { partitionIndex, errorCode } of partitions)
        answers.set(`${name}/${partitionIndex}`, errorCode);
    return answers;
  }

  async #fetch(
    assignment: readonly TopicPartitions[],
    signal: AbortSignal,
  ): Promise<Map<string, Map<number, Position>>> {
    const { group, purpose } = this.#options;
    const coordinator = await this.#view.coordinator(group, purpose, signal);
    const topics = assignment.map(({ topic, partitions }) => ({ name: topic, partitionIndexes: partitions }));
    const response = await coordinator.request(
      offsetFetch,
      (version) =>
        version >= 8
          ? { groups: [{ groupId: group, topics }], requireStable: true }
          : { groupId: group, topics, ...(version >= 7 ? { requireStable: true } : {}) },
      { versionMax: 9 },
    );
    const answer = response.groups === undefined ? response : response.groups[0];
    const check = (errorCode: number | undefined, where: string): void => {
      if (errorCode) throw new BrokerError(errorName(errorCode), where);
    };
    check(answer?.errorCode, `offsets of group '${group}'`);
    const positions = new Map<string, Map<number, Position>>();
    for (const { name, partitions } of answer?.topics ?? []) {
      const of = new Map<number, Position>();
      positions.set(name!, of);
      for (const { partitionIndex, committedOffset, committedLeaderEpoch, errorCode } of partitions) {
        check(errorCode, `offset of ${name}-${partitionIndex} for group '${group}'`);
        of.set(partitionIndex, { offset: committedOffset, leaderEpoch: committedLeaderEpoch ?? -1 });
      }
    }
    for (const { topic, partitions } of assignment)
      for (const partition of partitions)
        if (!positions.get(topic)?.has(partition))
          throw new ClientError('RK9211', `${topic}-${partition} is not in the answer to OffsetFetch`);
    return positions;
  }
}

const isOver = new Set([
  'UNKNOWN_MEMBER_ID',
  'ILLEGAL_GENERATION',
  'FENCED_INSTANCE_ID',
  'REBALANCE_IN_PROGRESS',
]);

const isElsewhere = new Set(['NOT_COORDINATOR', 'COORDINATOR_NOT_AVAILABLE']);

function fail(pending: Pending, error: Error): void {
  for (const { reject } of pending.waiting) reject(error);
}
