import { WireError, type RecordBatch } from '@rookery/wire';
import type { FileSystem } from '../vfs/file-system.ts';
import { transactionEndOf } from './control-record.ts';
import type { End } from './durability.ts';
import { readSnapshot, snapshotOffsets, snapshotPath } from './producer-snapshot.ts';
import type { ProducerState } from './producer-state.ts';
import { decide, snapshotTable } from './recovery.ts';
import { RotFound } from './rot.ts';
import type { SegmentList } from './segment-list.ts';
import type { AbortedTransaction } from './transaction-index.ts';

/** Whoever keeps transactions that were aborted. */
interface AbortedTransactions {
  append(aborted: AbortedTransaction): void;
}

/** Takes note of a batch that has a producer, and of a transaction that it aborts. */
export function noteBatch(
  producers: ProducerState,
  batch: RecordBatch,
  transactions: AbortedTransactions | null,
): void {
  if (!batch.isControl) return producers.note(batch);
  const end = transactionEndOf(batch);
  const aborted = end === null ? null : producers.end(batch, end);
  if (aborted !== null) transactions?.append(aborted);
}

/**
 * Brings the producer state to the end of the log: from the newest snapshot that is whole and not past the end,
 * and the batches behind it. Of those only the headers are read. Snapshots past the end are removed: they speak
 * of batches that are gone.
 *
 * @returns the offset of the snapshot that was used, 0 without one
 * @throws RotFound
 */
export function recoverProducers(
  log: { readonly fs: FileSystem; readonly directory: string; readonly segments: SegmentList },
  producers: ProducerState,
  end: End,
  options: {
    /** From this offset on the transaction indexes are empty: the replay must begin there or before. */
    readonly transactionsFrom: number;
    /** False where nothing in the directory may be touched. */
    readonly mayChange: boolean;
  } = { transactionsFrom: Infinity, mayChange: true },
): number {
  const { fs, directory, segments } = log;
  const { transactionsFrom, mayChange } = options;
  let newest: number | null = null;
  let from = 0;
  producers.restore([]);
  for (const offset of snapshotOffsets(fs.list(directory))) {
    const isPastEnd = offset > end.offset;
    const snapshot = isPastEnd ? null : readSnapshot(fs, directory, offset);
    const { action } = decide(snapshotTable, { isWhole: snapshot !== null, isPastEnd });
    if (action === 'remove' && mayChange) fs.remove(snapshotPath(directory, offset));
    if (action !== 'use') continue;
    newest ??= offset;
    // Aborted transactions are known from their producers' batches alone, so these are read again too.
    if (offset > transactionsFrom) continue;
    producers.restore(snapshot!);
    from = offset;
    break;
  }
  if (from < end.offset) replay(segments, producers, from, end, mayChange);
  return newest ?? 0;
}

function replay(
  segments: SegmentList,
  producers: ProducerState,
  from: number,
  end: End,
  mayChange: boolean,
): void {
  for (let index = segments.floor(from); index < segments.length; index++) {
    const segment = segments.at(index)!;
    if (segment.baseOffset > end.segment.baseOffset) return;
    if (mayChange) segment.transactions.truncateTo(from);
    const size = segment === end.segment ? end.position : segment.sizeInBytes;
    let place = { offset: segment.baseOffset, position: 0 };
    try {
      for (const { batch, position } of segment.headers(segment.startFor(from), size)) {
        place = { offset: batch.baseOffset, position };
        if (batch.producerId >= 0 && batch.baseOffset >= from) {
          const whole = batch.isControl ? checked(segment.readNow(position, batch.sizeInBytes)) : batch;
          noteBatch(producers, whole, mayChange ? segment.transactions : null);
        }
        place = { offset: batch.nextOffset, position: position + batch.sizeInBytes };
      }
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      throw new RotFound({ segment: segment.baseOffset, ...place, reason: error.message });
    }
    // Nobody writes the index of a sealed segment later.
    if (mayChange && segment !== end.segment) segment.transactions.file.flush();
  }
}

function checked(batch: RecordBatch): RecordBatch {
  if (!batch.checkCrc()) throw new WireError('RK9102', 'a batch fails its CRC');
  return batch;
}
