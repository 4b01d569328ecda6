import { crc32c, decodeRecords, encodeBatch, RecordBatch, type CompressionCodec } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import type { LogConfig } from '../log-config.ts';
import { AppendRefused } from './append-checks.ts';
import { batchOf, smallLogs } from './memory-logs.ts';
import { demandOf, looksIntoRecords, prepare, prepareAtOnce } from './preparation.ts';

const now = 1_700_000_000_000;
const topic = (config: Partial<LogConfig>): LogConfig => ({ ...smallLogs, maxMessageBytes: 1e6, ...config });
const demand = (batch: RecordBatch, config: Partial<LogConfig>) => demandOf(batch, topic(config), now)!;
const refusal = (run: () => unknown): AppendRefused => {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(AppendRefused);
    return error as AppendRefused;
  }
  throw new Error('it was taken');
};
const keyed = (count: number, codec: CompressionCodec = 'none'): RecordBatch =>
  RecordBatch.split([
    encodeBatch(
      Array.from({ length: count }, (_, i) => ({
        key: Buffer.from(`${i}`),
        value: Buffer.alloc(100),
        timestamp: now,
      })),
      { codec },
    ),
  ])[0]!;

describe('what is asked', () => {
  test('nothing of a topic that keeps what producers send, nor of the broker’s own', () => {
    expect(looksIntoRecords(topic({}))).toBe(false);
    expect(looksIntoRecords(topic({ timestampBeforeMaxMs: 2 ** 63 }))).toBe(false);
    expect(looksIntoRecords(topic({ isInternal: true, isCompacted: true }))).toBe(false);
    expect(looksIntoRecords(topic({ compressionType: 'gzip' }))).toBe(true);
    expect(looksIntoRecords(topic({ isCompacted: true }))).toBe(true);
    expect(looksIntoRecords(topic({ timestampBeforeMaxMs: 1_000 }))).toBe(true);
    expect(looksIntoRecords(topic({ timestampBeforeMaxMs: 1_000, timestampType: 'LogAppendTime' }))).toBe(
      false,
    );
  });

  test('nothing of a batch that is in the topic’s codec already', () => {
    const zstd = batchOf(['a'], { codec: 'zstd' });
    expect(demandOf(zstd, topic({ compressionType: 'zstd', compressionLevel: 19 }), now)).toBeNull();
    expect(demandOf(batchOf(['a']), topic({ compressionType: 'uncompressed' }), now)).toBeNull();
    expect(demand(zstd, { compressionType: 'lz4' }).codec).toBe('lz4');
    expect(demand(zstd, { compressionType: 'uncompressed' }).codec).toBe('none');
  });
});

describe('what is done', () => {
  test.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)('%s becomes what the topic says', (from) => {
    const targets = {
      uncompressed: 'none',
      gzip: 'gzip',
      snappy: 'snappy',
      lz4: 'lz4',
      zstd: 'zstd',
    } as const;
    for (const [compressionType, to] of Object.entries(targets)) {
      if (to === from) continue;
      const batch = batchOf(['a', 'b', 'c'], { codec: from });
      const config = { compressionType: compressionType as LogConfig['compressionType'] };
      const prepared = prepare(batch, demand(batch, config));
      expect(prepared.codec).toBe(to);
      expect(decodeRecords(prepared)).toEqual(decodeRecords(batch));
    }
  });

  test('a batch that is only looked at stays the same', () => {
    const batch = keyed(3, 'gzip');
    const asked = demand(batch, { isCompacted: true });
    expect(prepare(batch, asked)).toBe(batch);
    expect(prepareAtOnce(batch, asked)).toBe(batch);
  });

  test('on the loop only what is small, compressed and decompressed', () => {
    const config = { isCompacted: true };
    for (const batch of [keyed(1_000), keyed(10_000, 'zstd')])
      expect(prepareAtOnce(batch, demand(batch, config))).toBeNull();
    const recompressed = batchOf(['a']);
    expect(prepareAtOnce(recompressed, demand(recompressed, { compressionType: 'gzip' }))).toBeNull();
  });

  test('records without keys, or of a wrong time, are named', () => {
    const batch = RecordBatch.split([
      encodeBatch([
        { key: Buffer.from('k'), value: null, timestamp: now },
        { value: null, timestamp: now },
        { key: Buffer.from('k'), value: null, timestamp: now - 5_000 },
        { key: Buffer.from('k'), value: null, timestamp: -1 },
      ]),
    ])[0]!;
    const keys = refusal(() => prepare(batch, demand(batch, { isCompacted: true })));
    expect(keys.error).toBe('INVALID_RECORD');
    expect(keys.recordErrors!.map(({ index }) => index)).toEqual([1]);
    const asked = demand(batch, { isCompacted: true, timestampBeforeMaxMs: 1_000 });
    for (const run of [prepare, prepareAtOnce]) {
      const times = refusal(() => run(batch, asked));
      expect(times.error).toBe('INVALID_TIMESTAMP');
      expect(times.recordErrors!.map(({ index }) => index)).toEqual([1, 2]);
    }
  });

  test('of many records at fault a hundred are named', () => {
    const batch = batchOf(Array.from({ length: 5_000 }, () => 'x'));
    const { recordErrors } = refusal(() => prepare(batch, demand(batch, { isCompacted: true })));
    expect(recordErrors).toHaveLength(100);
  });

  test('bytes that do not decompress, and records that are none, are INVALID_RECORD', () => {
    const broken = Buffer.concat(keyed(100, 'gzip').chunks);
    broken.fill(0, 100, 110);
    broken.writeUInt32BE(crc32c([broken.subarray(21)]), 17);
    const lying = Buffer.concat(keyed(2).chunks);
    lying.writeInt8(20, 61);
    for (const bytes of [broken, lying]) {
      const [batch] = RecordBatch.split([bytes]);
      const asked = demand(batch!, { compressionType: 'lz4', isCompacted: true });
      expect(refusal(() => prepare(batch!, asked)).error).toBe('INVALID_RECORD');
      expect(refusal(() => prepareAtOnce(batch!, { ...asked, codec: null })).error).toBe('INVALID_RECORD');
    }
  });

  test('what decompresses past the limit is MESSAGE_TOO_LARGE, which makes a producer split it', () => {
    const bomb = batchOf(['x'.repeat(2_000_000)], { codec: 'zstd' });
    const uncompressed = demand(bomb, { compressionType: 'uncompressed' });
    expect(refusal(() => prepare(bomb, uncompressed)).error).toBe('MESSAGE_TOO_LARGE');
    const checked = { ...demand(bomb, { isCompacted: true }), decompressedMax: 1_000_000 };
    expect(refusal(() => prepare(bomb, checked)).error).toBe('MESSAGE_TOO_LARGE');
    expect(prepare(bomb, demand(bomb, { compressionType: 'gzip' })).codec).toBe('gzip');
  });
});
