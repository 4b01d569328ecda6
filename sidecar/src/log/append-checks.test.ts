import { encodeBatch, RecordBatch, type BatchOptions } from '@rookery/wire';
import { expect, test } from 'vitest';
import { AppendRefused, checkAppend } from './append-checks.ts';
import { smallLogs } from './memory-logs.ts';

const now = 1_700_000_000_000;
const config = { ...smallLogs, timestampAfterMaxMs: 1_000 };

function refusal(ages: readonly number[], options: BatchOptions = {}): AppendRefused {
  const records = ages.map((age) => ({
    key: null,
    value: Buffer.from('x'),
    headers: [],
    timestamp: now - age,
  }));
  const [batch] = RecordBatch.split([encodeBatch(records, options)]) as [RecordBatch];
  try {
    checkAppend(batch, config, now, 'client');
  } catch (error) {
    if (error instanceof AppendRefused) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

test('the records whose time is wrong are named, and no others', () => {
  const { error, recordErrors } = refusal([0, -5_000, 0, -1_000, -1_001]);
  expect(error).toBe('INVALID_TIMESTAMP');
  expect(recordErrors?.map(({ index }) => index)).toEqual([1, 4]);
});

test('no more than a hundred are named', () => {
  expect(refusal(Array<number>(120).fill(-5_000)).recordErrors).toHaveLength(100);
});

test('none is named where they would have to be decompressed first', () => {
  const { error, recordErrors } = refusal([0, -5_000], { codec: 'gzip' });
  expect([error, recordErrors]).toEqual(['INVALID_TIMESTAMP', undefined]);
});
