import { decodeRecords, type RecordBatch } from '@rookery/wire';
import type { TransactionEnd } from './producer-state.ts';

/** `version:i16 type:i16` is the key, `version:i16 coordinatorEpoch:i32` the value. */
const markers = { abort: 0, commit: 1 } as const;

/** How a control batch ends its producer's transaction; null for control records that say something else. */
export function transactionEndOf(batch: RecordBatch): TransactionEnd | null {
  const [record] = decodeRecords(batch);
  const { key = null, value = null } = record ?? {};
  if (key === null || value === null || key.length < 4 || value.length < 6) return null;
  const type = key.readInt16BE(2);
  if (type !== markers.abort && type !== markers.commit) return null;
  return { isAbort: type === markers.abort, coordinatorEpoch: value.readInt32BE(2) };
}
