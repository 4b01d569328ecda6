import { batchHeaderSize, batchOverhead, RecordBatch, WireError } from '@rookery/wire';
import type { File } from '../vfs/file-system.ts';
import type { Segment } from './segment.ts';

/**
 * What to do with a partition's files after a start, as a table over what can be found. The facts are few and
 * each is true or false, so every combination is in exactly one row (recovery.test.ts walks them all).
 *
 *   @A clean      The marker says that the last stop was orderly: every byte was synced and every index
 *                 written before it. Nothing is scanned.
 *   @B whole      No marker, but all that stands above the recovery point is whole batches: the process died
 *                 between writes, or the page cache survived it.
 *   @C torn tail  A batch above the recovery point is cut or fails its CRC: power went while it was being
 *                 written. Nobody was told that it was safe, or it would be below the recovery point. What
 *                 follows it is cut too: the disk may write pages in any order, so whole batches may stand
 *                 behind the hole.
 *   @D rot        A batch below the recovery point is damaged: these bytes were on disk, and the disk has
 *                 changed them. Cutting here would drop what was acknowledged, so nothing is touched: what
 *                 stands before it is served, writes are refused, and the operator decides.
 *   @E gap        A segment does not begin where the one before it ended, and the missing offsets are below
 *                 the recovery point: a file was lost. As for rot, nothing is touched.
 *   @F loose end  A segment begins after the end of the scan: it was made (rolled) after the torn batch, so
 *                 it goes with the tail.
 */
export interface Facts {
  /** The marker of an orderly stop was there. */
  readonly isMarked: boolean;
  /** The scan met a damaged batch, or bytes that are none. */
  readonly isDamaged: boolean;
  /** A segment does not begin where the one before it ended. */
  readonly hasGap: boolean;
  /** What is damaged or missing lies below the recovery point. */
  readonly isBelowRecoveryPoint: boolean;
}

export type Row = '@A' | '@B' | '@C' | '@D' | '@E' | '@F';
export type Action = 'keep' | 'truncate' | 'refuse';

interface Rule {
  readonly row: Row;
  readonly applies: (facts: Facts) => boolean;
  readonly action: Action;
}

export const rules: readonly Rule[] = [
  { row: '@A', action: 'keep', applies: (f) => f.isMarked },
  { row: '@B', action: 'keep', applies: (f) => !f.isMarked && !f.isDamaged && !f.hasGap },
  { row: '@C', action: 'truncate', applies: (f) => !f.isMarked && f.isDamaged && !f.isBelowRecoveryPoint },
  { row: '@D', action: 'refuse', applies: (f) => !f.isMarked && f.isDamaged && f.isBelowRecoveryPoint },
  {
    row: '@E',
    action: 'refuse',
    applies: (f) => !f.isMarked && !f.isDamaged && f.hasGap && f.isBelowRecoveryPoint,
  },
  {
    row: '@F',
    action: 'truncate',
    applies: (f) => !f.isMarked && !f.isDamaged && f.hasGap && !f.isBelowRecoveryPoint,
  },
];

export const decide = (facts: Facts): Rule => rules.find(({ applies }) => applies(facts))!;

/** How far a segment's bytes are good. */
export interface Scan {
  readonly nextOffset: number;
  readonly position: number;
  /** Why the scan stopped before the end of the file; null when it did not. */
  readonly damage: string | null;
}

/** How many bytes are read at once; a larger batch gets a buffer of its own. */
const readBytes = 1 << 20;

/**
 * Reads every batch from a position on, checks it, and notes it in the segment's indexes.
 *
 * @param expected the offset at or after which the first batch must begin
 */
export function scan(segment: Segment, from: number, expected: number, indexIntervalBytes: number): Scan {
  const size = segment.log.size();
  let position = from;
  let nextOffset = expected;
  let bytes: Buffer<ArrayBufferLike> = Buffer.alloc(0);
  let start = position;
  while (position < size) {
    let batch: RecordBatch | null;
    try {
      batch = RecordBatch.read(bytes, position - start);
      if (batch === null) {
        const needed = sizeAt(segment.log, position);
        if (position + needed > size) return { nextOffset, position, damage: 'the file ends inside a batch' };
        bytes = Buffer.allocUnsafe(Math.min(size - position, Math.max(readBytes, needed)));
        segment.log.readNow(bytes, position);
        start = position;
        batch = RecordBatch.read(bytes, 0)!;
      }
      const damage = damageOf(batch, nextOffset);
      if (damage !== null) return { nextOffset, position, damage };
      segment.note(batch, position, indexIntervalBytes);
      nextOffset = batch.nextOffset;
      position += batch.sizeInBytes;
    } catch (error) {
      if (error instanceof WireError) return { nextOffset, position, damage: error.message };
      throw error;
    }
  }
  return { nextOffset, position, damage: null };
}

/** The size that a batch announces; at least a header, so that what is too short shows as cut. */
function sizeAt(log: File, position: number): number {
  const head = Buffer.alloc(batchOverhead);
  log.readNow(head, position);
  return Math.max(batchHeaderSize, batchOverhead + head.readInt32BE(8));
}

function damageOf(batch: RecordBatch, expected: number): string | null {
  if (batch.magic !== 2) return `magic ${batch.magic}`;
  if (batch.baseOffset < expected)
    return `base offset ${batch.baseOffset} where ${expected} or more should be`;
  if (batch.lastOffsetDelta < 0 || batch.recordCount < 0) return 'a negative count';
  return batch.checkCrc() ? null : 'a batch fails its CRC';
}
