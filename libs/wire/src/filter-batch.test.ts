import { expect, test } from 'vitest';
import { RecordBatch, type CompressionCodec } from './record-batch.ts';
import { decodeRecords, encodeBatch, filterBatch } from './records.ts';

const codecs: CompressionCodec[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];
const read = (bytes: Buffer): RecordBatch => RecordBatch.split([bytes])[0]!;

function batchIn(codec: CompressionCodec): RecordBatch {
  const records = ['a', 'b', 'c'].map((value, i) => ({
    key: Buffer.from('k'),
    value: Buffer.from(value),
    headers: [{ key: 'h', value: null }],
    timestamp: 1_000 + i,
  }));
  const options = { codec, producerId: 9, producerEpoch: 2, baseSequence: 40 };
  const batch = read(encodeBatch(records, options));
  batch.setBaseOffset(100);
  batch.setPartitionLeaderEpoch(6);
  return batch;
}

test.each(codecs)('what stays keeps its offset and time, and the batch all that it was (%s)', (codec) => {
  const batch = batchIn(codec);
  const records = decodeRecords(batch);
  const filtered = read(filterBatch(batch, [records[0]!, records[2]!], null));
  expect(filtered.checkCrc()).toBe(true);
  expect(decodeRecords(filtered)).toEqual([records[0], records[2]]);
  expect(filtered).toMatchObject({
    codec,
    baseOffset: 100,
    lastOffset: 102,
    partitionLeaderEpoch: 6,
    producerId: 9,
    producerEpoch: 2,
    baseSequence: 40,
    recordCount: 2,
    maxTimestamp: 1_002,
    hasDeleteHorizon: false,
  });
});

test.each(codecs)('a delete horizon takes the place of the base timestamp, and times stay (%s)', (codec) => {
  const batch = batchIn(codec);
  const records = decodeRecords(batch);
  const filtered = read(filterBatch(batch, records, 1_700_000_000_000));
  expect(filtered).toMatchObject({ hasDeleteHorizon: true, baseTimestamp: 1_700_000_000_000, codec });
  expect(decodeRecords(filtered)).toEqual(records);
  expect(filtered.checkCrc()).toBe(true);
});

test.each(codecs)('a batch without records can still be read (%s)', (codec) => {
  const filtered = read(filterBatch(batchIn(codec), [], null));
  expect(filtered.checkCrc()).toBe(true);
  expect(decodeRecords(filtered)).toEqual([]);
  expect(filtered).toMatchObject({ baseOffset: 100, lastOffset: 102, producerId: 9, recordCount: 0 });
});
