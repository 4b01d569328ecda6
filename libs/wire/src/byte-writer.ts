import { WireError } from './errors.ts';
import type { ByteSpan } from './schema.ts';

/** Spans shorter than this are copied: a gathered write costs more per piece than the copy. */
const copiedMax = 1024;
/** A string of at most so many characters is tried as ASCII first. */
const shortMax = 40;
/** 16 bytes in unpadded base64. */
const uuidChars = 22;

/**
 * A growing buffer that lets large byte spans pass through by reference: `finish` yields what to send, in
 * order, as buffers and foreign spans (file regions). Like the reader, it has one check, `room(n)`, after
 * which `n` bytes can be written at `position` in `view`.
 */
export class ByteWriter {
  view: DataView;
  chunk: Buffer;
  position = 0;
  #spans: ByteSpan[] = [];
  /** Bytes in spans that are closed already. */
  #closed = 0;
  /** Where in `chunk` the open span begins. */
  #start = 0;

  constructor(capacity = 512) {
    this.chunk = Buffer.allocUnsafe(capacity);
    this.view = new DataView(this.chunk.buffer, this.chunk.byteOffset, capacity);
  }

  /** Bytes written so far, foreign spans included. */
  get size(): number {
    return this.#closed + this.position - this.#start;
  }

  room(size: number): void {
    if (this.chunk.length - this.position < size) this.#grow(size);
  }

  int8(value: number): void {
    this.room(1);
    this.view.setInt8(this.position++, value);
  }

  int16(value: number): void {
    this.room(2);
    this.view.setInt16(this.position, value);
    this.position += 2;
  }

  uint16(value: number): void {
    this.int16(value);
  }

  int32(value: number): void {
    this.room(4);
    this.view.setInt32(this.position, value);
    this.position += 4;
  }

  uint32(value: number): void {
    this.int32(value | 0);
  }

  int64(value: number): void {
    this.room(8);
    this.setInt64(this.position, value);
    this.position += 8;
  }

  /** Writes a 64-bit integer at a place that `room` has already made. */
  setInt64(position: number, value: number): void {
    if (!Number.isSafeInteger(value)) throw new WireError('RK9004', String(value));
    this.view.setInt32(position, Math.floor(value / 0x100000000));
    this.view.setUint32(position + 4, value >>> 0);
  }

  float64(value: number): void {
    this.room(8);
    this.view.setFloat64(this.position, value);
    this.position += 8;
  }

  bool(value: boolean): void {
    this.int8(value ? 1 : 0);
  }

  uuid(value: string): void {
    this.room(16);
    this.setUuid(this.position, value);
    this.position += 16;
  }

  setUuid(position: number, value: string): void {
    if (value.length !== uuidChars || this.chunk.write(value, position, 16, 'base64url') !== 16)
      throw new WireError('RK9012', `uuid '${value}'`);
  }

  uvarint(value: number): void {
    this.room(5);
    while (value >= 0x80) {
      this.view.setUint8(this.position++, (value & 0x7f) | 0x80);
      value = Math.floor(value / 128);
    }
    this.view.setUint8(this.position++, value);
  }

  /** A string with a 16-bit length. */
  text(value: string): void {
    if (value.length <= shortMax) {
      this.room(2 + value.length);
      if (this.#ascii(value, this.position + 2)) {
        this.view.setInt16(this.position, value.length);
        this.position += 2 + value.length;
        return;
      }
    }
    const length = Buffer.byteLength(value);
    if (length > 0x7fff) throw new WireError('RK9012', `a string of ${length} bytes`);
    this.int16(length);
    this.#utf8(value, length);
  }

  /** A string with a variable-length length plus one. */
  compactText(value: string): void {
    if (value.length <= shortMax) {
      this.room(1 + value.length);
      if (this.#ascii(value, this.position + 1)) {
        this.view.setUint8(this.position, value.length + 1);
        this.position += 1 + value.length;
        return;
      }
    }
    const length = Buffer.byteLength(value);
    this.uvarint(length + 1);
    this.#utf8(value, length);
  }

  /** Bytes without a length: copied when short, by reference otherwise. */
  bytes(value: Uint8Array): void {
    if (value.length <= copiedMax) {
      this.room(value.length);
      this.chunk.set(value, this.position);
      this.position += value.length;
    } else {
      this.#pass(value);
    }
  }

  /** Spans without a length, foreign ones untouched. */
  spans(values: readonly ByteSpan[]): void {
    for (const value of values) {
      if (value instanceof Uint8Array) this.bytes(value);
      else this.#pass(value);
    }
  }

  /** Everything written, in order. The writer must not be used afterwards. */
  finish(): ByteSpan[] {
    this.#close();
    return this.#spans;
  }

  /** Everything written in one buffer. Foreign spans cannot be joined: a caller's mistake. */
  join(): Buffer {
    const spans = this.finish();
    if (spans.length === 1) return spans[0] as Buffer;
    return Buffer.concat(spans as Buffer[]);
  }

  /** Writes a short string if it is ASCII, as names are; two calls into native code would take longer. */
  #ascii(value: string, position: number): boolean {
    const { chunk } = this;
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code > 0x7f) return false;
      chunk[position + i] = code;
    }
    return true;
  }

  #utf8(value: string, length: number): void {
    this.room(length);
    this.position += this.chunk.write(value, this.position, length, 'utf8');
  }

  #pass(span: ByteSpan): void {
    this.#close();
    this.#spans.push(span);
    this.#closed += span.byteLength;
  }

  #close(): void {
    if (this.position === this.#start) return;
    this.#spans.push(this.chunk.subarray(this.#start, this.position));
    this.#closed += this.position - this.#start;
    this.#start = this.position;
  }

  #grow(size: number): void {
    const open = this.chunk.subarray(this.#start, this.position);
    const chunk = Buffer.allocUnsafe(Math.max(1024, 2 * (open.length + size)));
    open.copy(chunk);
    this.chunk = chunk;
    this.view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    this.position = open.length;
    this.#start = 0;
  }
}
