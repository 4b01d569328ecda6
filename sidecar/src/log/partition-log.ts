import type { RecordBatch } from '@rookery/wire';
import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { assert } from '../invariant.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { AppendRefused, checkAppend, type Origin } from './append-checks.ts';
import type { Flusher } from './flusher.ts';
import { chooseCompaction, type CompactionChoice } from './compaction-choice.ts';
import type { CompactionPlan, CompactionResult } from './compaction.ts';
import type { DiskSpace } from './disk-space.ts';
import type { DeferredDeletion } from './deferred-deletion.ts';
import { Durability, type End } from './durability.ts';
import { mendIndexes } from './index-mending.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import type { LogConfig } from '../log-config.ts';
import { loadLog, type Checkpointed } from './log-loader.ts';
import {
  LogReader,
  OffsetOutOfRange,
  Quarantined,
  type Found,
  type LogRead,
  type ReadableLog,
} from './log-reader.ts';
import { epochsName } from './partition-directory.ts';
import { relativeOffsetMax } from './offset-index.ts';
import { noteBatch, recoverProducers } from './producer-recovery.ts';
import type { ProducerSnapshot } from './producer-snapshot.ts';
import { ProducerState, type SentBatch } from './producer-state.ts';
import { outlived, type RetentionReason } from './retention.ts';
import { auditSegment } from './segment-audit.ts';
import type { SegmentList } from './segment-list.ts';
import { swapSegments } from './segment-swap.ts';
import { Segment } from './segment.ts';
import { sayRot, type Rot } from './rot.ts';
import type { Tail, TailCache } from './tail-cache.ts';
import type { AbortedTransaction } from './transaction-index.ts';

export interface Appended {
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** Milliseconds, −1 when the records keep their own times. */
  readonly logAppendTime: number;
  readonly logStartOffset: number;
  /** The very bytes stay in memory when they are in the file too, for readers at the tail. */
  readonly isKept: boolean;
}

export interface LogIdentity {
  readonly topic: string;
  readonly partition: number;
  readonly topicId: string;
  readonly directory: string;
}

export interface LogDeps {
  readonly fs: FileSystem;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly flusher: Flusher;
  readonly space: DiskSpace;
  readonly tails: TailCache;
  /** Leaves word for the next start that nothing at or after the offset may be trusted. */
  readonly distrust: (partition: string, fromOffset: number) => void;
  /** Leaves word for the next start that the end of the log is being cut. */
  readonly willCut: (partition: string) => void;
  /** Leaves word of rot, until somebody repairs the partition. */
  readonly quarantine: (partition: string, rot: Rot) => void;
  /** Makes the names in the log's directory durable, and the directory's own. */
  readonly syncNames: (directory: string) => Promise<void>;
  readonly deletion: DeferredDeletion;
  readonly checkpoints: {
    /** Puts the start of every log on disk: before segments go, so that no restart looks for them. */
    starts(): Promise<void>;
    /** Puts the recovery points on disk: before a log is cut, so that no restart misses what was cut off. */
    recoveryPoints(): Promise<void>;
  };
}

/** A number in [0, 1). */
const chanceOf = (clock: Clock): number => clock.randomBytes(4).readUInt32LE(0) / 2 ** 32;

/**
 * One partition on disk: segments, indexes, epochs. Appends get their offsets at once and are written with the
 * others of their turn (`flusher.ts`); `durableEndOffset` says how far they are as safe as `flush.mode`
 * promises, and only that much is ever read.
 */
export class PartitionLog implements ReadableLog {
  readonly topic: string;
  readonly partition: number;
  readonly topicId: string;
  readonly directory: string;
  /** Told whenever `durableEndOffset` moves. */
  onDurable: () => void = () => {};
  /** Told when the disk was full: appends at or after the offset were taken back. */
  onTakenBack: (fromOffset: number) => void = () => {};
  /** Told once, when a write or a sync has failed and no more is taken. */
  onOffline: () => void = () => {};
  readonly #deps: LogDeps;
  readonly #epochs: LeaderEpochs;
  readonly #segments: SegmentList;
  readonly #durability: Durability;
  /** The newest batches, for readers at the tail. */
  readonly #tail: Tail;
  readonly #reader: LogReader;
  readonly #producers = new ProducerState();
  #config: LogConfig;
  #logStartOffset: number;
  #logEndOffset: number;
  #highWatermark: number;
  /** By how much the active segment rolls sooner than `segment.ms`, so that many logs do not roll at once. */
  #jitterMs = 0;
  /** Why the disk is not touched any more. */
  #failure: string | null = null;
  #rot: Rot | null = null;
  #mayHaveHoles: boolean;
  /** It was opened with rot: no file of it is written. */
  readonly #isUntouched: boolean;
  readonly #wasMarked: boolean;
  #isClosed = false;
  #mending: Promise<void> | null = null;

  /** Opens the partition in its directory, new or old, and recovers what the last stop left behind. */
  static open(identity: LogIdentity, config: LogConfig, deps: LogDeps, found: Checkpointed): PartitionLog {
    return new PartitionLog(identity, config, deps, found);
  }

  private constructor(identity: LogIdentity, config: LogConfig, deps: LogDeps, found: Checkpointed) {
    const { fs, events } = deps;
    const { topic, partition, topicId, directory } = identity;
    this.topic = topic;
    this.partition = partition;
    this.topicId = topicId;
    this.directory = directory;
    this.#config = config;
    this.#deps = deps;
    this.#tail = deps.tails.tail();
    this.#epochs = new LeaderEpochs(fs, `${directory}/${epochsName}`);
    const loaded = loadLog(
      {
        name: this.name,
        directory,
        fs,
        events,
        config,
        epochs: this.#epochs,
        producers: this.#producers,
        willCut: () => deps.willCut(this.name),
      },
      found,
    );
    this.#segments = loaded.segments;
    this.#logStartOffset = loaded.logStartOffset;
    this.#isUntouched = loaded.rot !== null;
    this.#wasMarked = found.isMarked;
    this.#mayHaveHoles = found.mayHaveHoles;
    this.#logEndOffset = this.#highWatermark = loaded.end.offset;
    this.#durability = new Durability(
      {
        fs,
        directory,
        syncNames: () => deps.syncNames(directory),
        tail: deps.flusher.tail,
        config: () => this.#config,
        snapshot: () => this.#producers.encode(),
        moved: () => this.onDurable(),
        takeBack: (to, reason) => this.#takeBack(to, reason),
        failed: (reason) => this.#fail(reason),
      },
      loaded,
    );
    this.#reader = new LogReader(this, {
      segments: this.#segments,
      durability: this.#durability,
      tail: this.#tail,
      epochs: this.#epochs,
    });
    deps.deletion.segments(loaded.outlived, config.fileDeleteDelayMs);
    if (loaded.rot !== null) this.#quarantine(loaded.rot);
    // What recovery found unsynced is the background sync's now.
    else if (!this.#durability.isSynced) deps.flusher.add(this);
    for (const segment of this.#segments.all()) segment.rest();
    const recovered = { logEndOffset: this.#logEndOffset, wasClean: found.isMarked };
    events.emit('recovered', { partition: this.name, ...recovered });
  }

  get name(): string {
    return `${this.topic}-${this.partition}`;
  }

  get logStartOffset(): number {
    return this.#logStartOffset;
  }

  /** The next offset to be given. */
  get logEndOffset(): number {
    return this.#logEndOffset;
  }

  /** Everything below it is as durable as `flush.mode` says. */
  get durableEndOffset(): number {
    return this.#durability.durable.offset;
  }

  /** Readers may read below it, and nothing at or past it is deleted. */
  get highWatermark(): number {
    return this.#highWatermark;
  }

  /** The replicas have agreed: transactions that ended below it are decided for every reader. */
  advanceHighWatermark(highWatermark: number): void {
    this.#highWatermark = highWatermark;
    this.#producers.settle(highWatermark);
  }

  get recoveryPoint(): number {
    return this.#durability.recoveryPoint;
  }

  get unsyncedBytes(): number {
    return this.#durability.unsyncedBytes;
  }

  get sizeInBytes(): number {
    return this.#segments.sizeInBytes;
  }

  get segmentCount(): number {
    return this.#segments.length;
  }

  /** Why nothing is appended; null when all is well. */
  get offlineReason(): string | null {
    return this.#failure ?? (this.#rot === null ? null : sayRot(this.#rot));
  }

  /** The disk has failed, or the log is closed: nothing is written or synced any more. */
  get hasStopped(): boolean {
    return this.#failure !== null;
  }

  /** Where bytes are not what was written; null when nobody has seen any such. */
  get rot(): Rot | null {
    return this.#rot;
  }

  /** Offsets may be missing in the middle, because it was compacted. */
  get mayHaveHoles(): boolean {
    return this.#mayHaveHoles;
  }

  /** Up to here offsets may be missing, and that is no damage. */
  get holesUpTo(): number {
    return this.#mayHaveHoles ? Infinity : this.#logStartOffset;
  }

  get latestEpoch(): number {
    return this.#epochs.latest;
  }

  epochOf(offset: number): number {
    return this.#epochs.epochOf(offset);
  }

  assignLeaderEpoch(epoch: number, startOffset: number): void {
    this.#epochs.assign(epoch, startOffset, this.#durability.isNameless);
  }

  endOffsetForEpoch(epoch: number): { leaderEpoch: number; endOffset: number } {
    return this.#epochs.endOffset(epoch, this.#logEndOffset);
  }

  get config(): LogConfig {
    return this.#config;
  }

  updateConfig(config: LogConfig): void {
    this.#config = config;
  }

  /**
   * Appends batches as the leader, all or none: checks them, gives them offsets, patches both into their
   * headers, and leaves the bytes for the end of the turn. A batch that a producer sends again is not appended
   * again: the answer is that of the first time.
   *
   * @throws AppendRefused
   */
  appendAsLeader(batches: readonly RecordBatch[], leaderEpoch: number, origin: Origin = 'client'): Appended {
    if (this.offlineReason !== null) throw new AppendRefused('KAFKA_STORAGE_ERROR', this.offlineReason);
    assert(!this.#isClosed && batches.length > 0, 'an append to an open log');
    if (this.#deps.space.isLow && !this.#config.isInternal)
      throw new AppendRefused('KAFKA_STORAGE_ERROR', this.#deps.space.shortage);
    const now = this.#deps.clock.now();
    for (const batch of batches) checkAppend(batch, this.#config, now, origin);
    const repeated = origin === 'client' ? this.#repeated(batches) : null;
    if (repeated !== null) return this.#appendedBefore(repeated);
    const isStamped = this.#config.timestampType === 'LogAppendTime';
    const baseOffset = this.#logEndOffset;
    let isKept = false;
    for (const batch of batches) {
      batch.setBaseOffset(this.#logEndOffset);
      batch.setPartitionLeaderEpoch(leaderEpoch);
      if (isStamped) batch.setLogAppendTime(now);
      if (this.#place(batch, now)) isKept = true;
    }
    this.#deps.flusher.add(this);
    return {
      baseOffset,
      lastOffset: this.#logEndOffset - 1,
      logAppendTime: isStamped ? now : -1,
      logStartOffset: this.#logStartOffset,
      isKept,
    };
  }

  /** The batch that a producer repeats with this one; null when it is new. @throws AppendRefused out of turn */
  #repeated(batches: readonly RecordBatch[]): SentBatch | null {
    const [batch] = batches;
    if (batch!.producerId < 0) return null;
    assert(batches.length === 1, 'a producer appends one batch at a time');
    return this.#producers.check(batch!);
  }

  #appendedBefore({ lastOffset, offsetDelta, timestamp }: SentBatch): Appended {
    return {
      baseOffset: lastOffset - offsetDelta,
      lastOffset,
      logAppendTime: this.#config.timestampType === 'LogAppendTime' ? timestamp : -1,
      logStartOffset: this.#logStartOffset,
      isKept: false,
    };
  }

  /**
   * Gives a batch its place at the end of the active segment, or of a new one.
   * @returns whether its bytes are kept in memory for readers
   */
  #place(batch: RecordBatch, now: number): boolean {
    if (this.#mustRoll(batch, now)) this.roll();
    const segment = this.#segments.active;
    segment.firstAppendMs ??= now;
    const position = segment.sizeInBytes;
    // First, because it may have to read an index, which can fail.
    segment.note(batch, position, this.#config.indexIntervalBytes);
    this.#durability.append(batch, segment, position);
    const isKept = this.#tail.add(batch, segment, position);
    if (batch.producerId >= 0) noteBatch(this.#producers, batch, segment.transactions);
    this.#logEndOffset = batch.nextOffset;
    return isKept;
  }

  #mustRoll(batch: RecordBatch, now: number): boolean {
    const segment = this.#segments.active;
    if (segment.sizeInBytes === 0) return false;
    const { segmentBytes, segmentIndexBytes } = this.#config;
    return (
      segment.sizeInBytes + batch.sizeInBytes > segmentBytes ||
      batch.lastOffset - segment.baseOffset > relativeOffsetMax ||
      this.#isActiveOld(now) ||
      segment.index.file.sizeInBytes + segment.index.file.entrySize > segmentIndexBytes
    );
  }

  #isActiveOld(now: number): boolean {
    const { segmentMs, isCompacted, maxCompactionLagMs } = this.#config;
    // What is active is never compacted, so it must not stay active for longer than that may take.
    const limitMs = isCompacted ? Math.min(segmentMs, maxCompactionLagMs) : segmentMs;
    return now - this.#segments.active.beganMs > limitMs - this.#jitterMs;
  }

  /** Seals the active segment and begins the next one, unless that would begin at the same offset. */
  roll(): void {
    const sealed = this.#segments.active;
    if (sealed.baseOffset === this.#logEndOffset) return;
    this.#durability.nameNow();
    sealed.seal();
    const next = new Segment(this.#deps.fs, this.directory, this.#logEndOffset);
    // Indexes of a segment that a power cut took may still stand under this name.
    next.restartIndexes(0);
    this.#segments.add(next);
    this.#durability.rolled(sealed, next);
    const { segmentMs, segmentJitterMs } = this.#config;
    this.#jitterMs = Math.min(segmentMs, segmentJitterMs) * chanceOf(this.#deps.clock);
    this.#deps.events.emit('segmentRolled', { partition: this.name, baseOffset: next.baseOffset });
  }

  /**
   * Deletes the oldest segments as far as time, size or the log start demand, and before that rolls an active
   * segment that is old: the records of a quiet topic go too.
   */
  async retain(): Promise<void> {
    if (this.offlineReason !== null) return;
    const now = this.#deps.clock.now();
    const { isDeleted, retentionMs, retentionBytes } = this.#config;
    if (this.#segments.active.sizeInBytes > 0 && this.#isActiveOld(now)) this.roll();
    const segments = this.#segments.all();
    const { count, reason } = outlived(
      segments.map((segment, i) => ({
        sizeInBytes: segment.sizeInBytes,
        youngest: segment.youngestMs,
        nextOffset: segments[i + 1]?.baseOffset ?? this.#logEndOffset,
      })),
      {
        now,
        retentionMs: isDeleted ? retentionMs : Infinity,
        retentionBytes: isDeleted ? retentionBytes : Infinity,
        logStartOffset: this.#logStartOffset,
        highWatermark: this.#highWatermark,
      },
    );
    if (reason === null) return;
    if (count === segments.length) await this.#beginAnew();
    const start = this.#segments.at(count)!.baseOffset;
    await this.#deps.space.makingRoom(() => this.#advanceStart(start, reason));
  }

  /**
   * Makes everything before the offset as good as gone; segments that are wholly before it are deleted.
   * @throws OffsetOutOfRange past the high watermark
   */
  async deleteBefore(offset: number): Promise<void> {
    if (this.#rot !== null) throw new Quarantined(this.name, this.#rot);
    if (offset > this.#highWatermark) throw new OffsetOutOfRange(offset, this);
    // Where the whole log goes, what is written next must have a segment of its own.
    if (offset === this.#logEndOffset && this.#segments.active.sizeInBytes > 0) await this.#beginAnew();
    await this.#deps.space.makingRoom(() => this.#advanceStart(offset, 'start'));
  }

  /** An empty active segment whose name is durable: the one before may go, and the next offset is not forgotten. */
  async #beginAnew(): Promise<void> {
    this.roll();
    this.#segments.active.create();
    await this.#deps.fs.syncDirectory(this.directory);
  }

  async #advanceStart(offset: number, reason: RetentionReason): Promise<void> {
    await this.#durability.name();
    const start = Math.max(this.#logStartOffset, offset);
    this.#logStartOffset = start;
    // Also when the start has not moved now: the time before, the disk may have refused to keep it.
    await this.#deps.checkpoints.starts();
    if (this.#isClosed) return;
    // Not before the start is on disk: after a crash the log might begin where it did, without its epochs. Nor further
    // than that, though somebody may have moved it on in memory.
    this.#epochs.advanceStart(start);
    if (this.#outlivedBefore(start) === 0) return;
    // The name of the segment that becomes the first must be durable before that of the first one goes.
    await this.#deps.fs.syncDirectory(this.directory);
    // Much may have happened meanwhile, so what goes is counted only now.
    const count = this.#outlivedBefore(start);
    if (this.#isClosed || count === 0) return;
    const dropped = this.#segments.drop(count);
    this.#durability.forget(dropped);
    this.#deps.deletion.segments(dropped, this.#config.fileDeleteDelayMs);
    this.#deps.events.emit('segmentsDeleted', {
      partition: this.name,
      segments: dropped.length,
      bytes: dropped.reduce((sum, { sizeInBytes }) => sum + sizeInBytes, 0),
      reason,
      logStartOffset: this.#logStartOffset,
    });
  }

  /** How many segments are wholly before an offset. */
  #outlivedBefore(start: number): number {
    const segments = this.#segments.all();
    let count = 0;
    while (count + 1 < segments.length && segments[count + 1]!.baseOffset <= start) count++;
    return count;
  }

  /**
   * What compaction should work on; null when it need not, or cannot.
   * @param compactedTo where the last one ended
   */
  chooseCompaction(compactedTo: number | null): CompactionChoice | null {
    if (!this.#config.isCompacted || this.offlineReason !== null) return null;
    const segments = this.#segments.all().slice(0, -1);
    if (segments.length === 0) return null;
    const unstable = this.firstUnstableOffset ?? Infinity;
    const cleanable = {
      segments,
      activeOffset: this.#segments.active.baseOffset,
      uncleanableOffset: Math.min(unstable, this.#highWatermark, this.recoveryPoint),
      compactedTo,
    };
    return chooseCompaction(cleanable, this.#config, this.#deps.clock.now());
  }

  compactionPlan(choice: CompactionChoice, mapBytesMax: number): CompactionPlan {
    const { deleteRetentionMs, segmentBytes, segmentIndexBytes, indexIntervalBytes } = this.#config;
    const { segments, firstDirtyOffset, endOffset } = choice;
    return {
      holesUpTo: this.holesUpTo,
      directory: this.directory,
      segments,
      firstDirtyOffset,
      endOffset,
      aborted: this.abortedTransactions(segments[0]!, endOffset),
      nowMs: this.#deps.clock.now(),
      deleteRetentionMs,
      segmentBytes,
      segmentIndexBytes,
      indexIntervalBytes,
      mapBytesMax,
      producers: this.#producers.describe().map(({ producerId, lastOffset }) => [producerId, lastOffset]),
    };
  }

  /** Whether the log is there, with all segments of these base offsets. */
  hasSegments(bases: readonly number[]): boolean {
    return !this.#isClosed && this.#segments.has(bases);
  }

  /** @returns false when the log has changed meanwhile: then the new segments are dropped */
  swap(result: CompactionResult): Promise<boolean> {
    const { fs, deletion, checkpoints } = this.#deps;
    this.#mayHaveHoles = true;
    return swapSegments(result.replacements, {
      fs,
      directory: this.directory,
      segments: this.#segments,
      hasSegments: (bases) => this.hasSegments(bases),
      keepRecoveryPoint: () => checkpoints.recoveryPoints(),
      replaced: (segments, keep) => {
        this.#durability.forget(segments);
        deletion.segments(segments, this.#config.fileDeleteDelayMs, keep);
      },
    });
  }

  /**
   * Bytes were found that are not what was written. What stands before them is served on; from there on nothing is,
   * and nothing is appended, until somebody repairs the log.
   */
  condemn(rot: Rot): void {
    if (this.#isClosed || (this.#rot !== null && this.#rot.offset <= rot.offset)) return;
    this.#quarantine(rot);
  }

  #quarantine(rot: Rot): void {
    const deps = this.#deps;
    this.#rot = rot;
    deps.quarantine(this.name, rot);
    deps.events.emit('partitionQuarantined', { partition: this.name, ...rot });
  }

  /**
   * Cuts the log before the batch that holds the offset: what a follower has and its leader has not. Nothing is
   * appended until that is done.
   */
  async truncateTo(offset: number): Promise<void> {
    await this.#durability.quiet();
    if (offset >= this.#logEndOffset || this.#failure !== null) return;
    // First, so that no restart misses what was cut off.
    this.#durability.willCut(this.#placeOf(offset).baseOffset);
    await this.#deps.checkpoints.recoveryPoints();
    // Again and again, because retention may have rolled meanwhile, which is synced.
    do await this.#durability.quiet();
    while (!this.#durability.isQuiet && this.#failure === null);
    if (this.#failure !== null) return;
    const { segment, position, baseOffset } = this.#placeOf(offset);
    // Not before the start, which may be in the middle of a batch.
    const end = { offset: Math.max(baseOffset, this.#logStartOffset), segment, position };
    const isShort = segment.endBefore(end) < end.offset;
    this.#durability.cut(end);
    this.#logEndOffset = end.offset;
    this.#highWatermark = Math.min(this.#highWatermark, end.offset);
    this.#cutFiles(end);
    // What was deleted or compacted before the end leaves no batch that tells where it is, so a name tells.
    if (isShort) {
      this.roll();
      this.#segments.active.create();
    }
    try {
      // Batches that came back with the next power cut would be taken for those of the epoch that follows.
      await segment.log.sync();
      await this.#deps.fs.syncDirectory(this.directory);
    } catch (error) {
      this.#fail(`a sync failed: ${(error as Error).message}`);
    }
    this.#epochs.truncateTo(end.offset);
  }

  /** Where the batch with the offset stands, or the first one behind it; not into a hole. */
  #placeOf(offset: number): { segment: Segment; position: number; baseOffset: number } {
    const segment = this.#segments.at(this.#segments.floor(offset))!;
    const batch = segment.find(offset, segment.sizeInBytes);
    const position = batch?.position ?? segment.sizeInBytes;
    return { segment, position, baseOffset: Math.min(batch?.baseOffset ?? offset, offset) };
  }

  /** Brings files and producers back to an end that the log has had before. */
  #cutFiles({ offset, segment, position }: End): void {
    this.#deps.willCut(this.name);
    this.#tail.clear();
    const index = this.#segments.floor(segment.baseOffset);
    for (const later of this.#segments.cutAfter(index)) later.remove();
    segment.truncate(position, offset);
    const log = { fs: this.#deps.fs, directory: this.directory, segments: this.#segments };
    recoverProducers(log, this.#producers, { offset, segment, position });
  }

  // The flusher's verbs, which `durability.ts` explains.

  writeNow(): void {
    this.#durability.writeNow();
  }

  write(): Promise<void> {
    return this.#durability.write();
  }

  settleWritten(): 'settled' | 'sync' {
    return this.#durability.settleWritten();
  }

  sync(): Promise<void> {
    return this.#durability.sync();
  }

  syncNow(): boolean {
    return this.#durability.syncNow();
  }

  get isSynced(): boolean {
    return this.#durability.isSynced;
  }

  get flushMs(): number {
    return this.#durability.flushMs;
  }

  /** Where the earliest undecided transaction begins; null when there is none. */
  get firstUnstableOffset(): number | null {
    return this.#producers.firstUnstableOffset;
  }

  /** For readers of committed records: see `log-reader.ts`, as for the four that follow. @throws IndexLies */
  abortedTransactions(from: number, upTo: number): AbortedTransaction[] {
    return this.#reader.abortedTransactions(from, upTo);
  }

  /** @throws OffsetOutOfRange, Quarantined */
  read(offset: number, maxBytes: number, limitOffset: number, atLeastOne: boolean): LogRead {
    return this.#reader.read(offset, maxBytes, limitOffset, atLeastOne);
  }

  /** @throws Quarantined where the answer may lie behind rot */
  offsetForTimestamp(timestamp: number): Promise<Found | null> {
    return this.#reader.offsetForTimestamp(timestamp);
  }

  /** @throws Quarantined */
  offsetOfMaxTimestamp(): Promise<Found | null> {
    return this.#reader.offsetOfMaxTimestamp();
  }

  /** @throws Quarantined where a batch is not what was written */
  readChecked(endOffset: number, take: (batch: RecordBatch) => void): Promise<void> {
    return this.#reader.readChecked(endOffset, take);
  }

  describeProducers(): ProducerSnapshot[] {
    return this.#producers.describe();
  }

  /** Forgets producers that were silent since before a time (milliseconds since the epoch). */
  expireProducers(before: number): void {
    this.#producers.expire(before);
  }

  /** Makes the indexes again that a lookup has found to be wrong, while the log serves on. */
  mend(): Promise<void> {
    this.#mending ??= this.#mendAll().finally(() => (this.#mending = null));
    return this.#mending;
  }

  async #mendAll(): Promise<void> {
    const { fs, events, clock, flusher } = this.#deps;
    const giveWay = async (): Promise<boolean> => {
      await new Promise<void>((resolve) => clock.nextTurn(resolve));
      return this.offlineReason === null;
    };
    // Only what takes no more batches and is on the platter is made again.
    if (this.#segments.active.hasLyingIndex && this.offlineReason === null) {
      this.roll();
      flusher.add(this);
    }
    const { indexIntervalBytes } = this.#config;
    const log = { fs, directory: this.directory, indexIntervalBytes, holesUpTo: this.holesUpTo };
    const segments = this.#segments.all();
    for (const [i, segment] of segments.slice(0, -1).entries()) {
      if (!segment.hasLyingIndex || segments[i + 1]!.baseOffset > this.recoveryPoint) continue;
      try {
        const rot = await mendIndexes(segments.slice(0, i + 2), log, giveWay);
        if (rot !== null) return this.condemn(rot);
        if (segment.hasLyingIndex) return;
        const reason = 'it does not fit the log';
        events.emit('indexRebuilt', { partition: this.name, file: segment.index.file.path, reason });
      } catch (error) {
        events.emit('backgroundFailed', { task: `making an index of ${this.name} again`, error });
        return;
      }
    }
  }

  /**
   * Reads every closed segment and checks its batches; rot that it meets takes the log out of service there. Indexes
   * that say something else than they do are made again.
   * @param pause told how much was read; false ends the reading
   */
  async scrub(pause: (bytes: number) => Promise<boolean>): Promise<void> {
    const { directory, holesUpTo, mayHaveHoles } = this;
    const log = { fs: this.#deps.fs, directory, holesUpTo, mayHaveHoles };
    const segments = this.#segments.all();
    for (const [i, segment] of segments.slice(0, -1).entries()) {
      const next = segments[i + 1]!.baseOffset;
      if (this.offlineReason !== null) return;
      // What is sealed may still be on its way to the file.
      if (segment.isClosed || next > this.#durability.written.offset) continue;
      const audited = await auditSegment(segment, next, log, pause);
      if (audited === 'given up') return;
      if (segment.isClosed) continue;
      if (audited.rot !== null) return this.condemn(audited.rot);
      if (!audited.areIndexesGood) segment.distrustIndexes();
    }
    await this.mend();
  }

  /** Lets go of open files while nothing waits for the disk: whoever needs one opens it again. */
  rest(): void {
    // The kernel tells of a lost write through the descriptor that wrote, so it stays open until a sync.
    if (this.#isClosed || !this.#durability.isSynced) return;
    for (const segment of this.#segments.all()) segment.rest();
  }

  /** Index entries reach their files; at checkpoints, so that a restart has less to scan. */
  flushIndexes(): void {
    if (!this.#isClosed) this.#segments.active.flushIndexes();
  }

  /**
   * Everything to disk, then the files are let go.
   * @returns whether everything is on disk
   */
  async close(): Promise<boolean> {
    // What an orderly stop has left, and nobody has touched since, is as it should be.
    const isAsFound = this.#isUntouched || (this.#wasMarked && !this.#durability.hasChanged);
    let isComplete = true;
    if (this.#failure === null && !isAsFound) {
      try {
        this.#segments.active.seal();
        isComplete = await this.#durability.syncAll();
      } catch (error) {
        this.#fail(`a sync failed: ${(error as Error).message}`);
      }
    }
    const isWhole = this.#failure === null && isComplete;
    this.abandon();
    return isWhole;
  }

  /** Lets go of the files without a word: the partition is deleted. */
  abandon(): void {
    this.#isClosed = true;
    this.#failure ??= 'the log is closed';
    this.#durability.stop();
    this.#tail.clear();
    for (const segment of this.#segments.all()) segment.close();
  }

  /** The disk is full: what was not written yet is as if it had never come, and the next append may try again. */
  #takeBack(to: End, reason: string): void {
    this.#logEndOffset = to.offset;
    this.#cutFiles(to);
    this.#deps.space.look();
    this.#deps.events.emit('appendsTakenBack', { partition: this.name, fromOffset: to.offset, reason });
    this.onTakenBack(to.offset);
  }

  /** The disk has failed. What it holds above the last good sync is unknown, now and after a restart. */
  #fail(reason: string): void {
    if (this.#failure !== null) return;
    this.#deps.distrust(this.name, this.#durability.recoveryPoint);
    this.#failure = reason;
    this.#durability.stop();
    this.#deps.events.emit('partitionOffline', { partition: this.name, reason });
    this.onOffline();
  }
}
