import type { ByteSpan, RecordBatch } from '@rookery/wire';
import { decodeRecords } from '@rookery/wire';
import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { assert } from '../invariant.ts';
import { FileRegion } from '../vfs/file-region.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { AppendRefused, checkAppend } from './append-checks.ts';
import type { Flusher } from './flusher.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import type { LogConfig } from '../log-config.ts';
import { decide, scan } from './recovery.ts';
import { logSuffix, Segment, segmentName } from './segment.ts';
import type { TimeEntry } from './time-index.ts';

/** The offset asked for is before the log's start or after its end. */
export class OffsetOutOfRange extends Error {
  constructor(offset: number, log: PartitionLog) {
    super(`${log.name} holds ${log.logStartOffset} to ${log.logEndOffset}, not ${offset}`);
    this.name = 'OffsetOutOfRange';
  }
}

export interface Appended {
  readonly baseOffset: number;
  readonly lastOffset: number;
  /** Milliseconds, −1 when the records keep their own times. */
  readonly logAppendTime: number;
  readonly logStartOffset: number;
}

export interface LogRead {
  readonly spans: readonly ByteSpan[];
  readonly sizeInBytes: number;
}

export interface Found extends TimeEntry {
  readonly leaderEpoch: number;
}

export interface LogDeps {
  readonly fs: FileSystem;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly flusher: Flusher;
}

/** An end of the log, by offset and by place. */
interface End {
  readonly offset: number;
  readonly segment: Segment;
  readonly position: number;
}

const nothing: LogRead = { spans: [], sizeInBytes: 0 };
/** The furthest an offset may be from its segment's base: indexes keep it in 31 bits. */
const relativeOffsetMax = 0x7fffffff;

/**
 * One partition on disk: segments, indexes, epochs. Appends get their offsets at once and are written with the
 * others of their turn (`flusher.ts`); `durableEndOffset` says how far they are as safe as `flush.mode`
 * promises, and only that much is ever read.
 */
export class PartitionLog {
  readonly topic: string;
  readonly partition: number;
  readonly topicId: string;
  readonly directory: string;
  /** Told whenever `durableEndOffset` moves. */
  onDurable: () => void = () => {};
  /** Told once, when a write or a sync has failed and no more is taken. */
  onOffline: () => void = () => {};
  readonly #deps: LogDeps;
  readonly #epochs: LeaderEpochs;
  #config: LogConfig;
  /** By base offset; the last one is active. */
  #segments: Segment[];
  #logStartOffset: number;
  #logEndOffset = 0;
  /** How far the bytes have reached their files. */
  #written: End;
  /** How far they are as safe as `flush.mode` says. */
  #durable: End;
  /** Below it every byte is known to be on the platter. */
  #recoveryPoint: number;
  /** Chunks that wait for the end of the turn, and where in the active segment they go. */
  #pending: Buffer[] = [];
  #pendingPosition = 0;
  /** What was written and not synced yet: segments, and whether their names are durable. */
  readonly #unsynced = new Set<Segment>();
  #hasNewFiles = false;
  #unsyncedBytes = 0;
  #unsyncedMessages = 0;
  #isSyncing = false;
  #offlineReason: string | null = null;
  #isClosed = false;

  private constructor(
    identity: { topic: string; partition: number; topicId: string; directory: string },
    config: LogConfig,
    deps: LogDeps,
    offsets: { logStartOffset: number; recoveryPoint: number },
  ) {
    this.topic = identity.topic;
    this.partition = identity.partition;
    this.topicId = identity.topicId;
    this.directory = identity.directory;
    this.#config = config;
    this.#deps = deps;
    this.#logStartOffset = offsets.logStartOffset;
    this.#recoveryPoint = offsets.recoveryPoint;
    this.#epochs = new LeaderEpochs(deps.fs, `${identity.directory}/leader-epoch-checkpoint`);
    const bases = baseOffsets(deps.fs, identity.directory);
    this.#segments = (bases.length === 0 ? [offsets.logStartOffset] : bases).map(
      (base) => new Segment(deps.fs, identity.directory, base),
    );
    this.#hasNewFiles = bases.length === 0;
    this.#written = this.#durable = { offset: 0, segment: this.#active, position: 0 };
  }

  /** Opens the partition in its directory, new or old, and recovers what the last stop left behind. */
  static open(
    identity: { topic: string; partition: number; topicId: string; directory: string },
    config: LogConfig,
    deps: LogDeps,
    found: { logStartOffset: number; recoveryPoint: number; isMarked: boolean },
  ): PartitionLog {
    const log = new PartitionLog(identity, config, deps, found);
    log.#recover(found.isMarked);
    return log;
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
    return this.#durable.offset;
  }

  get recoveryPoint(): number {
    return this.#recoveryPoint;
  }

  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }

  get sizeInBytes(): number {
    return this.#segments.reduce((size, segment) => size + segment.sizeInBytes, 0);
  }

  get segmentCount(): number {
    return this.#segments.length;
  }

  get offlineReason(): string | null {
    return this.#offlineReason;
  }

  get latestEpoch(): number {
    return this.#epochs.latest;
  }

  epochOf(offset: number): number {
    return this.#epochs.epochOf(offset);
  }

  assignLeaderEpoch(epoch: number, startOffset: number): void {
    this.#epochs.assign(epoch, startOffset);
  }

  endOffsetForEpoch(epoch: number): { leaderEpoch: number; endOffset: number } {
    return this.#epochs.endOffset(epoch, this.#logEndOffset);
  }

  updateConfig(config: LogConfig): void {
    this.#config = config;
  }

  /**
   * Appends batches as the leader, all or none: checks them, gives them offsets, patches both into their
   * headers, and leaves the bytes for the end of the turn.
   *
   * @throws AppendRefused
   */
  appendAsLeader(batches: readonly RecordBatch[], leaderEpoch: number): Appended {
    if (this.#offlineReason !== null) throw new AppendRefused('KAFKA_STORAGE_ERROR', this.#offlineReason);
    assert(!this.#isClosed && batches.length > 0, 'an append to an open log');
    const now = this.#deps.clock.now();
    for (const batch of batches) checkAppend(batch, this.#config, now);
    const isStamped = this.#config.timestampType === 'LogAppendTime';
    const baseOffset = this.#logEndOffset;
    for (const batch of batches) {
      batch.setBaseOffset(this.#logEndOffset);
      batch.setPartitionLeaderEpoch(leaderEpoch);
      if (isStamped) batch.setLogAppendTime(now);
      this.#place(batch, now);
    }
    // A roll on the way may have met a broken disk.
    if (this.#offlineReason !== null) throw new AppendRefused('KAFKA_STORAGE_ERROR', this.#offlineReason);
    this.#deps.flusher.add(this);
    return {
      baseOffset,
      lastOffset: this.#logEndOffset - 1,
      logAppendTime: isStamped ? now : -1,
      logStartOffset: this.#logStartOffset,
    };
  }

  /** Gives a batch its place at the end of the active segment, or of a new one. */
  #place(batch: RecordBatch, now: number): void {
    if (this.#mustRoll(batch, now)) this.roll();
    const segment = this.#active;
    if (this.#pending.length === 0) this.#pendingPosition = segment.sizeInBytes;
    for (const chunk of batch.chunks) this.#pending.push(chunk);
    segment.firstAppendMs ??= now;
    segment.note(batch, segment.sizeInBytes, this.#config.indexIntervalBytes);
    this.#logEndOffset = batch.nextOffset;
    this.#unsyncedBytes += batch.sizeInBytes;
    this.#unsyncedMessages += batch.recordCount;
  }

  #mustRoll(batch: RecordBatch, now: number): boolean {
    const segment = this.#active;
    if (segment.sizeInBytes === 0) return false;
    const { segmentBytes, segmentMs, segmentIndexBytes } = this.#config;
    return (
      segment.sizeInBytes + batch.sizeInBytes > segmentBytes ||
      batch.lastOffset - segment.baseOffset > relativeOffsetMax ||
      (segment.firstAppendMs !== null && now - segment.firstAppendMs > segmentMs) ||
      segment.index.file.sizeInBytes + segment.index.file.entrySize > segmentIndexBytes
    );
  }

  /** Seals the active segment and begins the next one. */
  roll(): void {
    this.write();
    const sealed = this.#active;
    sealed.seal();
    const next = new Segment(this.#deps.fs, this.directory, this.#logEndOffset);
    this.#segments.push(next);
    this.#hasNewFiles = true;
    this.#deps.events.emit('segmentRolled', { partition: this.name, baseOffset: next.baseOffset });
  }

  /** Puts what waits into its file, in one gathered write. A failure takes the partition offline. */
  write(): void {
    if (this.#pending.length === 0 || this.#offlineReason !== null) return;
    const segment = this.#active;
    try {
      segment.log.writeNow(this.#pending, this.#pendingPosition);
    } catch (error) {
      this.#goOffline(`a write failed: ${(error as Error).message}`);
      return;
    }
    this.#pending = [];
    this.#unsynced.add(segment);
    this.#written = { offset: this.#logEndOffset, segment, position: segment.sizeInBytes };
  }

  /** After `write`: moves the durable end as `flush.mode` allows, and says whether a sync is due for that. */
  settleWritten(): 'settled' | 'sync' {
    if (this.#config.flushMode === 'sync')
      return this.#written.offset > this.#durable.offset ? 'sync' : 'settled';
    this.#moveDurableEnd(this.#written);
    const isDue =
      this.#config.flushMode === 'interval' && this.#unsyncedMessages >= this.#config.flushMessages;
    return isDue ? 'sync' : 'settled';
  }

  /** How long what was written may stay unsynced in the background; Infinity where only the broker's limits hold. */
  get flushMs(): number {
    return this.#config.flushMode === 'interval' ? this.#config.flushMs : Infinity;
  }

  /**
   * Syncs what has been written so far, on the pool. What is written meanwhile is the next group's.
   * A sync that fails is never tried again: the kernel may have dropped the pages and would now report success.
   */
  async sync(): Promise<void> {
    if (this.#isSyncing || this.#offlineReason !== null || this.#recoveryPoint === this.#written.offset)
      return;
    this.#isSyncing = true;
    const upTo = this.#written;
    const segments = [...this.#unsynced];
    const hasNewFiles = this.#hasNewFiles;
    this.#unsynced.clear();
    this.#hasNewFiles = false;
    this.#unsyncedBytes = 0;
    this.#unsyncedMessages = 0;
    try {
      await Promise.all(segments.map((segment) => segment.log.sync()));
      if (hasNewFiles) await this.#deps.fs.syncDirectory(this.directory);
    } catch (error) {
      this.#isSyncing = false;
      this.#goOffline(`a sync failed: ${(error as Error).message}`);
      return;
    }
    this.#isSyncing = false;
    if (this.#isClosed || this.#offlineReason !== null) return;
    this.#recoveryPoint = Math.max(this.#recoveryPoint, upTo.offset);
    this.#moveDurableEnd(upTo);
    if (this.#config.flushMode === 'sync' && this.#written.offset > upTo.offset) void this.sync();
  }

  #moveDurableEnd(end: End): void {
    if (end.offset <= this.#durable.offset) return;
    this.#durable = end;
    this.onDurable();
  }

  /**
   * Whole batches from the one that holds `offset`, out of one segment.
   *
   * @param maxBytes what may be returned; the last batch may be cut by it, as clients expect
   * @param limitOffset nothing at or past it is read
   * @param atLeastOne the first batch comes whole even when it is larger than `maxBytes`
   * @throws OffsetOutOfRange
   */
  read(offset: number, maxBytes: number, limitOffset: number, atLeastOne: boolean): LogRead {
    if (offset < this.#logStartOffset || offset > this.#logEndOffset)
      throw new OffsetOutOfRange(offset, this);
    const limit = Math.min(limitOffset, this.#durable.offset);
    for (let i = this.#floor(offset); i < this.#segments.length && offset < limit; i++) {
      const segment = this.#segments[i]!;
      const endPosition = this.#endPositionOf(segment, i, limit);
      const first = segment.find(offset, endPosition);
      // Nothing at or after the offset in this segment: compaction may have left a hole up to the next.
      if (first === null || first.baseOffset >= limit) continue;
      const wanted = atLeastOne ? Math.max(maxBytes, first.sizeInBytes) : maxBytes;
      if (wanted < first.sizeInBytes) return nothing;
      const size = Math.min(wanted, endPosition - first.position);
      return { spans: [new FileRegion(segment.log, first.position, size)], sizeInBytes: size };
    }
    return nothing;
  }

  /** Where in a segment the offsets below `limit` end. */
  #endPositionOf(segment: Segment, index: number, limit: number): number {
    const next = this.#segments[index + 1];
    if (next !== undefined && next.baseOffset <= limit) return segment.sizeInBytes;
    // The end that readers ask for again and again is known; any other is looked up.
    if (limit === this.#durable.offset && segment === this.#durable.segment) return this.#durable.position;
    const written = this.#writtenSize(segment);
    return segment.find(limit, written)?.position ?? written;
  }

  /** The first record at or after a time, decoding only the batch that holds it; null when there is none. */
  async offsetForTimestamp(timestamp: number): Promise<Found | null> {
    for (const segment of this.#segments.slice()) {
      const largest = segment.largestTimestamp;
      if (largest === null || largest.timestamp < timestamp) continue;
      const from = segment.timeIndex.lookup(timestamp - 1)?.offset ?? segment.baseOffset;
      for (const batch of segment.walk(segment.index.lookup(from), this.#writtenSize(segment))) {
        if (batch.maxTimestamp < timestamp || batch.lastOffset < this.#logStartOffset) continue;
        const record = decodeRecords(await segment.read(batch)).find(
          (each) => each.timestamp >= timestamp && each.offset >= this.#logStartOffset,
        );
        if (record !== undefined) return this.#found(record);
      }
    }
    return null;
  }

  /** The first record with the largest timestamp; null for an empty log. */
  async offsetOfMaxTimestamp(): Promise<Found | null> {
    let largest = -1;
    for (const segment of this.#segments)
      largest = Math.max(largest, segment.largestTimestamp?.timestamp ?? -1);
    return largest < 0 ? null : this.offsetForTimestamp(largest);
  }

  #found({ timestamp, offset }: TimeEntry): Found {
    return { timestamp, offset, leaderEpoch: this.#epochs.epochOf(offset) };
  }

  #writtenSize(segment: Segment): number {
    return segment === this.#active && this.#pending.length > 0 ? this.#pendingPosition : segment.sizeInBytes;
  }

  /** Index entries reach their files; at checkpoints, so that a restart has less to scan. */
  flushIndexes(): void {
    this.#active.index.file.flush();
    this.#active.timeIndex.file.flush();
  }

  /**
   * Everything to disk, then the files are let go.
   * @returns whether everything is on disk
   */
  async close(): Promise<boolean> {
    this.write();
    let isWhole = this.#offlineReason === null;
    if (isWhole) {
      try {
        this.#active.seal();
        await this.#syncAll();
      } catch (error) {
        isWhole = false;
        this.#goOffline(`a sync failed: ${(error as Error).message}`);
      }
    }
    this.abandon();
    return isWhole;
  }

  async #syncAll(): Promise<void> {
    const active = this.#active;
    await Promise.all([active.log.sync(), active.index.file.sync(), active.timeIndex.file.sync()]);
    for (const segment of this.#unsynced) await segment.log.sync();
    await this.#deps.fs.syncDirectory(this.directory);
    this.#recoveryPoint = this.#logEndOffset;
    this.#moveDurableEnd(this.#written);
  }

  /** Lets go of the files without a word: the partition is deleted. */
  abandon(): void {
    this.#isClosed = true;
    this.#offlineReason ??= 'the log is closed';
    for (const segment of this.#segments) segment.close();
  }

  get #active(): Segment {
    return this.#segments.at(-1)!;
  }

  /** The index of the segment in which an offset would be. */
  #floor(offset: number): number {
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2);
      if (this.#segments[middle]!.baseOffset <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #goOffline(reason: string): void {
    if (this.#offlineReason !== null) return;
    this.#offlineReason = reason;
    // What nobody was told of is as if it had never come: readers must not see it either.
    this.#pending = [];
    this.#deps.events.emit('partitionOffline', { partition: this.name, reason });
    this.onOffline();
  }

  // Recovery ---------------------------------------------------------------------------------------

  #recover(isMarked: boolean): void {
    const { damage, index, nextOffset, position, gapAt } = isMarked
      ? this.#skipToEnd()
      : this.#scanFromRecoveryPoint();
    const facts = {
      isMarked,
      isDamaged: damage !== null,
      hasGap: gapAt !== null,
      isBelowRecoveryPoint: nextOffset < this.#recoveryPoint,
    };
    const { action } = decide(facts);
    const segment = this.#segments[index]!;
    const reason = damage ?? `a segment begins at ${gapAt}`;
    if (action === 'truncate') this.#cutTail(index, position, nextOffset, reason);
    this.#logEndOffset = action === 'refuse' ? nextOffset : Math.max(nextOffset, this.#logStartOffset);
    this.#written = this.#durable = { offset: this.#logEndOffset, segment, position };
    if (action === 'refuse') {
      // The segments behind the damage stay on disk for the operator, but nobody reads past the hole.
      this.#segments = this.#segments.slice(0, index + 1);
      this.#goOffline(`damaged below the recovery point, at offset ${nextOffset}: ${reason}`);
    } else {
      this.#recoveryPoint = Math.min(this.#recoveryPoint, this.#logEndOffset);
      if (!isMarked) this.#makeDurable(segment);
    }
    this.#deps.events.emit('recovered', {
      partition: this.name,
      logEndOffset: this.#logEndOffset,
      wasClean: isMarked,
    });
  }

  /**
   * What a crash left above the recovery point may be in the page cache alone. In sync mode it must not be read
   * before it is on the platter; in the others the background sync gets to it.
   */
  #makeDurable(segment: Segment): void {
    this.#epochs.truncateTo(this.#logEndOffset + 1);
    if (this.#recoveryPoint === this.#logEndOffset) return;
    if (this.#config.flushMode === 'sync') {
      segment.log.syncNow();
      this.#recoveryPoint = this.#logEndOffset;
    } else {
      this.#unsynced.add(segment);
    }
  }

  /** After an orderly stop the last index entry leads to the end by a few headers. */
  #skipToEnd(): RecoveryScan {
    const index = this.#segments.length - 1;
    const segment = this.#active;
    const last = segment.index.last();
    let nextOffset = segment.baseOffset;
    let position = 0;
    for (const batch of segment.walk(last?.position ?? 0, segment.sizeInBytes)) {
      nextOffset = batch.lastOffset + 1;
      position = batch.position + batch.sizeInBytes;
    }
    return { index, nextOffset, position, damage: null, gapAt: null };
  }

  #scanFromRecoveryPoint(): RecoveryScan {
    let index = this.#floor(this.#recoveryPoint);
    let { position, expected } = this.#restart(this.#segments[index]!);
    for (; ; index++) {
      const segment = this.#segments[index]!;
      const scanned = scan(segment, position, expected, this.#config.indexIntervalBytes);
      const next = this.#segments[index + 1];
      const gapAt = next !== undefined && next.baseOffset !== scanned.nextOffset ? next.baseOffset : null;
      const isShort = next === undefined && scanned.nextOffset < this.#recoveryPoint;
      const damage = scanned.damage ?? (isShort ? 'the log ends before its recovery point' : null);
      if (damage !== null || gapAt !== null || next === undefined)
        return { index, ...scanned, damage, gapAt };
      segment.seal();
      next.restartIndexes(0);
      position = 0;
      expected = next.baseOffset;
    }
  }

  /**
   * Where in a segment to begin: at the last index entry below the recovery point, if it tells the truth,
   * else at the start. Entries above it are made again.
   */
  #restart(segment: Segment): { position: number; expected: number } {
    segment.restartIndexes(this.#recoveryPoint);
    const last = segment.index.last();
    if (last !== null) {
      const [batch] = segment.walk(last.position, segment.sizeInBytes);
      if (batch?.lastOffset === last.lastOffset)
        return { position: last.position, expected: batch.baseOffset };
      const { partition, file } = { partition: this.name, file: segment.index.file.path };
      this.#deps.events.emit('indexRebuilt', { partition, file, reason: 'it does not fit the log' });
    }
    segment.restartIndexes(0);
    return { position: 0, expected: segment.baseOffset };
  }

  #cutTail(index: number, position: number, nextOffset: number, reason: string): void {
    const [cut, ...later] = this.#segments.slice(index) as [Segment, ...Segment[]];
    let bytes = cut.log.size() - position;
    cut.truncate(position, nextOffset);
    for (const segment of later) {
      bytes += segment.sizeInBytes;
      segment.close();
      for (const path of [segment.path, segment.index.file.path, segment.timeIndex.file.path]) {
        if (this.#deps.fs.exists(path)) this.#deps.fs.remove(path);
      }
    }
    this.#segments = this.#segments.slice(0, index + 1);
    this.#deps.events.emit('tailTruncated', { partition: this.name, fromOffset: nextOffset, bytes, reason });
  }
}

interface RecoveryScan {
  /** The segment in which the scan ended. */
  readonly index: number;
  readonly nextOffset: number;
  readonly position: number;
  readonly damage: string | null;
  readonly gapAt: number | null;
}

function baseOffsets(fs: FileSystem, directory: string): number[] {
  return fs
    .list(directory)
    .filter((name) => name.endsWith(logSuffix) && /^\d{20}\.log$/.test(name))
    .map((name) => Number(name.slice(0, -logSuffix.length)))
    .filter((base) => segmentName(base).length === 20);
}
