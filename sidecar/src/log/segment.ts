import { batchHeaderSize, batchOverhead, RecordBatch, safe } from '@rookery/wire';
import { assert } from '../invariant.ts';
import type { File, FileSystem } from '../vfs/file-system.ts';
import { OffsetIndex } from './offset-index.ts';
import { snapshotPath } from './producer-snapshot.ts';
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

/** How much is read at once while walking from batch to batch. */
const walkBytes = 4096;

/** The files of one base offset: `.log` and its indexes. Opens them when they are first needed. */
export class Segment {
  readonly baseOffset: number;
  readonly index: OffsetIndex;
  readonly timeIndex: TimeIndex;
  readonly transactions: TransactionIndex;
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

  /** @param suffix behind the name of each file, while they are not the log's yet */
  constructor(fs: FileSystem, directory: string, baseOffset: number, suffix = '') {
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
    this.#log ??= this.#fs.open(this.path, 'create');
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

  /** The largest timestamp; read from the time index for a segment that was not written by this process. */
  get largestTimestamp(): TimeEntry | null {
    return this.#largest ?? this.timeIndex.last();
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

  /** The time of the youngest record, or of the last write where records have none. */
  get youngestMs(): number {
    return this.largestTimestamp?.timestamp ?? this.#fs.modifiedMs(this.path);
  }

  /** Takes note of a batch that will stand at `position`: both indexes learn of it every so many bytes. */
  note(batch: RecordBatch, position: number, indexIntervalBytes: number): void {
    const { lastOffset, maxTimestamp } = batch;
    const largest = this.largestTimestamp;
    if (largest === null || maxTimestamp > largest.timestamp) {
      this.#largest = { timestamp: maxTimestamp, offset: lastOffset };
    } else {
      this.#largest ??= largest;
    }
    if (this.#sinceIndexEntry > indexIntervalBytes) {
      this.index.append(lastOffset, position);
      this.timeIndex.maybeAppend(this.#largest!);
      this.#sinceIndexEntry = 0;
    }
    this.#sinceIndexEntry += batch.sizeInBytes;
    this.sizeInBytes = position + batch.sizeInBytes;
  }

  /** The batch that holds the offset, or the first one after it; null when the segment ends before. */
  find(offset: number, endPosition: number): BatchPosition | null {
    for (const batch of this.walk(this.index.lookup(offset), endPosition))
      if (batch.lastOffset >= offset) return batch;
    return null;
  }

  /** Batches from a position at which one begins, by their headers alone. */
  *walk(from: number, endPosition: number): Generator<BatchPosition> {
    for (const { window, at, position, sizeInBytes } of this.#headersIn(from, endPosition)) {
      const baseOffset = int64(window, at);
      yield {
        baseOffset,
        lastOffset: baseOffset + window.readInt32BE(at + 23),
        position,
        sizeInBytes,
        maxTimestamp: int64(window, at + 35),
      };
    }
  }

  /** The same as views, each good until the next one is asked for: their records are not there. */
  *headers(from: number, endPosition: number): Generator<{ batch: RecordBatch; position: number }> {
    for (const { window, at, position } of this.#headersIn(from, endPosition))
      yield { batch: RecordBatch.header(window, at), position };
  }

  *#headersIn(from: number, endPosition: number): Generator<HeaderInWindow> {
    const window = Buffer.allocUnsafe(walkBytes);
    let windowStart = 0;
    let windowSize = 0;
    for (let position = from; position + batchHeaderSize <= endPosition;) {
      if (position < windowStart || position + batchHeaderSize > windowStart + windowSize) {
        windowStart = position;
        windowSize = this.log.readNow(window, position);
        if (windowSize < batchHeaderSize) return;
      }
      const at = position - windowStart;
      const sizeInBytes = Math.max(batchHeaderSize, batchOverhead + window.readInt32BE(at + 8));
      if (position + sizeInBytes > endPosition) return;
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
    if (this.log.size() > position) this.log.truncateNow(position);
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
    this.#sinceIndexEntry = 0;
  }

  /** Closes the segment and deletes its files. */
  remove(): void {
    this.close();
    for (const path of this.#suffix === '' ? this.paths : this.#files)
      if (this.#fs.exists(path)) this.#fs.remove(path);
  }

  close(): void {
    this.#isClosed = true;
    this.#log?.release();
    this.#log = null;
    this.index.file.close();
    this.timeIndex.file.close();
    this.transactions.file.close();
  }
}

/** A batch's header in the piece of the file that was read last. */
interface HeaderInWindow {
  readonly window: Buffer;
  readonly at: number;
  readonly position: number;
  readonly sizeInBytes: number;
}

const int64 = (bytes: Buffer, at: number): number => safe(bytes.readInt32BE(at), bytes.readUInt32BE(at + 4));
