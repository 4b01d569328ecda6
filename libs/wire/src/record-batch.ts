import { safe } from './byte-reader.ts';
import { crc32c } from './crc32c.ts';
import { WireError } from './errors.ts';

/**
 * A record batch (magic 2) as a view over the bytes that hold it:
 *
 *   baseOffset:i64 batchLength:i32 partitionLeaderEpoch:i32 magic:i8 crc:u32
 *   attributes:i16 lastOffsetDelta:i32 baseTimestamp:i64 maxTimestamp:i64
 *   producerId:i64 producerEpoch:i16 baseSequence:i32 recordCount:i32  records…
 *
 * The CRC-32C covers everything from the attributes on, so base offset and leader epoch can be patched where
 * they lie without touching it. docs/format/log-segment.md has the picture.
 */

export const batchHeaderSize = 61;
/** Base offset and batch length, which the batch length does not count. */
export const batchOverhead = 12;

const at = {
  batchLength: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  recordCount: 57,
} as const;

const codecs = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
export type CompressionCodec = (typeof codecs)[number];
export const codecNumber = (codec: CompressionCodec): number => codecs.indexOf(codec);

const codecMask = 0x07;
const logAppendTimeBit = 0x08;
const transactionalBit = 0x10;
const controlBit = 0x20;
const deleteHorizonBit = 0x40;

export class RecordBatch {
  /** The whole batch, in the chunks it came in; the header is always in one piece. */
  readonly chunks: readonly Buffer[];
  readonly sizeInBytes: number;
  readonly #header: Buffer;

  private constructor(chunks: readonly Buffer[], sizeInBytes: number) {
    this.chunks = chunks;
    this.sizeInBytes = sizeInBytes;
    this.#header = chunks[0]!;
  }

  /**
   * Cuts chunks into whole batches by their length fields.
   * @throws WireError RK9101 when they do not end with the end of a batch
   */
  static split(chunks: readonly Buffer[]): RecordBatch[] {
    let left = 0;
    for (const chunk of chunks) left += chunk.length;
    const batches: RecordBatch[] = [];
    const cursor = new ChunkCursor(chunks);
    while (left > 0) {
      if (left < batchHeaderSize)
        throw new WireError('RK9101', `${left} bytes where a header of 61 should be`);
      const header = cursor.contiguous(batchHeaderSize);
      const size = batchOverhead + header.readInt32BE(at.batchLength);
      if (size < batchHeaderSize || size > left)
        throw new WireError('RK9101', `a batch of ${size} bytes in ${left}`);
      batches.push(new RecordBatch(cursor.take(header, size), size));
      left -= size;
    }
    return batches;
  }

  /**
   * The batch that begins at `position`; null when the bytes end before it does, as at a torn tail or where a
   * fetch was cut.
   * @throws WireError RK9101 when the length field cannot be a batch's
   */
  static read(bytes: Buffer, position: number): RecordBatch | null {
    if (bytes.length - position < batchOverhead) return null;
    const size = batchOverhead + bytes.readInt32BE(position + at.batchLength);
    if (size < batchHeaderSize) throw new WireError('RK9101', `a batch of ${size} bytes`);
    if (bytes.length - position < size) return null;
    return new RecordBatch([bytes.subarray(position, position + size)], size);
  }

  /**
   * Only the header of a batch: all that locating and scanning need. Its records are not there to be read.
   * @throws WireError RK9101 when the bytes end before it does, or the length field cannot be a batch's
   */
  static header(bytes: Buffer, position = 0): RecordBatch {
    if (bytes.length - position < batchHeaderSize) {
      throw new WireError('RK9101', `${bytes.length - position} bytes where a header of 61 should be`);
    }
    const size = batchOverhead + bytes.readInt32BE(position + at.batchLength);
    if (size < batchHeaderSize) throw new WireError('RK9101', `a batch of ${size} bytes`);
    return new RecordBatch([bytes.subarray(position, position + batchHeaderSize)], size);
  }

  get baseOffset(): number {
    return this.#int64(0);
  }

  get partitionLeaderEpoch(): number {
    return this.#header.readInt32BE(at.leaderEpoch);
  }

  get magic(): number {
    return this.#header.readInt8(at.magic);
  }

  get crc(): number {
    return this.#header.readUInt32BE(at.crc);
  }

  get attributes(): number {
    return this.#header.readInt16BE(at.attributes);
  }

  get lastOffsetDelta(): number {
    return this.#header.readInt32BE(at.lastOffsetDelta);
  }

  get baseTimestamp(): number {
    return this.#int64(at.baseTimestamp);
  }

  get maxTimestamp(): number {
    return this.#int64(at.maxTimestamp);
  }

  get producerId(): number {
    return this.#int64(at.producerId);
  }

  get producerEpoch(): number {
    return this.#header.readInt16BE(at.producerEpoch);
  }

  get baseSequence(): number {
    return this.#header.readInt32BE(at.baseSequence);
  }

  get recordCount(): number {
    return this.#header.readInt32BE(at.recordCount);
  }

  get lastOffset(): number {
    return this.baseOffset + this.lastOffsetDelta;
  }

  get nextOffset(): number {
    return this.lastOffset + 1;
  }

  /** @throws WireError RK9103 for a codec that does not exist */
  get codec(): CompressionCodec {
    const codec = codecs[this.attributes & codecMask];
    if (codec === undefined) throw new WireError('RK9103', `codec ${this.attributes & codecMask}`);
    return codec;
  }

  get timestampType(): 'CreateTime' | 'LogAppendTime' {
    return (this.attributes & logAppendTimeBit) === 0 ? 'CreateTime' : 'LogAppendTime';
  }

  get isTransactional(): boolean {
    return (this.attributes & transactionalBit) !== 0;
  }

  get isControl(): boolean {
    return (this.attributes & controlBit) !== 0;
  }

  get hasDeleteHorizon(): boolean {
    return (this.attributes & deleteHorizonBit) !== 0;
  }

  setBaseOffset(offset: number): void {
    this.#setInt64(0, offset);
  }

  setPartitionLeaderEpoch(epoch: number): void {
    this.#header.writeInt32BE(epoch, at.leaderEpoch);
  }

  /** Stamps the broker's time on the batch. It lies inside the CRC, which is computed anew. */
  setLogAppendTime(timestamp: number): void {
    this.#header.writeInt16BE(this.attributes | logAppendTimeBit, at.attributes);
    this.#setInt64(at.maxTimestamp, timestamp);
    this.#header.writeUInt32BE(this.#computeCrc(), at.crc);
  }

  /** Says whose batch it is, anew when it could not be sent as another's. It lies inside the CRC. */
  setProducer(producer: { producerId: number; producerEpoch: number; baseSequence: number }): void {
    this.#setInt64(at.producerId, producer.producerId);
    this.#header.writeInt16BE(producer.producerEpoch, at.producerEpoch);
    this.#header.writeInt32BE(producer.baseSequence, at.baseSequence);
    this.#header.writeUInt32BE(this.#computeCrc(), at.crc);
  }

  checkCrc(): boolean {
    return this.#computeCrc() === this.crc;
  }

  /** What follows the header, still compressed. */
  recordChunks(): Buffer[] {
    const [first, ...rest] = this.chunks;
    return [first!.subarray(batchHeaderSize), ...rest];
  }

  #computeCrc(): number {
    const { chunks } = this;
    if (chunks.length === 1) return crc32c([chunks[0]!.subarray(at.attributes)]);
    return crc32c([chunks[0]!.subarray(at.attributes), ...chunks.slice(1)]);
  }

  #int64(position: number): number {
    return safe(this.#header.readInt32BE(position), this.#header.readUInt32BE(position + 4));
  }

  #setInt64(position: number, value: number): void {
    this.#header.writeInt32BE(Math.floor(value / 0x100000000), position);
    this.#header.writeUInt32BE(value >>> 0, position + 4);
  }
}

/** Walks chunks and hands out batches; a header that straddles chunks becomes a piece of its own. */
class ChunkCursor {
  readonly #chunks: readonly Buffer[];
  #index = 0;
  #position = 0;

  constructor(chunks: readonly Buffer[]) {
    this.#chunks = chunks;
  }

  /** The next `size` bytes in one piece: a view where they lie in one chunk, else a copy. Not moved past. */
  contiguous(size: number): Buffer {
    this.#settle();
    const chunk = this.#chunks[this.#index]!;
    if (chunk.length - this.#position >= size) return chunk.subarray(this.#position, this.#position + size);
    const pieces = [chunk.subarray(this.#position)];
    for (let i = this.#index + 1, have = pieces[0]!.length; have < size; i++) {
      const piece = this.#chunks[i]!.subarray(0, size - have);
      pieces.push(piece);
      have += piece.length;
    }
    return Buffer.concat(pieces, size);
  }

  /** The next `size` bytes as chunks, of which `header` is the beginning, perhaps a copy. */
  take(header: Buffer, size: number): Buffer[] {
    const first = this.#chunks[this.#index]!;
    const inPlace = header.buffer === first.buffer && header.byteOffset === first.byteOffset + this.#position;
    if (inPlace) return this.#slices(size);
    this.#slices(header.length);
    return [header, ...this.#slices(size - header.length)];
  }

  #slices(size: number): Buffer[] {
    const slices: Buffer[] = [];
    while (size > 0) {
      this.#settle();
      const chunk = this.#chunks[this.#index]!;
      const slice = chunk.subarray(this.#position, this.#position + size);
      slices.push(slice);
      this.#position += slice.length;
      size -= slice.length;
    }
    return slices;
  }

  #settle(): void {
    while (this.#position === this.#chunks[this.#index]!.length) {
      this.#index++;
      this.#position = 0;
    }
  }
}
