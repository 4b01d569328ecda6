import { errorName, offsetCommit, offsetFetch } from '@rookery/wire';
import type { TopicPartitions } from './assignor.ts';
import { Backoff, sleep } from './backoff.ts';
import type { ClusterView } from './cluster-view.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';
import type { Generation } from './membership.ts';

export interface Position {
  /** The offset of the next record to read. */
  readonly offset: number;
  /** The epoch of the last record read, −1 when it is not known. */
  readonly leaderEpoch: number;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/**
 * How far a group has read, kept by its coordinator. Commits that come while one is under way are joined into
 * the next: per partition only the newest position counts.
 */
export class OffsetCommits {
  readonly #view: ClusterView;
  readonly #group: string;
  readonly #purpose: string;
  readonly #generation: () => Generation | null;
  /** The broker says that the generation is over. */
  readonly #suspect: () => void;
  #positions = new Map<string, Map<number, Position>>();
  #waiting: Waiting[] = [];
  #isUnderWay = false;

  constructor(
    view: ClusterView,
    group: string,
    purpose: string,
    generation: () => Generation | null,
    suspect: () => void,
  ) {
    this.#view = view;
    this.#group = group;
    this.#purpose = purpose;
    this.#generation = generation;
    this.#suspect = suspect;
  }

  /**
   * Resolves when the position, or a later one of the same partition, is kept.
   * @throws ClientError RK9210 when the generation is over, RK9208 for other refusals
   */
  commit(topic: string, partition: number, position: Position): Promise<void> {
    const partitions = this.#positions.get(topic) ?? new Map<number, Position>();
    this.#positions.set(topic, partitions.set(partition, position));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      if (!this.#isUnderWay) void this.#run();
    });
  }

  /** Committed positions; −1 as offset where nothing is. Tried until it succeeds or the signal aborts. */
  async fetch(
    assignment: readonly TopicPartitions[],
    signal: AbortSignal,
  ): Promise<Map<string, Map<number, Position>>> {
    const backoff = new Backoff();
    for (;;) {
      try {
        return await this.#fetch(assignment);
      } catch (error) {
        signal.throwIfAborted();
        // A failure must never look like 'nothing committed': that would start the partition all over.
        if (!isRetriableError(error) && !isUnstable(error)) throw error;
        this.#view.forgetCoordinator(this.#group);
        await sleep(backoff.next(), signal);
        signal.throwIfAborted();
      }
    }
  }

  async #run(): Promise<void> {
    this.#isUnderWay = true;
    // What else is settled in this turn goes along.
    await Promise.resolve();
    const backoff = new Backoff();
    while (this.#waiting.length > 0) {
      const positions = this.#positions;
      const waiting = this.#waiting;
      this.#positions = new Map();
      this.#waiting = [];
      for (;;) {
        try {
          await this.#commit(positions);
          for (const { resolve } of waiting) resolve();
          break;
        } catch (error) {
          const mayRetry =
            isRetriableError(error) && this.#generation() !== null && !this.#view.signal.aborted;
          if (!mayRetry) {
            for (const { reject } of waiting) reject(error as Error);
            break;
          }
          this.#view.forgetCoordinator(this.#group);
          await sleep(backoff.next(), this.#view.signal);
        }
      }
    }
    this.#isUnderWay = false;
  }

  async #commit(positions: ReadonlyMap<string, ReadonlyMap<number, Position>>): Promise<void> {
    const generation = this.#generation();
    if (generation === null) throw new ClientError('RK9210', `group '${this.#group}'`);
    const coordinator = await this.#view.coordinator(this.#group, this.#purpose);
    const response = await coordinator.request(
      offsetCommit,
      {
        groupId: this.#group,
        generationIdOrMemberEpoch: generation.id,
        memberId: generation.memberId,
        groupInstanceId: generation.instanceId,
        topics: [...positions].map(([name, partitions]) => ({
          name,
          partitions: [...partitions].map(([partitionIndex, { offset, leaderEpoch }]) => ({
            partitionIndex,
            committedOffset: offset,
            committedLeaderEpoch: leaderEpoch,
            committedMetadata: '',
          })),
        })),
      },
      // From version 10 on topics go by id.
      { versionMax: 9 },
    );
    for (const { name, partitions } of response.topics)
      for (const { partitionIndex, errorCode } of partitions) {
        if (errorCode === 0) continue;
        const error = errorName(errorCode);
        const where = `offset of ${name}-${partitionIndex} for group '${this.#group}'`;
        if (isOver.has(error)) {
          this.#suspect();
          throw new ClientError('RK9210', where, { cause: new BrokerError(error, where) });
        }
        throw new BrokerError(error, where);
      }
  }

  async #fetch(assignment: readonly TopicPartitions[]): Promise<Map<string, Map<number, Position>>> {
    const coordinator = await this.#view.coordinator(this.#group, this.#purpose);
    const topics = assignment.map(({ topic, partitions }) => ({ name: topic, partitionIndexes: partitions }));
    const response = await coordinator.request(
      offsetFetch,
      (version) =>
        version >= 8
          ? { groups: [{ groupId: this.#group, topics }], requireStable: true }
          : { groupId: this.#group, topics, ...(version >= 7 ? { requireStable: true } : {}) },
      { versionMax: 9 },
    );
    const answer = response.groups?.[0] ?? response;
    const check = (errorCode: number | undefined, where: string): void => {
      if (errorCode) throw new BrokerError(errorName(errorCode), where);
    };
    check(answer.errorCode, `offsets of group '${this.#group}'`);
    const positions = new Map<string, Map<number, Position>>();
    for (const { name, partitions } of answer.topics ?? []) {
      const of = new Map<number, Position>();
      positions.set(name!, of);
      for (const { partitionIndex, committedOffset, committedLeaderEpoch, errorCode } of partitions) {
        check(errorCode, `offset of ${name}-${partitionIndex} for group '${this.#group}'`);
        of.set(partitionIndex, { offset: committedOffset, leaderEpoch: committedLeaderEpoch ?? -1 });
      }
    }
    return positions;
  }
}

const isOver = new Set([
  'UNKNOWN_MEMBER_ID',
  'ILLEGAL_GENERATION',
  'FENCED_INSTANCE_ID',
  'REBALANCE_IN_PROGRESS',
]);

const isUnstable = (error: unknown): boolean =>
  error instanceof BrokerError && error.error === 'UNSTABLE_OFFSET_COMMIT';
