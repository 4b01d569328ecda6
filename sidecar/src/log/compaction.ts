import { decodeRecords, filterBatch, RecordBatch, WireError, type LogRecord } from '@rookery/wire';
import type { File, FileSystem } from '../vfs/file-system.ts';
import { transactionEndOf } from './control-record.ts';
import { relativeOffsetMax } from './offset-index.ts';
import { OffsetMap } from './offset-map.ts';
import { OffsetOrder } from './offset-order.ts';
import { RotFound } from './rot.ts';
import { Segment } from './segment.ts';
import type { AbortedTransaction } from './transaction-index.ts';

export const cleanedSuffix = '.cleaned';
export const swapSuffix = '.swap';

/** One compaction of one log, as plain values, so that it may run on another thread. */
export interface CompactionPlan {
  /** Up to here offsets may be missing: everywhere in a log that was compacted before. */
  readonly holesUpTo: number;
  readonly directory: string;
  /** Base offsets of the segments that are rewritten, the clean ones in front; none of them is active. */
  readonly segments: readonly number[];
  /** Where the part begins that was never compacted. */
  readonly firstDirtyOffset: number;
  /** Where the segment after the last one begins. */
  readonly endOffset: number;
  /** Aborted transactions with records in these segments; their markers may be in later ones. */
  readonly aborted: readonly AbortedTransaction[];
  readonly nowMs: number;
  readonly deleteRetentionMs: number;
  readonly segmentBytes: number;
  readonly segmentIndexBytes: number;
  readonly indexIntervalBytes: number;
  /** Memory for the keys; a log with more of them is compacted in several rounds. */
  readonly mapBytesMax: number;
  /** The last offset of each producer's last batch: it stays, empty if need be, for the sequence in it. */
  readonly producers: readonly (readonly [producerId: number, lastOffset: number])[];
}

/** Segments that one new segment replaces. Its files are complete and synced, under their `.cleaned` names. */
export interface Replacement {
  readonly baseOffset: number;
  readonly replaces: readonly number[];
}

export interface CompactionResult {
  readonly replacements: readonly Replacement[];
  /** Everything before it is compacted now. */
  readonly endOffset: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Told of every piece of the work that is done, and returns when the next one may begin. */
export type Pace = () => void;

/** What is read or written between two looks at the pace. */
const pieceBytes = 1024 * 1024;

/**
 * Writes a log's old segments anew, with the last record of each key alone. Offsets stay, so readers find
 * holes. Nothing of the log is touched: the new files stand beside the old ones until they are swapped.
 *
 * A tombstone stays for `delete.retention.ms` after the round that first sees it, so that readers learn of the
 * deletion; the batch keeps the time when it may go. So do the markers of transactions; the records of an
 * aborted one go at once.
 *
 * @throws RotFound for a batch that does not check: compaction reads all bytes, so it finds rot
 */
export function compact(fs: FileSystem, plan: CompactionPlan, pace: Pace = () => {}): CompactionResult {
  const segments = plan.segments.map((base) => new Segment(fs, plan.directory, base, '', 'read'));
  try {
    return new Compaction(fs, plan, segments, pace).run();
  } catch (error) {
    for (const base of plan.segments) new Segment(fs, plan.directory, base, cleanedSuffix).remove();
    throw error;
  } finally {
    for (const segment of segments) segment.close();
  }
}

/** What is known of transactions while a log is read from the front. */
class Transactions {
  /** Those that begin later, the next one last. */
  readonly #later: AbortedTransaction[];
  readonly #aborted = new Set<number>();
  readonly #committedWithRecords = new Set<number>();

  constructor(aborted: readonly AbortedTransaction[]) {
    this.#later = [...aborted].sort((a, b) => b.firstOffset - a.firstOffset);
  }

  /** Whether the batch belongs to an aborted transaction. */
  isAborted(batch: RecordBatch): boolean {
    while (this.#later.length > 0 && this.#later.at(-1)!.firstOffset <= batch.lastOffset)
      this.#aborted.add(this.#later.pop()!.producerId);
    return batch.isTransactional && !batch.isControl && this.#aborted.has(batch.producerId);
  }

  /** Records of the batch stay: so must the marker that commits them. */
  kept(batch: RecordBatch): void {
    if (batch.isTransactional && !batch.isControl) this.#committedWithRecords.add(batch.producerId);
  }

  /** Whether a marker says nothing any more, because none of its transaction's records are left. */
  isSpent(marker: RecordBatch, isAbort: boolean): boolean {
    if (!isAbort) return !this.#committedWithRecords.delete(marker.producerId);
    this.#aborted.delete(marker.producerId);
    return true;
  }
}

interface Known {
  readonly map: OffsetMap;
  /** From here on the map knows nothing. */
  readonly endOffset: number;
  readonly transactions: Transactions;
}

class Compaction {
  readonly #fs: FileSystem;
  readonly #plan: CompactionPlan;
  readonly #segments: readonly Segment[];
  readonly #producers: ReadonlyMap<number, number>;
  readonly #pace: Pace;
  #bytesSincePace = 0;

  constructor(fs: FileSystem, plan: CompactionPlan, segments: readonly Segment[], pace: Pace) {
    this.#fs = fs;
    this.#plan = plan;
    this.#segments = segments;
    this.#pace = pace;
    this.#producers = new Map(plan.producers);
  }

  run(): CompactionResult {
    const { map, endOffset } = this.#lastOffsets();
    const cleanable = this.#segments.filter(({ baseOffset }) => baseOffset < endOffset);
    const transactions = new Transactions(this.#plan.aborted);
    let bytesAfter = 0;
    const replacements = this.#groups(cleanable).map((group): Replacement => {
      bytesAfter += this.#rewrite(group, { map, endOffset, transactions });
      return { baseOffset: group[0]!.baseOffset, replaces: group.map(({ baseOffset }) => baseOffset) };
    });
    const bytesBefore = cleanable.reduce((sum, { sizeInBytes }) => sum + sizeInBytes, 0);
    return { replacements, endOffset, bytesBefore, bytesAfter };
  }

  /** The last offset of every key in the dirty part, or in as much of it as the memory takes. */
  #lastOffsets(): { map: OffsetMap; endOffset: number } {
    const { firstDirtyOffset, mapBytesMax, segments, endOffset, aborted } = this.#plan;
    const map = new OffsetMap(endOffset - firstDirtyOffset, mapBytesMax);
    const transactions = new Transactions(aborted);
    const dirty = this.#segments.filter((_, i) => (segments[i + 1] ?? endOffset) > firstDirtyOffset);
    for (const segment of dirty) {
      for (const batch of this.#batches(segment)) {
        if (transactions.isAborted(batch) || batch.isControl) continue;
        for (const { key, offset } of readable(batch) ?? []) {
          if (key === null || offset < firstDirtyOffset) continue;
          // Compacted up to here; the next round goes on with this record.
          if (!map.put(key, offset)) return { map, endOffset: offset };
        }
      }
    }
    return { map, endOffset };
  }

  /** Neighbours that fit into one segment together, by the sizes they have now. */
  #groups(segments: readonly Segment[]): Segment[][] {
    const { segmentBytes, segmentIndexBytes } = this.#plan;
    const groups: Segment[][] = [];
    let bytes = 0;
    let indexBytes = 0;
    for (const segment of segments) {
      const group = groups.at(-1);
      bytes += segment.sizeInBytes;
      indexBytes += segment.index.file.sizeInBytes;
      const span = segment.baseOffset - (group?.[0]?.baseOffset ?? 0);
      if (
        group !== undefined &&
        bytes <= segmentBytes &&
        indexBytes <= segmentIndexBytes &&
        span < relativeOffsetMax
      )
        group.push(segment);
      else {
        groups.push([segment]);
        bytes = segment.sizeInBytes;
        indexBytes = segment.index.file.sizeInBytes;
      }
    }
    return groups;
  }

  /** @returns bytes of the new segment */
  #rewrite(group: readonly Segment[], known: Known): number {
    const { directory, indexIntervalBytes } = this.#plan;
    const { baseOffset } = group[0]!;
    // What a round that was given up has left must not stand in front of this one.
    new Segment(this.#fs, directory, baseOffset, cleanedSuffix).remove();
    const cleaned = new Segment(this.#fs, directory, baseOffset, cleanedSuffix);
    const writer = new BatchWriter(cleaned.log);
    for (const segment of group) {
      for (const transaction of segment.transactions.all())
        if (transaction !== null) cleaned.transactions.append(transaction);
      for (const batch of this.#batches(segment)) {
        const kept = this.#filter(batch, known);
        if (kept === null) continue;
        cleaned.note(kept, cleaned.sizeInBytes, indexIntervalBytes);
        writer.add(kept.chunks);
      }
    }
    writer.flush();
    cleaned.seal();
    cleaned.syncNow();
    const { sizeInBytes } = cleaned;
    cleaned.close();
    return sizeInBytes;
  }

  /** The batch with what stays of it; null when all of it goes. */
  #filter(batch: RecordBatch, { map, endOffset, transactions }: Known): RecordBatch | null {
    const { nowMs } = this.#plan;
    const isAborted = transactions.isAborted(batch);
    if (batch.isControl) return this.#filterMarker(batch, transactions);
    const records = isAborted ? [] : readable(batch);
    if (records === null) return batch;
    const horizon = batch.hasDeleteHorizon ? batch.baseTimestamp : null;
    const mayForget = horizon !== null && horizon < nowMs;
    const stays = ({ key, value, offset }: LogRecord): boolean => {
      if (offset >= endOffset) return true;
      // Without a key nothing can take a record's place, and nobody can ask for it: it goes.
      return key !== null && map.get(key) <= offset && !(value === null && mayForget);
    };
    const kept = records.filter(stays);
    if (kept.length > 0) transactions.kept(batch);
    const hasNewTombstone = horizon === null && kept.some(({ value }) => value === null);
    if (kept.length === records.length && !isAborted && !hasNewTombstone) return batch;
    if (kept.length === 0 && !this.#isLastOfProducer(batch)) return null;
    return parsed(filterBatch(batch, kept, hasNewTombstone ? this.#newHorizon() : null));
  }

  #filterMarker(batch: RecordBatch, transactions: Transactions): RecordBatch | null {
    const end = transactionEndOf(batch);
    if (end === null || !transactions.isSpent(batch, end.isAbort)) return batch;
    const horizon = batch.hasDeleteHorizon ? batch.baseTimestamp : null;
    if (horizon === null) return parsed(filterBatch(batch, decodeRecords(batch), this.#newHorizon()));
    if (horizon >= this.#plan.nowMs) return batch;
    return this.#isLastOfProducer(batch) ? parsed(filterBatch(batch, [], null)) : null;
  }

  #newHorizon(): number {
    const horizon = this.#plan.nowMs + this.#plan.deleteRetentionMs;
    return Number.isSafeInteger(horizon) ? horizon : Number.MAX_SAFE_INTEGER;
  }

  #isLastOfProducer({ producerId, lastOffset }: RecordBatch): boolean {
    return producerId >= 0 && this.#producers.get(producerId) === lastOffset;
  }

  /** Every batch of a segment, checked: a key's record under another one's offset would take the place of later ones. */
  *#batches(segment: Segment): Generator<RecordBatch> {
    const { segments, endOffset, holesUpTo } = this.#plan;
    const { baseOffset: expected, sizeInBytes: size } = segment;
    const limit = segments[segments.indexOf(expected) + 1] ?? endOffset;
    const order = new OffsetOrder({ expected, holesUpTo, limit });
    const rotten = (position: number, reason: string, offset = order.next): never => {
      throw new RotFound({ segment: expected, position, offset, reason });
    };
    let end = 0;
    for (const { position, sizeInBytes } of segment.walk(0, size)) {
      const batch = segment.readNow(position, sizeInBytes);
      if (!batch.checkCrc()) rotten(position, 'a batch fails its CRC');
      const misplaced = order.take(batch, position);
      if (misplaced !== null) rotten(misplaced.position, misplaced.problem, misplaced.offset);
      yield batch;
      end = position + sizeInBytes;
      this.#bytesSincePace += sizeInBytes;
      if (this.#bytesSincePace < pieceBytes) continue;
      this.#bytesSincePace = 0;
      this.#pace();
    }
    if (end < size) rotten(end, 'the file ends inside a batch');
  }
}

/** Null for records that nobody can read, as a producer has sent them: they are not rot, and they stay. */
function readable(batch: RecordBatch): LogRecord[] | null {
  try {
    return decodeRecords(batch);
  } catch (error) {
    if (error instanceof WireError) return null;
    throw error;
  }
}

const parsed = (bytes: Buffer): RecordBatch => RecordBatch.split([bytes])[0]!;

const writeBytes = 1024 * 1024;

/**
 * Gathers batches, so that a segment of tiny ones is not a million writes. Each full one is synced: one
 * sync of a whole segment would keep the disk from whoever waits for an acknowledgement.
 */
class BatchWriter {
  readonly #file: File;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #position = 0;

  constructor(file: File) {
    this.#file = file;
  }

  add(chunks: readonly Buffer[]): void {
    for (const chunk of chunks) {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
    }
    if (this.#bytes < writeBytes) return;
    this.flush();
    this.#file.syncNow();
  }

  flush(): void {
    this.#file.writeNow(this.#chunks, this.#position);
    this.#position += this.#bytes;
    this.#chunks = [];
    this.#bytes = 0;
  }
}
