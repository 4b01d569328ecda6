import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { RecordBatch } from '@rookery/wire';

/** A batch as it must stand in the log. */
export interface KnownBatch {
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly leaderEpoch: number;
  readonly maxTimestamp: number;
  readonly bytes: Buffer;
}

/** What must be true of a log after a crash at some moment: how much it must still hold, how much it may. */
export interface Promised {
  readonly topic: string;
  /** Everything that was ever appended, in order; a crash may take batches from its end, never below `end`. */
  readonly batches: readonly KnownBatch[];
  readonly existence: Existence;
  /** Everything below it was acknowledged. */
  readonly end: number;
}

/** Whether users were told that the partition is there, or gone; unsure while it is being made or deleted. */
export type Existence = 'gone' | 'unsure' | 'there';

/** The way of the crash that a promise is about. */
export type CrashKind = 'kill' | 'power cut';

/**
 * What one log was given and what it has promised so far, from its own words: `durableEndOffset` is what
 * producers were told, and the recovery point is what it takes for safe on the platter.
 */
export class History {
  readonly topic: string;
  readonly #config: LogConfig;
  existence: Existence = 'gone';
  leaderEpoch = 0;
  #batches: KnownBatch[] = [];
  #killEnd = 0;
  #powerCutEnd = 0;

  /** @param believes the mode whose promises are counted on, if it is not the one that the log is in */
  constructor(topic: string, config: LogConfig, believes: LogConfig['flushMode'] = config.flushMode) {
    this.topic = topic;
    this.#config = { ...config, flushMode: believes };
  }

  /**
   * Batches that the log is about to take. What they will look like is worked out here, on copies, because the
   * log may have written some of them before it answers.
   */
  appending(batches: readonly RecordBatch[], now: number): void {
    let offset = (this.#batches.at(-1)?.lastOffset ?? -1) + 1;
    const added = batches.map((given) => {
      const [batch] = RecordBatch.split([Buffer.concat(given.chunks)]) as [RecordBatch];
      batch.setBaseOffset(offset);
      batch.setPartitionLeaderEpoch(this.leaderEpoch);
      if (this.#config.timestampType === 'LogAppendTime') batch.setLogAppendTime(now);
      offset = batch.nextOffset;
      return known(batch);
    });
    // A new array, because promises hold on to the one of their moment.
    this.#batches = [...this.#batches, ...added];
  }

  /** Notes what the log says now. */
  listen(log: PartitionLog): void {
    const { durableEndOffset, recoveryPoint } = log;
    this.#killEnd = Math.max(this.#killEnd, durableEndOffset);
    const isSynced = this.#config.flushMode === 'sync';
    this.#powerCutEnd = Math.max(this.#powerCutEnd, isSynced ? durableEndOffset : recoveryPoint);
  }

  promised(kind: CrashKind): Promised {
    const { topic, existence } = this;
    const end = kind === 'kill' ? this.#killEnd : this.#powerCutEnd;
    return { topic, existence, batches: this.#batches, end };
  }

  /** The power is gone: what was only promised for a kill is not promised any more. */
  powerCut(): void {
    this.#killEnd = this.#powerCutEnd;
  }

  /** The log lives on from what a crash left of it. */
  recovered(log: PartitionLog): void {
    this.#batches = this.#batches.filter(({ lastOffset }) => lastOffset < log.logEndOffset);
    this.leaderEpoch = Math.max(this.leaderEpoch, log.latestEpoch);
    this.listen(log);
  }
}

const known = (batch: RecordBatch): KnownBatch => ({
  baseOffset: batch.baseOffset,
  lastOffset: batch.lastOffset,
  leaderEpoch: batch.partitionLeaderEpoch,
  maxTimestamp: batch.maxTimestamp,
  bytes: Buffer.concat(batch.chunks),
});
