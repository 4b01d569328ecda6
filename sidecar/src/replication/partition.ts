import type { ErrorName, RecordBatch } from '@rookery/wire';
import type { LogConfig } from '../log-config.ts';
import { checkAppend } from '../log/append-checks.ts';
import { demandOf, looksIntoRecords, prepareAtOnce, type Demand, type Prepare } from '../log/preparation.ts';
import { OffsetOutOfRange, Quarantined, type LogRead } from '../log/log-reader.ts';
import { type Appended, type PartitionLog } from '../log/partition-log.ts';
import { CommitQueue, type Committed } from './commit-queue.ts';
import { advanceWatermark } from './watermark.ts';

/** What the cluster has decided about a partition, as far as this replica is concerned. */
export interface PartitionRole {
  readonly isLeader: boolean;
  readonly leader: number;
  readonly leaderEpoch: number;
  /** How many replicas are in sync, this one among them. */
  readonly inSyncReplicas: number;
}

export interface PartitionDeps {
  /** The broker's clock in milliseconds. */
  readonly now: () => number;
  /** Looks into records where that does not hold up the loop. */
  readonly prepare: Prepare;
}

/** Whether a reader wants records of undecided transactions. */
export type Isolation = 'committed' | 'uncommitted';

/** Refused because of the partition's role, by the name of Kafka's error. */
export class NotServed extends Error {
  readonly error: ErrorName;

  constructor(error: ErrorName, detail: string) {
    super(`${error}: ${detail}`);
    this.name = 'NotServed';
    this.error = error;
  }
}

/**
 * A log with a role. It is what handlers and coordinators touch: it knows whether this broker leads, in which
 * epoch, how far readers may read, and who waits for what. Followers and in-sync replicas beyond the leader's
 * own log join here when brokers replicate; until then the leader's durable end is the whole agreement.
 */
export class Partition {
  readonly log: PartitionLog;
  #role: PartitionRole;
  #highWatermark: number;
  readonly #commits = new CommitQueue();
  readonly #durables = new CommitQueue();
  readonly #readers = new Set<() => void>();

  #minInSyncReplicas: number;
  readonly #deps: PartitionDeps;
  /** Batches whose records are being looked into, or that wait behind such a one. */
  #inPreparation = 0;
  /** Settles when the last of them is appended or refused. */
  #turn: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  /** @param minInSyncReplicas how many must be in sync for acks=all (`min.insync.replicas`) */
  constructor(log: PartitionLog, role: PartitionRole, minInSyncReplicas: number, deps: PartitionDeps) {
    this.log = log;
    this.#minInSyncReplicas = minInSyncReplicas;
    this.#deps = deps;
    this.#role = role;
    this.#highWatermark = log.durableEndOffset;
    if (role.isLeader) this.#lead();
    log.onDurable = () => this.#advance();
    log.onTakenBack = (fromOffset) => this.#release('KAFKA_STORAGE_ERROR', fromOffset);
    log.onOffline = () => this.#goOffline();
  }

  get role(): PartitionRole {
    return this.#role;
  }

  get highWatermark(): number {
    return this.#highWatermark;
  }

  /** Below it no transaction is undecided; without open transactions, the high watermark. */
  get lastStableOffset(): number {
    return Math.min(this.#highWatermark, this.log.firstUnstableOffset ?? Infinity);
  }

  become(role: PartitionRole): void {
    if (role.leaderEpoch < this.#role.leaderEpoch) return;
    const wasLeader = this.#role.isLeader;
    this.#role = role;
    if (role.isLeader) this.#lead();
    else if (wasLeader) this.#release('NOT_LEADER_OR_FOLLOWER');
    for (const wake of this.#readers) wake();
  }

  /** Its topic has other settings now. */
  configure(config: LogConfig, minInSyncReplicas: number): void {
    this.log.updateConfig(config);
    this.#minInSyncReplicas = minInSyncReplicas;
  }

  /**
   * Appends a client's batch as the leader: at once where it may stand as it came, later where the topic wants
   * its records in another codec or looked at. Batches are appended in the order of their arrival, whichever
   * way each goes, so that a producer's sequence numbers come in turn.
   *
   * @param acks as for `appendAsLeader`
   * @throws what `appendAsLeader` throws, at once or later
   */
  appendFromClient(batch: RecordBatch, acks: number): Appended | Promise<Appended> {
    if (this.#inPreparation > 0) return this.#appendInTurn(batch, acks);
    if (!looksIntoRecords(this.log.config)) return this.appendAsLeader([batch], acks);
    const ready = this.#readyAtOnce(batch, acks);
    return ready === null ? this.#appendInTurn(batch, acks) : this.appendAsLeader([ready], acks);
  }

  #appendInTurn(batch: RecordBatch, acks: number): Promise<Appended> {
    this.#inPreparation++;
    const before = this.#turn;
    const append = async (): Promise<Appended> => {
      await before;
      try {
        return this.appendAsLeader([await this.#prepared(batch, acks)], acks);
      } finally {
        this.#inPreparation--;
      }
    };
    const appended = append();
    this.#turn = appended.catch(() => {});
    return appended;
  }

  async #prepared(batch: RecordBatch, acks: number): Promise<RecordBatch> {
    for (;;) {
      const { config } = this.log;
      const ready = this.#readyAtOnce(batch, acks);
      if (ready !== null) return ready;
      const prepared = await this.#deps.prepare(batch, this.#demandOf(batch)!);
      // The topic may want something else by now.
      if (config === this.log.config) return prepared;
    }
  }

  /** The batch as the topic wants it, when that takes no time to speak of; else null. */
  #readyAtOnce(batch: RecordBatch, acks: number): RecordBatch | null {
    // What would be refused in any case is refused before anybody works on it.
    this.#checkAppend(acks);
    checkAppend(batch, this.log.config, this.#deps.now(), 'client');
    const demand = this.#demandOf(batch);
    return demand === null ? batch : prepareAtOnce(batch, demand);
  }

  #demandOf(batch: RecordBatch): Demand | null {
    const { config } = this.log;
    return looksIntoRecords(config) ? demandOf(batch, config, this.#deps.now()) : null;
  }

  /**
   * Appends batches as the leader, all or none. They get their offsets and epoch here and now; when they are
   * safe is told by `whenCommitted` (acks=all) or `whenDurable` (acks=1).
   *
   * @param acks 0 none, 1 this broker, −1 all in-sync replicas
   * @throws NotServed when this broker does not lead or too few replicas are in sync, AppendRefused when the log
   *   does not take the batches
   */
  appendAsLeader(batches: readonly RecordBatch[], acks: number): Appended {
    this.#checkAppend(acks);
    return this.log.appendAsLeader(batches, this.#role.leaderEpoch);
  }

  #checkAppend(acks: number): void {
    if (this.#isClosed) throw new NotServed('NOT_LEADER_OR_FOLLOWER', `${this.name} is gone`);
    this.checkLeader(-1);
    if (acks !== -1 || this.#role.inSyncReplicas >= this.#minInSyncReplicas) return;
    throw new NotServed(
      'NOT_ENOUGH_REPLICAS',
      `${this.#role.inSyncReplicas} of ${this.#minInSyncReplicas} are in sync`,
    );
  }

  /** Told once every in-sync replica has the offset. */
  whenCommitted(lastOffset: number, committed: Committed): void {
    if (lastOffset < this.#highWatermark) committed(null);
    else if (this.log.offlineReason !== null) committed('KAFKA_STORAGE_ERROR');
    else this.#commits.add(lastOffset, committed);
  }

  /** Told once this replica has the offset as durably as `flush.mode` says. */
  whenDurable(lastOffset: number, durable: Committed): void {
    if (lastOffset < this.log.durableEndOffset) durable(null);
    else if (this.log.offlineReason !== null) durable('KAFKA_STORAGE_ERROR');
    else this.#durables.add(lastOffset, durable);
  }

  /**
   * Whole batches from the one that holds `offset`, never past the high watermark, or for `committed` reads the
   * last stable offset.
   *
   * @throws NotServed for the wrong leader or epoch, OffsetOutOfRange for an offset that the log does not hold
   */
  read(options: {
    offset: number;
    maxBytes: number;
    atLeastOne: boolean;
    currentLeaderEpoch: number;
    isolation?: Isolation;
  }): LogRead {
    const { offset, maxBytes, atLeastOne } = options;
    this.checkLeader(options.currentLeaderEpoch);
    const limit = options.isolation === 'committed' ? this.lastStableOffset : this.#highWatermark;
    try {
      return this.log.read(offset, maxBytes, limit, atLeastOne);
    } catch (error) {
      if (error instanceof Quarantined) throw new NotServed('KAFKA_STORAGE_ERROR', error.message);
      throw error;
    }
  }

  /**
   * Where the log of a reader parts from this one; null when it does not, as far as the reader says.
   *
   * @param offset where the reader wants to go on
   * @param lastFetchedEpoch the epoch of the last batch that it has, −1 when it does not say
   * @throws OffsetOutOfRange before the log's start, and for an epoch of which nothing is known
   */
  divergence(offset: number, lastFetchedEpoch: number): { epoch: number; endOffset: number } | null {
    if (lastFetchedEpoch === -1) return null;
    const { leaderEpoch: epoch, endOffset } = this.log.endOffsetForEpoch(lastFetchedEpoch);
    if (endOffset === -1 || offset < this.log.logStartOffset) throw new OffsetOutOfRange(offset, this.log);
    return epoch < lastFetchedEpoch || endOffset < offset ? { epoch, endOffset } : null;
  }

  /** @param currentLeaderEpoch what the client believes the epoch to be, −1 when it does not say */
  checkLeader(currentLeaderEpoch: number): void {
    const { isLeader, leaderEpoch } = this.#role;
    if (!isLeader) throw new NotServed('NOT_LEADER_OR_FOLLOWER', this.name);
    if (currentLeaderEpoch === -1 || currentLeaderEpoch === leaderEpoch) return;
    const stale = currentLeaderEpoch < leaderEpoch;
    throw new NotServed(
      stale ? 'FENCED_LEADER_EPOCH' : 'UNKNOWN_LEADER_EPOCH',
      `${this.name} is in epoch ${leaderEpoch}`,
    );
  }

  get name(): string {
    return `${this.log.topic}-${this.log.partition}`;
  }

  /** Wakes the reader whenever the high watermark moves or the role changes, until it unsubscribes. */
  addReader(wake: () => void): void {
    this.#readers.add(wake);
  }

  removeReader(wake: () => void): void {
    this.#readers.delete(wake);
  }

  /** The partition goes away: whoever waits is told so. */
  close(): void {
    this.#isClosed = true;
    this.#release('NOT_LEADER_OR_FOLLOWER');
    for (const wake of this.#readers) wake();
    this.#readers.clear();
  }

  #lead(): void {
    if (this.log.latestEpoch < this.#role.leaderEpoch) {
      this.log.assignLeaderEpoch(this.#role.leaderEpoch, this.log.logEndOffset);
    }
  }

  #advance(): void {
    const durableEnd = this.log.durableEndOffset;
    this.#durables.release(durableEnd);
    const highWatermark = advanceWatermark(this.#highWatermark, [durableEnd]);
    if (highWatermark === this.#highWatermark) return;
    this.#highWatermark = highWatermark;
    this.log.advanceHighWatermark(highWatermark);
    this.#commits.release(highWatermark);
    for (const wake of this.#readers) wake();
  }

  #goOffline(): void {
    this.#release('KAFKA_STORAGE_ERROR');
    for (const wake of this.#readers) wake();
  }

  #release(error: ErrorName, fromOffset?: number): void {
    this.#commits.fail(error, fromOffset);
    this.#durables.fail(error, fromOffset);
  }
}
