import { describe, expect, test } from 'vitest';
import { compress, decompress } from './compression.ts';
import type { CompressionCodec } from './record-batch.ts';

const codecs: CompressionCodec[] = ['gzip', 'snappy', 'lz4', 'zstd'];
const plain = Buffer.from('what is compressed and comes back '.repeat(200));
/** A varint and nothing behind it: a raw snappy block that only claims a length. */
const claimed = (...length: number[]): Buffer => Buffer.from(length);

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};

const uint32le = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

describe.each(codecs)('%s', (codec) => {
  const packed = compress(codec, plain);

  test('the limit is exact: what just fits comes out, one byte less is refused', () => {
    expect(decompress(codec, packed, plain.length).equals(plain)).toBe(true);
    expect(() => decompress(codec, packed, plain.length - 1)).toThrow(/RK9105/);
    expect(() => decompress(codec, packed, 0)).toThrow(/RK9105/);
  });

  test('bytes cut short anywhere are malformed', () => {
    for (let length = 0; length < packed.length; length++) {
      // The header of an xerial stream that has no blocks: an empty stream, as Java writes it.
      if (codec === 'snappy' && length === 16) continue;
      expect(() => decompress(codec, packed.subarray(0, length), 100_000)).toThrow(/RK9104/);
    }
  });

  test('bytes after the end are malformed', () => {
    expect(() => decompress(codec, Buffer.concat([packed, Buffer.from('more')]), 10_000)).toThrow(/RK9104/);
  });

  test('the bytes of another codec are malformed', () => {
    for (const other of codecs.filter((name) => name !== codec)) {
      expect(() => decompress(codec, compress(other, plain), 10_000)).toThrow(/RK910[45]/);
    }
  });

  test('a bomb is refused with little memory taken', () => {
    const bomb = compress(codec, Buffer.alloc(64_000_000));
    expect(() => decompress(codec, bomb, 100_000)).toThrow(/RK9105/);
  });
});

describe('snappy', () => {
  const framed = compress('snappy', plain);
  const header = framed.subarray(0, 16);
  const block = framed.subarray(20, 20 + framed.readInt32BE(16));

  test('raw blocks are read as well as framed ones', () => {
    expect(decompress('snappy', block, 100_000).equals(plain.subarray(0, 32 * 1024))).toBe(true);
  });

  test('blocks of a frame count together', () => {
    const blocks = Buffer.concat([int32(block.length), block]);
    const many = Buffer.concat([header, blocks, blocks, blocks]);
    expect(decompress('snappy', many, 3 * plain.length)).toHaveLength(3 * plain.length);
    expect(() => decompress('snappy', many, 3 * plain.length - 1)).toThrow(/RK9105/);
  });

  test('a length that so few bytes cannot make is refused before memory is taken for it', () => {
    expect(() => decompress('snappy', claimed(0xff, 0xff, 0xff, 0x3f), 2 ** 31)).toThrow(
      /RK9104.*from a block of 4/,
    );
    expect(() => decompress('snappy', claimed(0xff, 0xff, 0xff, 0xff, 0xff, 1), 2 ** 31)).toThrow(/RK9104/);
  });

  test.each([
    ['a negative block length', Buffer.concat([header, int32(-1)])],
    ['a block longer than what is left', Buffer.concat([header, int32(1000), block.subarray(0, 50)])],
    ['half a block length', Buffer.concat([header, Buffer.from([0, 0])])],
  ])('%s is malformed', (_, bytes) => {
    expect(() => decompress('snappy', bytes, 100_000)).toThrow(/RK9104/);
  });
});

describe('lz4', () => {
  const packed = compress('lz4', plain);
  /** Blocks of at most 64 KiB, each on its own, no checksums, no content size; the checksum is not looked at. */
  const begin = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x00]);
  const end = uint32le(0);
  const frame = (...blocks: Buffer[]): Buffer =>
    Buffer.concat([begin, ...blocks.flatMap((block) => [uint32le(block.length), block]), end]);

  test('the frames that we write are those that the Java client reads', () => {
    // It takes version 1 with independent blocks and neither dictionary nor reserved bits.
    expect(packed[4]! & 0b1110_0011).toBe(0b0110_0000);
  });

  test('stored blocks, block checksums, content size and content checksum are read', () => {
    const stored = Buffer.concat([uint32le(0x80000000 + 5), Buffer.from('plain')]);
    expect(decompress('lz4', Buffer.concat([begin, stored, end]), 10).toString()).toBe('plain');
    const flags = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x7c, 0x40, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
    const checked = Buffer.concat([flags, stored, uint32le(1), end, uint32le(2)]);
    expect(decompress('lz4', checked, 10).toString()).toBe('plain');
  });

  test('a match that overlaps itself is a run', () => {
    // One literal, then 19 + 4 bytes from one byte back.
    expect(decompress('lz4', frame(Buffer.from([0x1f, 0x61, 1, 0, 4])), 100).toString()).toBe('a'.repeat(24));
  });

  test('a match that runs past the limit is refused where it does', () => {
    const long = Buffer.concat([
      Buffer.from([0x1f, 0x61, 1, 0]),
      Buffer.alloc(1_000_000, 255),
      Buffer.from([0]),
    ]);
    expect(() => decompress('lz4', frame(long), 100_000)).toThrow(/RK9105/);
  });

  test.each([
    ['a match before the beginning', frame(Buffer.from([0x10, 0x61, 2, 0]))],
    ['a match no bytes back', frame(Buffer.from([0x10, 0x61, 0, 0]))],
    ['literals that are not there', frame(Buffer.from([0xf0, 200, 0x61]))],
    ['a length without an end', frame(Buffer.from([0xf0, 255, 255]))],
    ['half a distance', frame(Buffer.from([0x10, 0x61, 1]))],
    ['a block longer than what is left', Buffer.concat([begin, uint32le(1000)])],
    ['no end mark', Buffer.concat([begin, uint32le(2), Buffer.from([0x10, 0x61])])],
    ['a dictionary', Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x61, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
    ['another version', Buffer.from([0x04, 0x22, 0x4d, 0x18, 0xa0, 0x40, 0, 0, 0, 0, 0])],
    ['an unknown block size', Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x00, 0, 0, 0, 0, 0])],
  ])('%s is malformed', (_, bytes) => {
    expect(() => decompress('lz4', bytes, 100_000)).toThrow(/RK9104/);
  });
});

test('a zstd frame that wants a larger window than Kafka ever uses is refused', () => {
  // Magic, a header without content size, and a window of 2^27 bytes.
  const wide = Buffer.concat([
    Buffer.from('28b52ffd00', 'hex'),
    Buffer.from([17 << 3]),
    Buffer.from('010000', 'hex'),
  ]);
  const narrow = Buffer.concat([
    Buffer.from('28b52ffd00', 'hex'),
    Buffer.from([10 << 3]),
    Buffer.from('010000', 'hex'),
  ]);
  expect(decompress('zstd', narrow, 1000)).toHaveLength(0);
  expect(() => decompress('zstd', wide, 1000)).toThrow(/RK9104/);
});
