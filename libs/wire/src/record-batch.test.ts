import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compress, decompress } from './compression.ts';
import { WireError } from './errors.ts';
import { murmur2, partitionFor } from './murmur2.ts';
import { RecordBatch, type CompressionCodec } from './record-batch.ts';
import { decodeRecords, encodeBatch, type NewRecord } from './records.ts';

const codecs: CompressionCodec[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
const record: fc.Arbitrary<NewRecord> = fc.record({
  key: fc.option(bytes, { nil: null }),
  value: fc.option(bytes, { nil: null }),
  headers: fc.array(fc.record({ key: fc.string(), value: fc.option(bytes, { nil: null }) }), {
    maxLength: 3,
  }),
  timestamp: fc.integer({ min: -1, max: 4_102_444_800_000 }),
});
const someRecords = fc.array(record, { minLength: 1, maxLength: 20 });

const read = (batch: Buffer): RecordBatch => RecordBatch.split([batch])[0]!;

/** The same bytes in chunks cut at the given places. */
function cut(whole: Buffer, cuts: readonly number[]): Buffer[] {
  const edges = [0, ...[...cuts].map((at) => at % (whole.length + 1)).sort((a, b) => a - b), whole.length];
  return edges.slice(1).map((edge, i) => whole.subarray(edges[i], edge));
}

describe.each(codecs)('%s', (codec) => {
  test('records read back as they were written', () => {
    fc.assert(
      fc.property(someRecords, (records) => {
        const batch = read(encodeBatch(records, { codec }));
        expect(batch.checkCrc()).toBe(true);
        expect(batch.codec).toBe(codec);
        expect(batch.recordCount).toBe(records.length);
        expect(batch.maxTimestamp).toBe(Math.max(...records.map(({ timestamp }) => timestamp)));
        expect(decodeRecords(batch)).toEqual(records.map((one, offset) => ({ ...one, offset })));
      }),
    );
  });

  test('every size of bytes survives compression', () => {
    const noise = Buffer.from(
      Array.from({ length: 1_000_000 }, (_, i) => (Math.imul(i, 2654435761) >>> 13) & 0xff),
    );
    for (const plain of [Buffer.alloc(0), Buffer.from('x'), Buffer.alloc(1_000_000, 'ab'), noise]) {
      expect(decompress(codec, compress(codec, plain), plain.length).equals(plain)).toBe(true);
    }
  });

  test('bytes cut short or changed give a coded error or other bytes, never anything else', () => {
    const packed = compress(codec, Buffer.alloc(5_000, 'hello kafka '));
    fc.assert(
      fc.property(fc.nat(packed.length - 1), fc.nat(255), fc.boolean(), (at, byte, short) => {
        const hostile = short ? packed.subarray(0, at) : Buffer.from(packed);
        if (!short) hostile[at] = byte;
        try {
          expect(decompress(codec, hostile, 10_000).length).toBeLessThanOrEqual(10_000);
        } catch (error) {
          expect(error).toBeInstanceOf(WireError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test.each(codecs.slice(1))('%s does not decompress past its limit', (codec) => {
  const bomb = compress(codec, Buffer.alloc(8_000_000));
  expect(() => decompress(codec, bomb, 1_000_000)).toThrow(/RK9105/);
});

test('a batch in chunks is the batch in one piece, and patches reach what is written', () => {
  fc.assert(
    fc.property(someRecords, fc.array(fc.nat(), { maxLength: 8 }), (records, cuts) => {
      const whole = Buffer.concat([
        encodeBatch(records),
        encodeBatch(records, { producerId: 7, baseSequence: 3 }),
      ]);
      const batches = RecordBatch.split(cut(Buffer.from(whole), cuts));
      expect(batches).toHaveLength(2);
      const [first, second] = batches as [RecordBatch, RecordBatch];
      expect(second.producerId).toBe(7);
      first.setBaseOffset(5_000_000_000);
      first.setPartitionLeaderEpoch(9);
      expect(first.checkCrc() && second.checkCrc()).toBe(true);
      const written = read(Buffer.concat(first.chunks));
      expect([written.baseOffset, written.partitionLeaderEpoch]).toEqual([5_000_000_000, 9]);
      expect(written.nextOffset).toBe(5_000_000_000 + records.length);
      expect(decodeRecords(written).map(({ value }) => value)).toEqual(records.map(({ value }) => value));
    }),
  );
});

test('log append time replaces every timestamp and keeps the CRC right', () => {
  const batch = read(
    encodeBatch([
      { value: null, timestamp: 5 },
      { value: null, timestamp: 9 },
    ]),
  );
  batch.setLogAppendTime(1_700_000_000_000);
  expect(batch.checkCrc()).toBe(true);
  expect(decodeRecords(batch).map(({ timestamp }) => timestamp)).toEqual([
    1_700_000_000_000, 1_700_000_000_000,
  ]);
});

test('a changed byte under the CRC is noticed', () => {
  const good = encodeBatch([{ value: Buffer.from('value'), timestamp: 1 }]);
  for (let at = 17; at < good.length; at++) {
    const bad = Buffer.from(good);
    bad[at]! ^= 0x10;
    expect(read(bad).checkCrc()).toBe(false);
  }
});

test('a batch whose records are malformed under a right CRC is a coded error', () => {
  const good = encodeBatch([
    {
      key: Buffer.from('k'),
      value: Buffer.from('value'),
      timestamp: 1,
      headers: [{ key: 'h', value: null }],
    },
  ]);
  for (let length = 61; length < good.length; length++) {
    const short = Buffer.from(good.subarray(0, length));
    short.writeInt32BE(length - 12, 8);
    expect(() => decodeRecords(read(short))).toThrow(WireError);
  }
});

test('a record count is not believed before its bytes are there', () => {
  const lie = encodeBatch([{ value: null, timestamp: 1 }]);
  lie.writeInt32BE(0x7fffffff, 57);
  expect(() => decodeRecords(read(lie))).toThrow(/RK9101/);
});

test('bytes that are no batches are refused, a torn tail is none', () => {
  const batch = encodeBatch([{ value: Buffer.from('v'), timestamp: 1 }]);
  expect(() => RecordBatch.split([batch.subarray(0, 40)])).toThrow(/RK9101/);
  expect(() => RecordBatch.split([Buffer.alloc(100)])).toThrow(/RK9101/);
  expect(RecordBatch.read(batch.subarray(0, batch.length - 1), 0)).toBeNull();
  expect(RecordBatch.read(batch, 0)?.sizeInBytes).toBe(batch.length);
});

test('keys are hashed as the Java client hashes them', () => {
  const vectors: [string, number][] = [
    ['21', -973932308],
    ['foobar', -790332482],
    ['a-little-bit-long-string', -985981536],
    ['a-little-bit-longer-string', -1486304829],
    ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
    ['abc', 479470107],
  ];
  for (const [key, hash] of vectors) expect(murmur2(Buffer.from(key))).toBe(hash);
  expect(partitionFor(Buffer.from('foobar'), 10)).toBe((-790332482 & 0x7fffffff) % 10);
});
