import type { ByteSpan, RecordBatch } from '@rookery/wire';
import { eachRecord } from '@rookery/wire';
import { FileRegion } from '../vfs/file-region.ts';
import type { Durability } from './durability.ts';
import type { LeaderEpochs } from './leader-epochs.ts';
import { OffsetOrder } from './offset-order.ts';
import { sayRot, type Rot } from './rot.ts';
import type { SegmentList } from './segment-list.ts';
import { scan } from './segment-scan.ts';
import type { BatchPosition, Segment } from './segment.ts';
import type { Tail } from './tail-cache.ts';
import type { TimeEntry } from './time-index.ts';
import type { AbortedTransaction } from './transaction-index.ts';

/** The offset asked for is before the log's start or after its end. */
export class OffsetOutOfRange extends Error {
  constructor(offset: number, log: Pick<ReadableLog, 'name' | 'logStartOffset' | 'logEndOffset'>) {
    super(`${log.name} holds ${log.logStartOffset} to ${log.logEndOffset}, not ${offset}`);
    this.name = 'OffsetOutOfRange';
  }
}

/** The offset is at or after bytes that are not what was written: they are not served. */
export class Quarantined extends Error {
  constructor(name: string, rot: Rot) {
    super(`${name} is ${sayRot(rot)}`);
    this.name = 'Quarantined';
  }
}

/** What was aborted cannot be told until an index is made again. */
export class IndexLies extends Error {
  constructor(name: string, segment: Segment) {
    super(`${name}: ${segment.transactions.file.path} is not what was written, and is made again`);
    this.name = 'IndexLies';
  }
}

export interface LogRead {
  readonly spans: readonly ByteSpan[];
  readonly sizeInBytes: number;
}

export interface Found extends TimeEntry {
  readonly leaderEpoch: number;
}

/** What of a log its readers see, whatever moves. */
export interface ReadableLog {
  readonly name: string;
  readonly logStartOffset: number;
  readonly logEndOffset: number;
  /** Where bytes are not what was written; null when nobody has seen any such. */
  readonly rot: Rot | null;
  /** Offsets may be missing in the middle, because it was compacted. */
  readonly mayHaveHoles: boolean;
  /** Up to here they may be, and that is no damage. */
  readonly holesUpTo: number;
  condemn(rot: Rot): void;
  /** Indexes do not say what the log says: they are to be made again. */
  mend(): Promise<void>;
}

/** What it is made of, that stays the same. */
export interface LogParts {
  readonly segments: SegmentList;
  readonly durability: Durability;
  readonly tail: Tail;
  readonly epochs: LeaderEpochs;
}

const nothing: LogRead = { spans: [], sizeInBytes: 0 };

/**
 * Finds what readers ask for: batches by offset, records by time, the transactions that were aborted among them.
 * It never goes past what is durable, nor up to bytes that have rotted.
 */
export class LogReader {
  readonly #log: ReadableLog;
  readonly #parts: LogParts;

  constructor(log: ReadableLog, parts: LogParts) {
    this.#log = log;
    this.#parts = parts;
  }

  /**
   * Whole batches from the one that holds `offset`, out of one segment.
   *
   * @param maxBytes what may be returned; the last batch may be cut by it, as clients expect
   * @param limitOffset nothing at or past it is read
   * @param atLeastOne the first batch comes whole even when it is larger than `maxBytes`
   * @throws OffsetOutOfRange, Quarantined
   */
  read(offset: number, maxBytes: number, limitOffset: number, atLeastOne: boolean): LogRead {
    if (offset < this.#log.logStartOffset || offset > this.#log.logEndOffset)
      throw new OffsetOutOfRange(offset, this.#log);
    if (this.#log.rot !== null && offset >= this.#log.rot.offset)
      throw new Quarantined(this.#log.name, this.#log.rot);
    const limit = Math.min(limitOffset, this.#readable.offset);
    if (offset >= limit) this.#parts.tail.reachedEnd();
    const index = this.#parts.segments.floor(offset);
    for (let i = index; i < this.#parts.segments.length && offset < limit; i++) {
      const segment = this.#parts.segments.at(i)!;
      const endPosition = this.#endPositionOf(segment, i, limit);
      const first = this.#find(segment, offset, endPosition);
      // Unless it was compacted, the segment has a batch for every offset: one that is not found says another one.
      const isThere = first === null ? endPosition < segment.sizeInBytes : first.baseOffset <= offset;
      if (!isThere && i === index && !this.#log.mayHaveHoles) this.#condemnBefore(offset, segment);
      // Nothing at or after the offset in this segment: compaction may have left a hole up to the next.
      if (first === null || first.baseOffset >= limit) continue;
      const wanted = atLeastOne ? Math.max(maxBytes, first.sizeInBytes) : maxBytes;
      if (wanted < first.sizeInBytes) return nothing;
      const size = Math.min(wanted, endPosition - first.position);
      const inMemory = this.#parts.tail.read(segment, first.position, size);
      if (segment === this.#parts.segments.active && first.position + size === endPosition)
        this.#parts.tail.reachedEnd();
      return {
        spans: [new FileRegion(segment.log, first.position, size, inMemory)],
        sizeInBytes: size,
      };
    }
    return nothing;
  }

  /** Takes the log out of service where its offsets stop to follow one another, before one that has no batch. */
  #condemnBefore(offset: number, segment: Segment): never {
    const from = segment.startFor(offset - 1);
    let place = { offset: segment.baseOffset, position: from };
    for (const { lastOffset, position, sizeInBytes } of this.#inOrder(segment, from, segment.sizeInBytes))
      place = { offset: lastOffset + 1, position: position + sizeInBytes };
    this.#condemn({ segment: segment.baseOffset, ...place, reason: 'no batch begins there' });
  }

  /** Batches from where one begins, by their headers, as long as their offsets follow one another. @throws Quarantined */
  *#inOrder(segment: Segment, from: number, end: number): Generator<BatchPosition> {
    const { holesUpTo } = this.#log;
    let order: OffsetOrder | null = null;
    for (const batch of segment.walk(from, end)) {
      // Where an index entry leads, it agrees with the batch on the offset, so both are believed.
      const expected = from === 0 ? segment.baseOffset : batch.baseOffset;
      order ??= new OffsetOrder({ expected, holesUpTo });
      const misplaced = order.take({ ...batch, nextOffset: batch.lastOffset + 1 }, batch.position);
      if (misplaced !== null) {
        const { offset, position, problem: reason } = misplaced;
        this.#condemn({ segment: segment.baseOffset, offset, position, reason });
      }
      yield batch;
    }
  }

  #condemn(rot: Rot): never {
    this.#log.condemn(rot);
    throw new Quarantined(this.#log.name, rot);
  }

  /** The batch of a segment that holds the offset, or the first one after it, below `endPosition`. */
  #find(segment: Segment, offset: number, endPosition: number): BatchPosition | null {
    const recent = this.#parts.tail.find(segment, offset);
    if (recent === null) return segment.find(offset, endPosition);
    return recent.position + recent.sizeInBytes <= endPosition ? recent : null;
  }

  /** Where in a segment the offsets below `limit` end. */
  #endPositionOf(segment: Segment, index: number, limit: number): number {
    const next = this.#parts.segments.at(index + 1);
    if (next !== undefined && next.baseOffset <= limit) return segment.sizeInBytes;
    // The end that readers ask for again and again is known; any other is looked up.
    const { offset, segmentBase, position } = this.#readable;
    if (limit === offset && segment.baseOffset === segmentBase) return position;
    const written = this.#parts.durability.writtenSizeOf(segment);
    return this.#find(segment, limit, written)?.position ?? written;
  }

  /** Where what may be read ends: with what is durable, or before rot. */
  get #readable(): { readonly offset: number; readonly segmentBase: number; readonly position: number } {
    const { offset, segment, position } = this.#parts.durability.durable;
    const rot = this.#log.rot;
    if (rot !== null && rot.offset < offset)
      return { offset: rot.offset, segmentBase: rot.segment, position: rot.position };
    return { offset, segmentBase: segment.baseOffset, position };
  }

  /**
   * Aborted transactions with records between two offsets, the second one exclusive. Their index has no checksum, and
   * a reader would drop whatever it names, so an entry counts only when the log has the transaction.
   *
   * @throws IndexLies
   */
  abortedTransactions(from: number, upTo: number): AbortedTransaction[] {
    const aborted: AbortedTransaction[] = [];
    const { segments } = this.#parts;
    for (let i = segments.floor(from); i < segments.length; i++) {
      const segment = segments.at(i)!;
      let marker = segment.baseOffset - 1;
      for (const transaction of segment.transactions.all()) {
        if (transaction === null || transaction.lastOffset <= marker) this.#distrust(segment);
        marker = transaction.lastOffset;
        if (transaction.lastOffset >= from && transaction.firstOffset < upTo) {
          if (!this.#has(transaction, segment)) this.#distrust(segment);
          aborted.push(transaction);
        }
        // Whoever reads below the last stable offset of that moment meets no transaction that ended later.
        if (transaction.lastStableOffset >= upTo) return aborted;
      }
    }
    return aborted;
  }

  /** Whether the log has the two ends of a transaction, as far as neither was deleted or compacted. */
  #has({ producerId, firstOffset, lastOffset }: AbortedTransaction, segment: Segment): boolean {
    const { segments } = this.#parts;
    const { mayHaveHoles } = this.#log;
    const marker = segment.headerAt(lastOffset);
    const first = segments.at(segments.floor(firstOffset))!.headerAt(firstOffset);
    const isGone = mayHaveHoles || firstOffset < segments.at(0)!.baseOffset;
    const hasMarker = marker === null ? mayHaveHoles : marker.isControl && marker.producerId === producerId;
    const hasFirst = first === null ? isGone : first.isTransactional && first.producerId === producerId;
    return hasMarker && hasFirst;
  }

  #distrust(segment: Segment): never {
    segment.distrustIndexes();
    void this.#log.mend();
    throw new IndexLies(this.#log.name, segment);
  }

  /**
   * The first record at or after a time, decoding only the batch that holds it; null when there is none.
   * @throws Quarantined where the answer may lie behind rot
   */
  async offsetForTimestamp(timestamp: number): Promise<Found | null> {
    for (const segment of this.#parts.segments.all()) {
      if (segment.isClosed) continue;
      const { offset: limit, segmentBase, position } = this.#readable;
      if (segment.baseOffset >= limit) break;
      const largest = segment.largestTimestamp;
      if (largest === null || largest.timestamp < timestamp) continue;
      const from = segment.lookupTime(timestamp - 1)?.offset ?? segment.baseOffset;
      const end =
        segment.baseOffset === segmentBase ? position : this.#parts.durability.writtenSizeOf(segment);
      for (const batch of this.#inOrder(segment, segment.startFor(from), end)) {
        if (batch.maxTimestamp < timestamp || batch.lastOffset < this.#log.logStartOffset) continue;
        // One by one: a compressed batch of some kilobytes can hold millions of records.
        for (const record of eachRecord(await this.#checked(segment, batch))) {
          if (record.timestamp >= timestamp && record.offset >= this.#log.logStartOffset)
            return this.#found(record);
        }
        // It may have been deleted while its bytes were read.
        if (segment.isClosed) break;
      }
    }
    if (this.#log.rot !== null) throw new Quarantined(this.#log.name, this.#log.rot);
    return null;
  }

  /** A batch with its records, as it was written. @throws Quarantined */
  async #checked(segment: Segment, place: BatchPosition): Promise<RecordBatch> {
    const batch = await segment.read(place);
    if (batch.checkCrc()) return batch;
    const { baseOffset: offset, position } = place;
    const rot = { segment: segment.baseOffset, position, offset, reason: 'a batch fails its CRC' };
    if (!segment.isClosed) this.#log.condemn(rot);
    throw new Quarantined(this.#log.name, this.#log.rot ?? rot);
  }

  /**
   * Every batch below an offset, checked: for who takes them for the truth about something else. Read on the pool, a
   * piece at a time.
   * @throws Quarantined where one is not what was written
   */
  async readChecked(endOffset: number, take: (batch: RecordBatch) => void): Promise<void> {
    const { segments, durability } = this.#parts;
    let offset = this.#log.logStartOffset;
    while (offset < endOffset) {
      const { name, rot, holesUpTo } = this.#log;
      if (rot !== null) throw new Quarantined(name, rot);
      const index = segments.floor(offset);
      const segment = segments.at(index)!;
      const limit = segments.at(index + 1)?.baseOffset;
      const { baseOffset: expected } = segment;
      const until = durability.writtenSizeOf(segment);
      const from = offset;
      let read: RecordBatch[] = [];
      const note = (batch: RecordBatch): void => {
        if (batch.lastOffset >= from && batch.baseOffset < endOffset) read.push(batch);
      };
      const scanned = await scan(
        segment.log,
        { from: 0, expected, until, holesUpTo, limit, note },
        async () => {
          for (const batch of read) take(batch);
          read = [];
          return true;
        },
      );
      const { position, nextOffset, damage: reason } = scanned!;
      if (reason !== null) this.#condemn({ segment: expected, position, offset: nextOffset, reason });
      // Compaction may have put another one in its place meanwhile, but not before this offset.
      offset = limit ?? endOffset;
    }
  }

  /**
   * The first record with the largest timestamp; null for an empty log.
   * @throws Quarantined where the answer may lie behind rot
   */
  async offsetOfMaxTimestamp(): Promise<Found | null> {
    const [first, ...rest] = this.#parts.segments.all();
    const largestOfRest = largestIn(rest);
    const largest = Math.max(largestOfRest, largestIn([first!]));
    if (largest < 0) return null;
    const found = await this.offsetForTimestamp(largest);
    if (found !== null || largest === largestOfRest) return found;
    // The youngest record was deleted, and what is left of its segment stays.
    const left = await this.#largestLeftOf(Math.min(rest[0]?.baseOffset ?? Infinity, this.#readable.offset));
    return this.offsetForTimestamp(Math.max(left, largestOfRest));
  }

  /** The largest timestamp of the records from the log's start to the end of its first segment. */
  async #largestLeftOf(endOffset: number): Promise<number> {
    const { logStartOffset } = this.#log;
    let largest = -1;
    await this.readChecked(endOffset, (batch) => {
      if (batch.baseOffset >= logStartOffset) largest = Math.max(largest, batch.maxTimestamp);
      else
        for (const { offset, timestamp } of eachRecord(batch))
          if (offset >= logStartOffset) largest = Math.max(largest, timestamp);
    });
    return largest;
  }

  #found({ timestamp, offset }: TimeEntry): Found {
    return { timestamp, offset, leaderEpoch: this.#parts.epochs.epochOf(offset) };
  }
}

const largestIn = (segments: readonly Segment[]): number =>
  segments.reduce((largest, { largestTimestamp: each }) => Math.max(largest, each?.timestamp ?? -1), -1);
