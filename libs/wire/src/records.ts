import { compress, decompress } from './compression.ts';
import { crc32c } from './crc32c.ts';
import { WireError } from './errors.ts';
import {
  batchHeaderSize,
  batchOverhead,
  codecNumber,
  type CompressionCodec,
  type RecordBatch,
} from './record-batch.ts';

export interface RecordHeader {
  readonly key: string;
  readonly value: Buffer | null;
}

/** A record as it stands in the log. Key, value and header values are views into the batch's bytes. */
export interface LogRecord {
  readonly offset: number;
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly RecordHeader[];
}

export interface NewRecord {
  readonly key?: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers?: readonly { readonly key: string; readonly value: Uint8Array | null }[];
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
}

export interface BatchOptions {
  readonly codec?: CompressionCodec;
  readonly producerId?: number;
  readonly producerEpoch?: number;
  readonly baseSequence?: number;
  readonly isControl?: boolean;
  readonly isTransactional?: boolean;
}

/** The fewest bytes of a record: length, attributes, two deltas, two null lengths, no headers. */
const recordSizeMin = 7;
/** The fewest bytes of a record header: an empty key and a null value. */
const headerSizeMin = 2;

/** The most a batch may decompress to: what a broker is ever asked to look into at once. */
export const decompressedMax = 128 * 1024 * 1024;

/**
 * One batch of records, base offset 0 and no leader epoch yet, with a right CRC.
 */
export function encodeBatch(records: readonly NewRecord[], options: BatchOptions = {}): Buffer {
  if (records.length === 0) throw new WireError('RK9012', 'a batch of no records');
  const { codec = 'none' } = options;
  const baseTimestamp = records[0]!.timestamp;
  const batch = encodeRecords(records, baseTimestamp, codec, (i) => i);
  writeHeader(batch, records.length, baseTimestamp, maxTimestampOf(records, baseTimestamp), options);
  return batch;
}

/**
 * A batch with some of its records left out. Offsets, producer, epoch, codec and kind stay, so that the log
 * around it does not notice; a batch may be left without any record.
 *
 * @param records the ones that stay, as `decodeRecords` has given them
 * @param deleteHorizonMs from when on its tombstones may go; null to leave that as it is
 */
export function filterBatch(
  batch: RecordBatch,
  records: readonly LogRecord[],
  deleteHorizonMs: number | null,
): Buffer {
  const { baseOffset, codec, attributes } = batch;
  // Kafka keeps the horizon where the base timestamp was; the records' times are counted from it.
  const baseTimestamp = deleteHorizonMs ?? batch.baseTimestamp;
  const filtered = encodeRecords(records, baseTimestamp, codec, (i) => records[i]!.offset - baseOffset);
  batch.chunks[0]!.copy(filtered, 0, 0, batchHeaderSize);
  filtered.writeInt32BE(filtered.length - batchOverhead, 8);
  // Nothing is nothing in every codec, and none can read it.
  const kept = records.length === 0 ? attributes & ~0x07 : attributes;
  filtered.writeInt16BE(deleteHorizonMs === null ? kept : kept | 0x40, 21);
  writeInt64(filtered, baseTimestamp, 27);
  if (batch.timestampType === 'CreateTime' && records.length > 0)
    writeInt64(filtered, maxTimestampOf(records, records[0]!.timestamp), 35);
  filtered.writeInt32BE(records.length, 57);
  filtered.writeUInt32BE(crc32c([filtered.subarray(21)]), 17);
  return filtered;
}

/**
 * The same batch with its records in another codec: nothing else changes but what follows from that, which is
 * attributes, length and CRC.
 *
 * @param level of gzip and zstd; their own default where nothing is said
 * @param outputMax the most bytes that may come out of the old codec
 * @throws WireError RK9104 and RK9105 from decompression
 */
export function recompressBatch(
  batch: RecordBatch,
  codec: CompressionCodec,
  { level = null, outputMax = decompressedMax }: { level?: number | null; outputMax?: number } = {},
): Buffer {
  const plain = decompress(batch.codec, joined(batch.recordChunks()), outputMax);
  const header = batch.chunks[0]!.subarray(0, batchHeaderSize);
  const recompressed = Buffer.concat([header, compress(codec, plain, level)]);
  recompressed.writeInt32BE(recompressed.length - batchOverhead, 8);
  recompressed.writeInt16BE((batch.attributes & ~0x07) | codecNumber(codec), 21);
  recompressed.writeUInt32BE(crc32c([recompressed.subarray(21)]), 17);
  return recompressed;
}

/** Room for a header, and the records behind it. */
function encodeRecords(
  records: readonly NewRecord[],
  baseTimestamp: number,
  codec: CompressionCodec,
  offsetDelta: (index: number) => number,
): Buffer {
  const sizes = new Int32Array(records.length);
  let total = 0;
  for (let i = 0; i < records.length; i++) {
    const size = recordBodySize(records[i]!, offsetDelta(i), baseTimestamp);
    sizes[i] = size;
    total += varintSize(size) + size;
  }
  const batch = Buffer.allocUnsafe(batchHeaderSize + total);
  const writer = new RecordWriter(batch, batchHeaderSize);
  for (let i = 0; i < records.length; i++)
    writer.record(records[i]!, sizes[i]!, offsetDelta(i), baseTimestamp);
  if (codec === 'none' || records.length === 0) return batch;
  const compressed = compress(codec, batch.subarray(batchHeaderSize));
  return Buffer.concat([batch.subarray(0, batchHeaderSize), compressed]);
}

function maxTimestampOf(records: readonly NewRecord[], atLeast: number): number {
  let max = atLeast;
  for (const { timestamp } of records) if (timestamp > max) max = timestamp;
  return max;
}

function writeHeader(
  batch: Buffer,
  count: number,
  baseTimestamp: number,
  maxTimestamp: number,
  options: BatchOptions,
): void {
  const { codec = 'none', producerId = -1, producerEpoch = -1, baseSequence = -1 } = options;
  const attributes =
    codecNumber(codec) | (options.isTransactional ? 0x10 : 0) | (options.isControl ? 0x20 : 0);
  batch.fill(0, 0, 8);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt32BE(-1, 12);
  batch.writeInt8(2, 16);
  batch.writeInt16BE(attributes, 21);
  batch.writeInt32BE(count - 1, 23);
  writeInt64(batch, baseTimestamp, 27);
  writeInt64(batch, maxTimestamp, 35);
  writeInt64(batch, producerId, 43);
  batch.writeInt16BE(producerEpoch, 51);
  batch.writeInt32BE(baseSequence, 53);
  batch.writeInt32BE(count, 57);
  batch.writeUInt32BE(crc32c([batch.subarray(21)]), 17);
}

function writeInt64(bytes: Buffer, value: number, position: number): void {
  bytes.writeInt32BE(Math.floor(value / 0x100000000), position);
  bytes.writeUInt32BE(value >>> 0, position + 4);
}

/**
 * A batch's records, decompressed within a limit.
 *
 * @throws WireError RK9101 for malformed records, RK9104 and RK9105 from decompression
 */
export function decodeRecords(batch: RecordBatch, outputMax = decompressedMax): LogRecord[] {
  const reader = new RecordReader(batch, outputMax);
  const records: LogRecord[] = [];
  for (let record = reader.next(); record !== null; record = reader.next()) records.push(record);
  return records;
}

/**
 * The same records one after the other, so that a batch of many millions of tiny ones, which takes few bytes
 * once it is compressed, never stands in memory as objects.
 *
 * @throws WireError while it is walked, as `decodeRecords` does
 */
export function* eachRecord(batch: RecordBatch, outputMax = decompressedMax): Generator<LogRecord, void> {
  const reader = new RecordReader(batch, outputMax);
  for (let record = reader.next(); record !== null; record = reader.next()) yield record;
}

const joined = (chunks: readonly Buffer[]): Buffer =>
  chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);

class RecordReader {
  readonly #bytes: Buffer;
  readonly #baseOffset: number;
  readonly #baseTimestamp: number;
  readonly #lastOffset: number;
  /** The broker's time, which stands for every record's own. */
  readonly #appendTime: number | null;
  #position = 0;
  #left: number;
  #offset: number;

  constructor(batch: RecordBatch, outputMax: number) {
    const { codec, baseOffset, recordCount } = batch;
    const packed = joined(batch.recordChunks());
    this.#bytes = codec === 'none' ? packed : decompress(codec, packed, outputMax);
    if (recordCount < 0 || recordCount * recordSizeMin > this.#bytes.length) {
      throw malformed(`${recordCount} records in ${this.#bytes.length} bytes`);
    }
    this.#baseOffset = baseOffset;
    this.#baseTimestamp = batch.baseTimestamp;
    this.#lastOffset = batch.lastOffset;
    this.#appendTime = batch.timestampType === 'LogAppendTime' ? batch.maxTimestamp : null;
    this.#left = recordCount;
    this.#offset = baseOffset - 1;
  }

  /** The next record; null after the last. */
  next(): LogRecord | null {
    if (this.#left === 0) {
      const over = this.#bytes.length - this.#position;
      if (over > 0) throw malformed(`${over} bytes after the last record`);
      return null;
    }
    this.#left--;
    const size = this.#varint();
    const end = this.#position + size;
    if (size < recordSizeMin - 1 || end > this.#bytes.length) throw malformed(`a record of ${size} bytes`);
    this.#position++; // attributes: unused
    const timestamp = this.#baseTimestamp + this.#varlong();
    const offset = this.#baseOffset + this.#varint();
    // A reader's position follows the offsets: one that went back would be read for ever.
    if (offset <= this.#offset || offset > this.#lastOffset) {
      throw malformed(`offset ${offset} after ${this.#offset}, the batch ends at ${this.#lastOffset}`);
    }
    this.#offset = offset;
    const key = this.#view(end);
    const value = this.#view(end);
    const headers = this.#headers(end);
    if (this.#position !== end) throw malformed('a record is not as long as it says');
    return { offset, timestamp: this.#appendTime ?? timestamp, key, value, headers };
  }

  #headers(end: number): readonly RecordHeader[] {
    const count = this.#varint();
    if (count === 0) return noHeaders;
    if (count < 0 || count * headerSizeMin > end - this.#position) throw malformed(`${count} headers`);
    const headers: RecordHeader[] = [];
    for (let i = 0; i < count; i++) {
      const key = this.#view(end);
      if (key === null) throw malformed('a header without a key');
      headers.push({ key: key.toString('utf8'), value: this.#view(end) });
    }
    return headers;
  }

  /** Bytes after their length; null for −1. */
  #view(end: number): Buffer | null {
    const length = this.#varint();
    if (length === -1) return null;
    const start = this.#position;
    if (length < 0 || start + length > end) throw malformed(`${length} bytes where ${end - start} are left`);
    this.#position = start + length;
    return this.#bytes.subarray(start, this.#position);
  }

  /** A zigzag number of at most 32 bits. */
  #varint(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.#position++];
    if (byte !== undefined && byte < 0x80) return (byte >>> 1) ^ -(byte & 1);
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      if (byte === undefined) throw malformed('the bytes end inside a number');
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
      byte = bytes[this.#position++];
    }
    throw malformed('a number of more than 5 bytes');
  }

  /** A zigzag number of at most 64 bits, as a double: timestamps. */
  #varlong(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      const byte = this.#bytes[this.#position++];
      if (byte === undefined) throw malformed('the bytes end inside a number');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw malformed('a timestamp outside ±2^52');
        return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
      }
      scale *= 128;
    }
    throw malformed('a number of more than 10 bytes');
  }
}

const noHeaders: readonly RecordHeader[] = [];

const malformed = (what: string): WireError => new WireError('RK9101', what);

class RecordWriter {
  readonly #bytes: Buffer;
  #position: number;

  constructor(bytes: Buffer, position: number) {
    this.#bytes = bytes;
    this.#position = position;
  }

  record(record: NewRecord, size: number, offsetDelta: number, baseTimestamp: number): void {
    this.#varint(size);
    this.#bytes[this.#position++] = 0;
    this.#varlong(record.timestamp - baseTimestamp);
    this.#varint(offsetDelta);
    this.#blob(record.key ?? null);
    this.#blob(record.value);
    const headers = record.headers;
    if (headers === undefined) {
      this.#bytes[this.#position++] = 0;
      return;
    }
    this.#varint(headers.length);
    for (const { key, value } of headers) {
      const length = Buffer.byteLength(key);
      this.#varint(length);
      this.#position += this.#bytes.write(key, this.#position, length, 'utf8');
      this.#blob(value);
    }
  }

  #blob(value: Uint8Array | null): void {
    if (value === null) {
      this.#bytes[this.#position++] = 1;
      return;
    }
    this.#varint(value.length);
    this.#bytes.set(value, this.#position);
    this.#position += value.length;
  }

  #varint(value: number): void {
    let left = ((value << 1) ^ (value >> 31)) >>> 0;
    while (left >= 0x80) {
      this.#bytes[this.#position++] = (left & 0x7f) | 0x80;
      left >>>= 7;
    }
    this.#bytes[this.#position++] = left;
  }

  #varlong(value: number): void {
    if (value < 0x40000000 && value >= -0x40000000) return this.#varint(value);
    let left = value >= 0 ? value * 2 : -value * 2 - 1;
    while (left >= 0x80) {
      this.#bytes[this.#position++] = (left % 128) | 0x80;
      left = Math.floor(left / 128);
    }
    this.#bytes[this.#position++] = left;
  }
}

function recordBodySize(record: NewRecord, offsetDelta: number, baseTimestamp: number): number {
  const { key = null, value, headers } = record;
  let size =
    1 +
    varlongSize(record.timestamp - baseTimestamp) +
    varintSize(offsetDelta) +
    blobSize(key) +
    blobSize(value);
  if (headers === undefined) return size + 1;
  size += varintSize(headers.length);
  for (const header of headers) {
    const length = Buffer.byteLength(header.key);
    size += varintSize(length) + length + blobSize(header.value);
  }
  return size;
}

const blobSize = (value: Uint8Array | null): number =>
  value === null ? 1 : varintSize(value.length) + value.length;

/** Bytes of a zigzag number. */
function varintSize(value: number): number {
  const zigzag = ((value << 1) ^ (value >> 31)) >>> 0;
  if (zigzag < 0x80) return 1;
  if (zigzag < 0x4000) return 2;
  if (zigzag < 0x200000) return 3;
  return zigzag < 0x10000000 ? 4 : 5;
}

function varlongSize(value: number): number {
  if (value < 0x40000000 && value >= -0x40000000) return varintSize(value);
  let zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
  let size = 1;
  while (zigzag >= 0x80) {
    zigzag = Math.floor(zigzag / 128);
    size++;
  }
  return size;
}
