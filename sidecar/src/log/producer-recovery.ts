import type { RecordBatch } from '@rookery/wire';
import type { FileSystem } from '../vfs/file-system.ts';
import { transactionEndOf } from './control-record.ts';
import { readSnapshot, snapshotOffsets, snapshotPath } from './producer-snapshot.ts';
import type { ProducerState } from './producer-state.ts';
import type { SegmentList } from './segment-list.ts';
import type { Segment } from './segment.ts';

/** Takes note of a batch that has a producer, and of a transaction that it ends. */
export function noteBatch(producers: ProducerState, batch: RecordBatch, segment: Segment): void {
  if (!batch.isControl) return producers.note(batch);
  const end = transactionEndOf(batch);
  const aborted = end === null ? null : producers.end(batch, end);
  if (aborted !== null) segment.transactions.append(aborted);
}

/**
 * Brings the producer state to the end of the log: from the newest snapshot that is whole and not past the end,
 * and the batches behind it. Of those only the headers are read. Snapshots past the end are removed: they speak
 * of batches that are gone.
 *
 * @param endPosition where in the last segment the log ends
 * @returns the offset of the snapshot that was used, 0 without one
 */
export function recoverProducers(
  log: { readonly fs: FileSystem; readonly directory: string; readonly segments: SegmentList },
  producers: ProducerState,
  endOffset: number,
  endPosition: number,
): number {
  const { fs, directory, segments } = log;
  let from = 0;
  producers.restore([]);
  for (const offset of snapshotOffsets(fs.list(directory))) {
    if (offset > endOffset) {
      fs.remove(snapshotPath(directory, offset));
      continue;
    }
    const snapshot = readSnapshot(fs, directory, offset);
    if (snapshot === null) continue;
    producers.restore(snapshot);
    from = offset;
    break;
  }
  if (from < endOffset) replay(segments, producers, from, endPosition);
  return from;
}

function replay(segments: SegmentList, producers: ProducerState, from: number, endPosition: number): void {
  for (let index = segments.floor(from); index < segments.length; index++) {
    const segment = segments.at(index)!;
    segment.transactions.truncateTo(from);
    const size = segment === segments.active ? endPosition : segment.sizeInBytes;
    for (const { batch, position } of segment.headers(segment.index.lookup(from), size)) {
      if (batch.producerId < 0 || batch.baseOffset < from) continue;
      const whole = batch.isControl ? segment.readNow(position, batch.sizeInBytes) : batch;
      noteBatch(producers, whole, segment);
    }
  }
}
