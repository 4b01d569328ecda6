import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compress, decompress } from './compression.ts';
import { WireError } from './errors.ts';
import { RecordBatch, type CompressionCodec } from './record-batch.ts';
import { crc32c } from './crc32c.ts';
import { decodeRecords, eachRecord, encodeBatch, type NewRecord } from './records.ts';

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

const few: NewRecord[] = [
  { key: Buffer.from('k'), value: Buffer.from('value'), timestamp: 5, headers: [{ key: 'h', value: null }] },
  { value: null, timestamp: 4 },
];

/** The batch with a right CRC again after its bytes were changed: what hides behind it must be refused too. */
function sealed(batch: Buffer): Buffer {
  batch.writeUInt32BE(crc32c([batch.subarray(21)]), 17);
  return batch;
}

test('two batches read the same cut at any one place, and at any two', () => {
  const whole = Buffer.concat([encodeBatch(few), encodeBatch(few, { codec: 'lz4' })]);
  const expected = JSON.stringify(RecordBatch.split([whole]).map((batch) => decodeRecords(batch)));
  for (let first = 0; first <= whole.length; first++) {
    for (let second = first; second <= whole.length; second += 1 + (first % 7)) {
      const batches = RecordBatch.split(cut(whole, [first, second]));
      expect(batches.every((batch) => batch.checkCrc())).toBe(true);
      expect(JSON.stringify(batches.map((batch) => decodeRecords(batch)))).toBe(expected);
    }
  }
});

test('every patch reaches the bytes that are written, wherever the batch was cut', () => {
  const whole = encodeBatch(few);
  for (let at = 0; at <= whole.length; at++) {
    const [batch] = RecordBatch.split(cut(Buffer.from(whole), [at])) as [RecordBatch];
    batch.setBaseOffset(2 ** 40 + 1);
    batch.setPartitionLeaderEpoch(77);
    batch.setLogAppendTime(1_700_000_000_001);
    const written = read(Buffer.concat(batch.chunks));
    expect(written.checkCrc()).toBe(true);
    expect([written.baseOffset, written.partitionLeaderEpoch, written.maxTimestamp]).toEqual([
      2 ** 40 + 1,
      77,
      1_700_000_000_001,
    ]);
    expect(written.timestampType).toBe('LogAppendTime');
  }
});

test('the CRC over chunks is the CRC over the whole', () => {
  // The check value of CRC-32C.
  expect(crc32c([Buffer.from('123456789')])).toBe(0xe3069283);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat(), { maxLength: 5 }), (bytes, cuts) => {
      const whole = Buffer.from(bytes);
      expect(crc32c(cut(whole, cuts))).toBe(crc32c([whole]));
    }),
  );
});

test('timestamps and sizes survive at the edges of their varints', () => {
  const timestamps = [0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2 ** 31 - 1, 2 ** 31, -(2 ** 31) - 1, 2 ** 45];
  const records = timestamps.map((timestamp) => ({ key: null, value: null, headers: [], timestamp }));
  expect(decodeRecords(read(encodeBatch(records))).map(({ timestamp }) => timestamp)).toEqual(timestamps);
  for (const size of [0, 63, 64, 8191, 8192, 1_048_575, 1_048_576]) {
    const [back] = decodeRecords(read(encodeBatch([{ value: Buffer.alloc(size, 1), timestamp: 0 }])));
    expect(back!.value).toHaveLength(size);
  }
});

test('records one by one are the records at once', () => {
  const batch = read(encodeBatch(few, { codec: 'zstd' }));
  expect([...eachRecord(batch)]).toEqual(decodeRecords(batch));
});

test('millions of records in a few kilobytes are walked without being kept', () => {
  const count = 2_000_000;
  // Every record alike: size 6, attributes, timestamp delta 0, offset delta 0, null key, null value, no headers.
  const dull = Buffer.alloc(7 * count, Buffer.from([12, 0, 0, 0, 1, 1, 0]));
  const batch = Buffer.concat([encodeBatch([few[0]!]).subarray(0, 61), compress('zstd', dull)]);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt16BE(4, 21);
  batch.writeInt32BE(count, 57);
  const walk = eachRecord(read(sealed(batch)));
  expect(walk.next().value).toMatchObject({ offset: 0, key: null });
  // The second has the first one's offset again.
  expect(() => walk.next()).toThrow(/RK9101.*offset 0 after 0/);
  expect(() => decodeRecords(read(batch), 1_000_000)).toThrow(/RK9105/);
});

test('offsets that go back, stand still or leave the batch are refused', () => {
  const three = encodeBatch([1, 2, 3].map((timestamp) => ({ value: null, timestamp })));
  /** Where the offset delta of the second record stands: 61, a record of 7 bytes, size, attributes, timestamp. */
  const at = 61 + 7 + 3;
  expect(three[at]).toBe(2);
  for (const delta of [0, 1, 4, 6]) {
    const bad = Buffer.from(three);
    bad[at] = delta;
    expect(() => decodeRecords(read(sealed(bad)))).toThrow(/RK9101/);
  }
  // A compacted batch has gaps, and ends before its last offset.
  const compacted = Buffer.from(three);
  compacted.writeInt32BE(9, 23);
  compacted[at + 7] = 2 * 7;
  expect(decodeRecords(read(sealed(compacted))).map(({ offset }) => offset)).toEqual([0, 1, 7]);
});

test('64-bit fields that a double cannot hold are a coded error', () => {
  const fields = { baseOffset: 0, baseTimestamp: 27, maxTimestamp: 35, producerId: 43 } as const;
  for (const [field, at] of Object.entries(fields)) {
    const wide = encodeBatch(few);
    wide.writeBigInt64BE(2n ** 53n, at);
    expect(() => read(wide)[field as keyof typeof fields]).toThrow(/RK9004/);
  }
});

test('a header where no batch can be is refused', () => {
  expect(() => RecordBatch.header(Buffer.alloc(60))).toThrow(/RK9101/);
  expect(() => RecordBatch.header(Buffer.alloc(61))).toThrow(/RK9101/);
  expect(RecordBatch.header(encodeBatch(few)).recordCount).toBe(2);
  const unknown = encodeBatch(few);
  unknown.writeInt16BE(5, 21);
  expect(() => read(unknown).codec).toThrow(/RK9103/);
});

describe.each(codecs)('hostile records behind a right CRC, %s', (codec) => {
  const batch = encodeBatch([...few, ...few, { value: Buffer.alloc(300, 'abc'), timestamp: 9 }], { codec });

  test('any byte changed, cut or made extreme gives records or a coded error', () => {
    const hostile = (bytes: Buffer): void => {
      try {
        const records = decodeRecords(read(sealed(bytes)), 5000);
        expect(records.length).toBeLessThanOrEqual(5000 / 7);
      } catch (error) {
        expect(error).toBeInstanceOf(WireError);
      }
    };
    for (let at = 21; at < batch.length; at++) {
      for (const byte of [0x00, 0x01, 0x7f, 0x80, 0xff, batch[at]! ^ 0x01]) {
        const changed = Buffer.from(batch);
        changed[at] = byte;
        hostile(changed);
      }
      const overlong = Buffer.from(batch);
      overlong.fill(0xff, at, Math.min(batch.length, at + 11));
      hostile(overlong);
      const short = Buffer.from(batch.subarray(0, Math.max(61, at)));
      short.writeInt32BE(short.length - 12, 8);
      hostile(short);
    }
  });
});
