import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { RecordBatch } from '@rookery/wire';

/** A batch as it must stand in the log. */
export interface KnownBatch {
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly leaderEpoch: number;
  /** −1 for none. */
  readonly producerId: number;
  readonly lastSequence: number;
  readonly bytes: Buffer;
}

/** What must be true of a log after a crash at some moment: how much it must still hold, how much it may. */
export interface Promised {
  readonly topic: string;
  /** Everything that was ever appended, in order; a crash may take batches from its end, never below `end`. */
  readonly batches: readonly KnownBatch[];
  readonly existence: Existence;
  /** Records may go whose key has a later one. */
  readonly isCompacted: boolean;
  /** Everything below it was acknowledged. */
  readonly end: number;
  /** What was deleted before it stays deleted; what stands at or after `startMax` was never deleted. */
  readonly start: number;
  readonly startMax: number;
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
  /** Its end is being cut: a crash may leave what is cut off, or not. */
  isBeingCut = false;
  #batches: KnownBatch[] = [];
  #killEnd = 0;
  #powerCutEnd = 0;
  #start = 0;
  #startMax = 0;

  /** @param believes the mode whose promises are counted on, if it is not the one that the log is in */
  constructor(topic: string, config: LogConfig, believes: LogConfig['flushMode'] = config.flushMode) {
    this.topic = topic;
    this.#config = { ...config, flushMode: believes };
  }

  /**
   * Batches that the log is about to take at its end. What they will look like is worked out here, on copies,
   * because the log may have written some of them before it answers.
   */
  appending(batches: readonly RecordBatch[], logEndOffset: number, now: number): void {
    let offset = logEndOffset;
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

  /** The sequence number that a producer gives to its next record. */
  nextSequence(producerId: number): number {
    return (this.#batches.findLast((batch) => batch.producerId === producerId)?.lastSequence ?? -1) + 1;
  }

  /** Somebody was told that everything before the offset is deleted. */
  deletedBefore(offset: number): void {
    this.#start = Math.max(this.#start, offset);
  }

  /** The log is told to end before an offset: from now on nobody counts on what is behind the batch before it. */
  truncating(offset: number): void {
    const end = (this.#batches.findLast(({ lastOffset }) => lastOffset < offset)?.lastOffset ?? -1) + 1;
    this.#killEnd = Math.min(this.#killEnd, end);
    this.#powerCutEnd = Math.min(this.#powerCutEnd, end);
    this.isBeingCut = true;
  }

  /** The log was cut at its end, and what was cut off never comes back. */
  truncated(logEndOffset: number): void {
    this.#batches = this.#batches.filter(({ lastOffset }) => lastOffset < logEndOffset);
    this.#killEnd = Math.min(this.#killEnd, logEndOffset);
    this.#powerCutEnd = Math.min(this.#powerCutEnd, logEndOffset);
    this.isBeingCut = false;
  }

  /** Notes what the log says now. */
  listen(log: PartitionLog): void {
    const { durableEndOffset, recoveryPoint, logStartOffset } = log;
    this.#startMax = Math.max(this.#startMax, logStartOffset);
    // What it still says of its old end is no promise any more.
    if (this.isBeingCut) return;
    this.#killEnd = Math.max(this.#killEnd, durableEndOffset);
    const isSynced = this.#config.flushMode === 'sync';
    this.#powerCutEnd = Math.max(this.#powerCutEnd, isSynced ? durableEndOffset : recoveryPoint);
  }

  promised(kind: CrashKind): Promised {
    const { topic } = this;
    const { isCompacted } = this.#config;
    const acknowledged = kind === 'kill' ? this.#killEnd : this.#powerCutEnd;
    const [start, startMax] = [this.#start, this.#startMax];
    // A log that was cut inside the batch of its start ends there, with nothing in front that could be lost.
    const end = Math.min(acknowledged, Math.max(start, (this.#batches.at(-1)?.lastOffset ?? -1) + 1));
    const existence = kind === 'kill' ? this.existence : this.#existenceWithoutPower;
    return { topic, existence, isCompacted, batches: this.#batches, end, start, startMax };
  }

  /** The power is gone: what was only promised for a kill is not promised any more. */
  powerCut(): void {
    this.existence = this.#existenceWithoutPower;
    this.#killEnd = this.#powerCutEnd;
  }

  /** A partition in which nothing was ever safe may go with the power, and is made again by whoever leads it. */
  get #existenceWithoutPower(): Existence {
    const isEmpty = this.#powerCutEnd === 0 && this.#start === 0;
    return this.existence === 'there' && isEmpty ? 'unsure' : this.existence;
  }

  /** The log lives on from what a crash left of it. */
  recovered(log: PartitionLog): void {
    this.#batches = this.#batches.filter(({ lastOffset }) => lastOffset < log.logEndOffset);
    this.#startMax = log.logStartOffset;
    this.leaderEpoch = Math.max(this.leaderEpoch, log.latestEpoch);
    this.isBeingCut = false;
    this.listen(log);
  }
}

const known = (batch: RecordBatch): KnownBatch => ({
  baseOffset: batch.baseOffset,
  lastOffset: batch.lastOffset,
  leaderEpoch: batch.partitionLeaderEpoch,
  producerId: batch.producerId,
  lastSequence: batch.baseSequence + batch.lastOffsetDelta,
  bytes: Buffer.concat(batch.chunks),
});
