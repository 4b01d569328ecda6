import { describe, expect, test } from 'vitest';
import { RecordBatch, type CompressionCodec } from './record-batch.ts';
import { decodeRecords, encodeBatch, recompressBatch } from './records.ts';

const codecs: CompressionCodec[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];
const records = Array.from({ length: 50 }, (_, i) => ({
  key: i % 3 === 0 ? null : Buffer.from(`key ${i}`),
  value: i % 5 === 0 ? null : Buffer.from('value '.repeat(i)),
  headers: i % 7 === 0 ? [{ key: 'h', value: Buffer.from(`${i}`) }] : [],
  timestamp: 1_700_000_000_000 + ((i * 37) % 11),
}));
const batchIn = (codec: CompressionCodec): RecordBatch => {
  const batch = RecordBatch.split([
    encodeBatch(records, { codec, producerId: 9, producerEpoch: 3, baseSequence: 77, isTransactional: true }),
  ])[0]!;
  batch.setBaseOffset(1_000);
  batch.setPartitionLeaderEpoch(4);
  return batch;
};
const facts = (batch: RecordBatch) => {
  const { baseOffset, lastOffset, partitionLeaderEpoch, baseTimestamp, maxTimestamp, recordCount } = batch;
  const { producerId, producerEpoch, baseSequence, isTransactional, isControl, timestampType } = batch;
  return {
    ...{ baseOffset, lastOffset, partitionLeaderEpoch, baseTimestamp, maxTimestamp, recordCount },
    ...{ producerId, producerEpoch, baseSequence, isTransactional, isControl, timestampType },
  };
};

describe.each(codecs)('from %s', (from) => {
  test.each(codecs)('to %s the records and all that the header says of them stay', (to) => {
    const before = batchIn(from);
    const [after] = RecordBatch.split([recompressBatch(before, to)]);
    expect(after!.codec).toBe(to);
    expect(after!.checkCrc()).toBe(true);
    expect(facts(after!)).toEqual(facts(before));
    expect(decodeRecords(after!)).toEqual(decodeRecords(before));
  });
});

test('there and back again are the same bytes', () => {
  const plain = Buffer.concat(batchIn('none').chunks);
  const [packed] = RecordBatch.split([recompressBatch(batchIn('none'), 'zstd')]);
  expect(recompressBatch(packed!, 'none').equals(plain)).toBe(true);
});

test('a batch that came in pieces is read across them', () => {
  const whole = Buffer.concat(batchIn('none').chunks);
  const [pieces] = RecordBatch.split([whole.subarray(0, 70), whole.subarray(70, 500), whole.subarray(500)]);
  expect(recompressBatch(pieces!, 'gzip').equals(recompressBatch(batchIn('none'), 'gzip'))).toBe(true);
});

test.each(['gzip', 'zstd'] as const)('a higher level of %s takes fewer bytes', (codec) => {
  const text = Array.from({ length: 20_000 }, (_, i) => `${(i * 7919) % 1000} ${i % 13}`).join();
  const [batch] = RecordBatch.split([encodeBatch([{ value: Buffer.from(text), timestamp: 0 }])]);
  const sizeAt = (level: number): number => recompressBatch(batch!, codec, { level }).length;
  expect(sizeAt(9)).toBeLessThan(sizeAt(1));
});

test('what decompresses to more than the limit is refused', () => {
  expect(() => recompressBatch(batchIn('gzip'), 'none', { outputMax: 1_000 })).toThrow(/RK9105/);
});
