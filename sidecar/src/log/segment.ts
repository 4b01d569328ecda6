import { batchHeaderSize, batchOverhead, RecordBatch } from '@rookery/wire';
import { assert } from '../invariant.ts';
import type { File, FileSystem } from '../vfs/file-system.ts';
import { readInt64 } from './int64.ts';
import { OffsetIndex, type OffsetEntry } from './offset-index.ts';
import { snapshotPath } from './producer-snapshot.ts';
import type { IndexState } from './recovery.ts';
import { TimeIndex, type TimeEntry } from './time-index.ts';
import { TransactionIndex } from './transaction-index.ts';

export const logSuffix = '.log';
export const indexSuffix = '.index';
export const timeIndexSuffix = '.timeindex';
export const transactionIndexSuffix = '.txnindex';

/** Kafka's name of a segment's files: the base offset in 20 digits. */
export const segmentName = (baseOffset: number): string => String(baseOffset).padStart(20, '0');

/** Where a batch stands in its segment. */
export interface BatchPosition {
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly position: number;
  readonly sizeInBytes: number;
  readonly maxTimestamp: number;
}

/** The same, of a batch whose header was just read. */
export interface WalkedBatch extends BatchPosition {
  readonly leaderEpoch: number;
}

/** How much is read at once while walking from batch to batch. */
const walkBytes = 4096;
/** A log of more bytes has index entries, whatever the interval. */
export const unindexedBytesMax = 1024 * 1024;
/** How many entries of an index that lies are tried before the batches are walked from the first on. */
const triesMax = 32;

/** The files of one base offset: `.log` and its indexes. Opens them when they are first needed. */
export class Segment {
  readonly baseOffset: number;
  index: OffsetIndex;
  timeIndex: TimeIndex;
  transactions: TransactionIndex;
  readonly #directory: string;
  readonly #fs: FileSystem;
  #suffix: string;
  #log: File | null = null;
  /** Bytes of whole batches, those that wait to be written included. */
  sizeInBytes: number;
  /** The largest timestamp of any record so far, and the last offset of its batch; null when none is known. */
  #largest: TimeEntry | null = null;
  /** When the segment got its first batch, by the broker's clock; null when another process wrote it. */
  firstAppendMs: number | null = null;
  #sinceIndexEntry = 0;
  #isClosed = false;
  /** The time index was written by another process, and nothing of it has been checked. */
  #isTimeUnchecked = true;
  #isIndexLying = false;
  readonly #mode: 'read' | 'create';

  /**
   * @param suffix behind the name of each file, while they are not the log's yet
   * @param mode of who only reads; a file that has gone is not made again for it
   */
  constructor(
    fs: FileSystem,
    directory: string,
    baseOffset: number,
    suffix = '',
    mode: 'read' | 'create' = 'create',
  ) {
    this.#mode = mode;
    const name = `${directory}/${segmentName(baseOffset)}`;
    this.#fs = fs;
    this.#directory = directory;
    this.#suffix = suffix;
    this.baseOffset = baseOffset;
    this.index = new OffsetIndex(fs, name + indexSuffix + suffix, baseOffset);
    this.timeIndex = new TimeIndex(fs, name + timeIndexSuffix + suffix, baseOffset);
    this.transactions = new TransactionIndex(fs, name + transactionIndexSuffix + suffix);
    this.sizeInBytes = fs.exists(this.path) ? fs.size(this.path) : 0;
  }

  get path(): string {
    return `${this.#directory}/${segmentName(this.baseOffset)}${logSuffix}${this.#suffix}`;
  }

  /** Base offsets of the segments in a directory, ascending. */
  static basesIn(fs: FileSystem, directory: string): number[] {
    return fs
      .list(directory)
      .filter((name) => name.length === 24 && name.endsWith(logSuffix) && /^\d{20}\./.test(name))
      .map((name) => Number(name.slice(0, -logSuffix.length)));
  }

  /** Gives every file another suffix, the log last: whoever finds it finds the others. Open files stay open. */
  rename(suffix: string): void {
    const from = this.#files;
    for (const { file } of [this.index, this.timeIndex, this.transactions])
      file.path = file.path.slice(0, file.path.length - this.#suffix.length) + suffix;
    this.#suffix = suffix;
    const to = this.#files;
    from.forEach((path, i) => {
      if (this.#fs.exists(path)) this.#fs.rename(path, to[i]!);
    });
  }

  /** Its files are let go for good: they may be gone, or another segment's. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  get log(): File {
    assert(!this.#isClosed, `${this.path} is closed`);
    this.#log ??= this.#fs.open(this.path, this.#mode);
    return this.#log;
  }

  /** Every file of the segment, the snapshot of its beginning among them. */
  get paths(): readonly string[] {
    return [...this.#files, snapshotPath(this.#directory, this.baseOffset)];
  }

  /** Indexes first. */
  get #files(): readonly string[] {
    const indexes = [this.index, this.timeIndex, this.transactions].map(({ file }) => file.path);
    return [...indexes, this.path];
  }

  /**
   * The largest timestamp. For a segment that was not written by this process its last entry in the time index
   * tells, once what it says is found in the log: retention deletes by it.
   */
  get largestTimestamp(): TimeEntry | null {
    if (this.#isTimeUnchecked) {
      this.#isTimeUnchecked = false;
      this.#largest = this.#checkedLargest();
    }
    return this.#largest;
  }

  #checkedLargest(): TimeEntry | null {
    let largest = this.timeIndex.last();
    if (largest !== null && !this.#isTrueTime(largest)) {
      largest = null;
      this.#isIndexLying = true;
    }
    // What came after the last entry was noted in memory alone, or its entries were lost.
    const from = largest === null ? 0 : this.#startFor(largest.offset);
    for (const { maxTimestamp, lastOffset } of this.walk(from, this.sizeInBytes)) {
      if (maxTimestamp > (largest?.timestamp ?? -1))
        largest = { timestamp: maxTimestamp, offset: lastOffset };
    }
    return largest;
  }

  /** The last entry that is not younger than `timestamp`, if the log agrees; null when there is none. */
  lookupTime(timestamp: number): TimeEntry | null {
    const entry = this.timeIndex.lookup(timestamp);
    if (entry === null || this.#isTrueTime(entry)) return entry;
    this.#isIndexLying = true;
    return null;
  }

  /** Whether a batch ends at the offset of an entry, and has its time. */
  #isTrueTime({ timestamp, offset }: TimeEntry): boolean {
    if (offset < this.baseOffset) return false;
    const batch = this.find(offset, this.sizeInBytes);
    // Some versions of Kafka name the record, others the last one of its batch.
    return batch !== null && batch.baseOffset <= offset && batch.maxTimestamp === timestamp;
  }

  /** A lookup has met an entry that does not fit the log: the indexes are to be made again. */
  get hasLyingIndex(): boolean {
    return this.#isIndexLying;
  }

  /** The same, said by whoever knows more of the log. */
  distrustIndexes(): void {
    this.#isIndexLying = true;
  }

  /** The index files that were made beside those of this segment take their place. */
  takeIndexes(made: Segment): void {
    const files = ({ index, timeIndex, transactions }: Segment) =>
      [index, timeIndex, transactions].map(({ file }) => file);
    const [from, to] = [files(made), files(this)];
    made.rest();
    for (const [i, { path }] of to.entries()) {
      to[i]!.close();
      // Where nothing was aborted there is no file.
      if (this.#fs.exists(from[i]!.path)) this.#fs.rename(from[i]!.path, path);
      else if (this.#fs.exists(path)) this.#fs.remove(path);
    }
    const [index, timeIndex, transactions] = to.map(({ path }) => path) as [string, string, string];
    this.index = new OffsetIndex(this.#fs, index, this.baseOffset);
    this.timeIndex = new TimeIndex(this.#fs, timeIndex, this.baseOffset);
    this.transactions = new TransactionIndex(this.#fs, transactions);
    this.#largest = made.largestTimestamp;
    this.#isTimeUnchecked = false;
    this.#isIndexLying = false;
  }

  /** The header of the batch that begins at an offset; null when none does. */
  headerAt(offset: number): RecordBatch | null {
    const place = this.find(offset, this.sizeInBytes);
    if (place?.baseOffset !== offset) return null;
    for (const { batch } of this.headers(place.position, this.sizeInBytes)) return batch;
    return null;
  }

  /** What the indexes look like, as far as their last entries tell. */
  indexState(): IndexState {
    const { index, timeIndex, sizeInBytes } = this;
    if (sizeInBytes === 0) return index.file.count === 0 ? 'fitting' : 'lying';
    if (!index.file.isThere || !timeIndex.file.isThere) return 'missing';
    const last = index.last();
    if (last === null) return sizeInBytes > unindexedBytesMax ? 'empty' : 'fitting';
    const before = index.at(index.file.count - 2);
    const isRising =
      before === null || (before.lastOffset < last.lastOffset && before.position < last.position);
    if (!isRising || !this.#isTrue(last, sizeInBytes)) return 'lying';
    const time = timeIndex.last();
    return time === null || this.#isTrueTime(time) ? 'fitting' : 'lying';
  }

  #isTrue({ lastOffset, position }: OffsetEntry, endPosition: number): boolean {
    if (position < 0 || position + batchHeaderSize > endPosition) return false;
    const header = Buffer.allocUnsafe(batchHeaderSize);
    if (this.log.readNow(header, position) < header.length || !isHeader(header, 0)) return false;
    const base = readInt64(header, 0);
    return base >= this.baseOffset && base + header.readInt32BE(lastOffsetDeltaAt) === lastOffset;
  }

  /**
   * Where a batch begins from which on the offset is to be looked for. An index has no checksum, so an entry
   * counts only when the batch is there of which it speaks; a lying one costs time and nothing else.
   */
  #startFor(offset: number, endPosition = this.sizeInBytes): number {
    let at = this.index.floor(offset);
    for (let tries = 0; at >= 0 && tries < triesMax; at--, tries++) {
      const entry = this.index.at(at)!;
      if (entry.lastOffset <= offset && this.#isTrue(entry, endPosition)) return entry.position;
      // A reader's end may lie before the entry; what is written tells whether it is true.
      if (entry.position < endPosition) this.#isIndexLying = true;
    }
    return 0;
  }

  /** Makes the file before there is something to put in it. */
  create(): void {
    void this.log;
  }

  /** From when on `segment.ms` counts: a segment of another process began with its first batch's time. */
  get beganMs(): number {
    if (this.firstAppendMs === null) {
      const [first] = this.walk(0, this.sizeInBytes);
      const timestamp = first?.maxTimestamp ?? -1;
      this.firstAppendMs = timestamp >= 0 ? timestamp : this.#fs.modifiedMs(this.path);
    }
    return this.firstAppendMs;
  }

  /**
   * The time of the youngest record, or of the last write where records have none. Infinity as long as nothing has
   * reached the file: there is none yet.
   */
  get youngestMs(): number {
    const { largestTimestamp, path } = this;
    if (largestTimestamp !== null) return largestTimestamp.timestamp;
    return this.#fs.exists(path) ? this.#fs.modifiedMs(path) : Infinity;
  }

  /** Takes note of a batch that will stand at `position`: both indexes learn of it every so many bytes. */
  note(batch: RecordBatch, position: number, indexIntervalBytes: number): void {
    const { lastOffset, maxTimestamp } = batch;
    // What reads a file comes first: where that fails, the batch has left no trace.
    const before = this.largestTimestamp;
    // A batch without times has -1, and says nothing of how old the segment is.
    const isLarger = maxTimestamp > (before?.timestamp ?? -1);
    const largest = isLarger ? { timestamp: maxTimestamp, offset: lastOffset } : before;
    if (this.#sinceIndexEntry > indexIntervalBytes) {
      if (largest !== null) this.timeIndex.maybeAppend(largest);
      this.index.append(lastOffset, position);
      this.#sinceIndexEntry = 0;
    }
    this.#largest = largest;
    this.#sinceIndexEntry += batch.sizeInBytes;
    this.sizeInBytes = position + batch.sizeInBytes;
  }

  /** The batch that holds the offset, or the first one after it; null when the segment ends before. */
  find(offset: number, endPosition: number): BatchPosition | null {
    for (const batch of this.walk(this.#startFor(offset, endPosition), endPosition))
      if (batch.lastOffset >= offset) return batch;
    return null;
  }

  /** Where a batch begins that is at or before the one with the offset. */
  startFor(offset: number): number {
    return this.#startFor(offset);
  }

  /** The offset after the last batch before a place, which is where a batch begins, or the end. */
  endBefore({ offset, position }: { readonly offset: number; readonly position: number }): number {
    let end = this.baseOffset;
    for (const { lastOffset } of this.walk(this.#startFor(offset - 1, position), position))
      end = lastOffset + 1;
    return end;
  }

  /** Batches from a position at which one begins, by their headers alone. */
  *walk(from: number, endPosition: number): Generator<WalkedBatch> {
    for (const { window, at, position, sizeInBytes } of this.#headersIn(from, endPosition)) {
      const baseOffset = readInt64(window, at);
      yield {
        baseOffset,
        lastOffset: baseOffset + window.readInt32BE(at + 23),
        position,
        sizeInBytes,
        maxTimestamp: readInt64(window, at + 35),
        leaderEpoch: window.readInt32BE(at + 12),
      };
    }
  }

  /** The same as views, each good until the next one is asked for: their records are not there. */
  *headers(from: number, endPosition: number): Generator<{ batch: RecordBatch; position: number }> {
    for (const { window, at, position } of this.#headersIn(from, endPosition))
      yield { batch: RecordBatch.header(window, at), position };
  }

  *#headersIn(from: number, endPosition: number): Generator<HeaderInWindow> {
    // Made when there is something to read, and no larger than that: a start walks through thousands of small logs.
    let window: Buffer | null = null;
    let windowStart = 0;
    let windowSize = 0;
    for (let position = from; position + batchHeaderSize <= endPosition;) {
      if (
        window === null ||
        position < windowStart ||
        position + batchHeaderSize > windowStart + windowSize
      ) {
        windowStart = position;
        window ??= Buffer.allocUnsafe(Math.min(walkBytes, endPosition - position));
        windowSize = this.log.readNow(window, position);
        if (windowSize < batchHeaderSize) return;
      }
      const at = position - windowStart;
      const sizeInBytes = batchOverhead + window.readInt32BE(at + 8);
      if (!isHeader(window, at) || position + sizeInBytes > endPosition) return;
      yield { window, at, position, sizeInBytes };
      position += sizeInBytes;
    }
  }

  /** One whole batch, on the loop: for what is small and rare. */
  readNow(position: number, sizeInBytes: number): RecordBatch {
    const bytes = Buffer.allocUnsafe(sizeInBytes);
    this.log.readNow(bytes, position);
    return RecordBatch.split([bytes])[0]!;
  }

  /** One batch with its records. */
  async read({ position, sizeInBytes }: BatchPosition): Promise<RecordBatch> {
    const bytes = Buffer.allocUnsafe(sizeInBytes);
    await this.log.read(bytes, position);
    return RecordBatch.split([bytes])[0]!;
  }

  /** The segment takes no more batches: the time index gets its last word, so that time lookups need no scan. */
  seal(): void {
    const largest = this.largestTimestamp;
    if (largest !== null) this.timeIndex.maybeAppend(largest);
  }

  /**
   * Index entries reach their files. Times come first: a scan that begins at an offset entry relies on the time
   * index for everything before it, also when a kill comes between the two.
   */
  flushIndexes(): void {
    this.timeIndex.file.flush();
    this.index.file.flush();
    this.transactions.file.flush();
  }

  /** The indexes on the platter, made if there was nothing to put in them; but that of no transactions. */
  async syncIndexes(): Promise<void> {
    const { index, timeIndex, transactions } = this;
    if (this.#isClosed) return;
    await Promise.all([timeIndex.file.sync(), index.file.sync()]);
    if (transactions.file.count > 0 && !this.#isClosed) await transactions.file.sync();
  }

  /** All of the segment on the platter, before the loop turns. */
  syncNow(): void {
    const { index, timeIndex, transactions } = this;
    this.log.syncNow();
    timeIndex.file.syncNow();
    index.file.syncNow();
    if (transactions.file.count > 0) transactions.file.syncNow();
  }

  /** Cuts the segment after a batch boundary. */
  truncate(position: number, nextOffset: number): void {
    // Where there was no room for the file there is nothing to cut, nor room to make it for that.
    if (this.#fs.exists(this.path) && this.log.size() > position) this.log.truncateNow(position);
    this.sizeInBytes = position;
    this.restartIndexes(nextOffset);
    // The largest timestamp since the last index entry is known from the batches alone.
    const from = this.index.last()?.position ?? 0;
    for (const { maxTimestamp, lastOffset } of this.walk(from, position)) {
      if (maxTimestamp > (this.#largest?.timestamp ?? -1))
        this.#largest = { timestamp: maxTimestamp, offset: lastOffset };
    }
  }

  /** Forgets the indexes from an offset on, to be noted again by a scan. */
  restartIndexes(fromOffset: number): void {
    if (fromOffset <= this.baseOffset) {
      // Not by comparing: what stands in the files may be anything.
      for (const { file } of [this.index, this.timeIndex, this.transactions]) file.truncate(0);
    } else {
      this.index.truncateTo(fromOffset);
      this.timeIndex.truncateTo(fromOffset);
      this.transactions.truncateTo(fromOffset);
    }
    this.#largest = this.timeIndex.last();
    this.#isTimeUnchecked = false;
    this.#sinceIndexEntry = 0;
  }

  /** Lets go of the open files, until somebody needs them. */
  rest(): void {
    this.#log?.release();
    this.#log = null;
    for (const { file } of [this.index, this.timeIndex, this.transactions]) file.close();
  }

  /** Closes the segment and deletes its files. */
  remove(): void {
    this.close();
    for (const path of this.#suffix === '' ? this.paths : this.#files)
      if (this.#fs.exists(path)) this.#fs.remove(path);
  }

  close(): void {
    this.#isClosed = true;
    this.rest();
  }
}

/** A batch's header in the piece of the file that was read last. */
interface HeaderInWindow {
  readonly window: Buffer;
  readonly at: number;
  readonly position: number;
  readonly sizeInBytes: number;
}

/** Whether the bytes can be a batch's header: a walk ends where they cannot. */
const isHeader = (bytes: Buffer, at: number): boolean =>
  bytes[at + magicAt] === 2 &&
  bytes.readInt32BE(at + 8) >= batchHeaderSize - batchOverhead &&
  bytes.readUInt32BE(at) <= highestHalf &&
  bytes.readInt32BE(at + lastOffsetDeltaAt) >= 0;

/** The upper half of the largest offset that a number holds exactly. */
const highestHalf = 0x1fffff;
const magicAt = 16;
const lastOffsetDeltaAt = 23;
