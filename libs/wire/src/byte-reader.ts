import { isUtf8 } from 'node:buffer';
import { WireError } from './errors.ts';

const viewOf = (chunk: Buffer): DataView => new DataView(chunk.buffer, chunk.byteOffset, chunk.length);

const noBytes = Buffer.alloc(0);
const noView = viewOf(noBytes);

/**
 * A bounds-checked cursor over the chunks of one frame, without joining them: a chunk is left where it
 * arrived, and only a value that straddles two chunks is stitched together. Views handed out (`bytes`,
 * `spans`) point into the frame's own memory.
 *
 * `need(n)` is the one check: after it, `n` bytes stand at `position` in `view`.
 */
export class ByteReader {
  view: DataView;
  chunk: Buffer;
  position = 0;
  readonly #chunks: readonly Buffer[];
  #next = 0;
  /** What a stitched value has left of its last chunk: it comes before the next one. */
  #tail: Buffer | null = null;
  /** Bytes in chunks after the current one. */
  #later: number;
  #elementsLeft: number;

  /** @param elementsMax how many array elements a message may hold in all, so that a small frame cannot ask for much memory */
  constructor(chunks: Buffer | readonly Buffer[], elementsMax = 1_000_000) {
    this.#chunks = Array.isArray(chunks) ? (chunks as readonly Buffer[]) : [chunks as Buffer];
    this.#later = 0;
    for (const chunk of this.#chunks) this.#later += chunk.length;
    this.#elementsLeft = elementsMax;
    this.chunk = noBytes;
    this.view = noView;
    this.#advance();
  }

  get remaining(): number {
    return this.chunk.length - this.position + this.#later;
  }

  /** Makes sure that `size` bytes stand in one piece at `position`. */
  need(size: number): void {
    if (this.chunk.length - this.position < size) this.#stitch(size);
  }

  /** A message is over: what is left is an error. */
  end(): void {
    if (this.remaining > 0) throw new WireError('RK9002', `${this.remaining} bytes`);
  }

  int8(): number {
    this.need(1);
    return this.view.getInt8(this.position++);
  }

  int16(): number {
    this.need(2);
    const value = this.view.getInt16(this.position);
    this.position += 2;
    return value;
  }

  uint16(): number {
    return this.int16() & 0xffff;
  }

  int32(): number {
    this.need(4);
    const value = this.view.getInt32(this.position);
    this.position += 4;
    return value;
  }

  uint32(): number {
    return this.int32() >>> 0;
  }

  int64(): number {
    this.need(8);
    const value = safe(this.view.getInt32(this.position), this.view.getUint32(this.position + 4));
    this.position += 8;
    return value;
  }

  float64(): number {
    this.need(8);
    const value = this.view.getFloat64(this.position);
    this.position += 8;
    return value;
  }

  bool(): boolean {
    return this.int8() !== 0;
  }

  uuid(): string {
    this.need(16);
    const text = this.chunk.toString('base64url', this.position, this.position + 16);
    this.position += 16;
    return text;
  }

  /** An unsigned variable-length number of at most 32 bits. */
  uvarint(): number {
    let value = 0;
    for (let weight = 1; weight < 2 ** 35; weight *= 0x80) {
      this.need(1);
      const byte = this.view.getUint8(this.position++);
      value += (byte & 0x7f) * weight;
      if (byte < 0x80) {
        if (value > 0xffffffff) break;
        return value;
      }
    }
    throw new WireError('RK9007', `at byte ${this.position}`);
  }

  /** A string, or null: `length` as it stood on the wire, −1 for null. */
  text(length: number): string | null {
    if (length < 0) return this.#absent(length);
    this.#within(length);
    this.need(length);
    const start = this.position;
    this.position += length;
    const text = this.chunk.toString('utf8', start, this.position);
    // The decoder puts U+FFFD where the bytes are not UTF-8; only then is it worth looking whether it stood there.
    if (text.includes('�') && !isUtf8(this.chunk.subarray(start, this.position))) {
      throw new WireError('RK9005', `${length} bytes`);
    }
    return text;
  }

  /** One buffer, copied only when it straddles chunks; null for length −1. */
  bytes(length: number): Buffer | null {
    if (length < 0) return this.#absent(length);
    this.#within(length);
    this.need(length);
    this.position += length;
    return this.chunk.subarray(this.position - length, this.position);
  }

  /** The bytes in the chunks they arrived in, never copied; null for length −1. */
  spans(length: number): readonly Buffer[] | null {
    if (length < 0) return this.#absent(length);
    this.#within(length);
    const spans: Buffer[] = [];
    while (length > 0) {
      if (this.position === this.chunk.length) this.#advance();
      const size = Math.min(length, this.chunk.length - this.position);
      spans.push(this.chunk.subarray(this.position, this.position + size));
      this.position += size;
      length -= size;
    }
    return spans;
  }

  /**
   * Believes a count only if so many elements could be there; −1 (null) passes through.
   * @param elementSize the fewest bytes that one element takes
   */
  count(count: number, elementSize: number): number {
    if (count < -1 || count * elementSize > this.remaining) {
      throw new WireError('RK9003', `${count} elements in ${this.remaining} bytes`);
    }
    // Null is no element: it must not give back what others have used.
    if (count > 0) this.#elementsLeft -= count;
    if (this.#elementsLeft < 0) throw new WireError('RK9009', `${count} more`);
    return count;
  }

  /** Passes over one tag buffer whose fields nobody here knows. */
  skipTags(): void {
    let tags = this.count(this.uvarint(), 2);
    for (let last = -1; tags > 0; tags--) last = this.skipTag(this.tag(last));
  }

  /** The next tag's number, which must be greater than the last. */
  tag(last: number): number {
    const tag = this.uvarint();
    if (tag <= last) throw new WireError('RK9010', `tag ${tag} after ${last}`);
    return tag;
  }

  /** Passes over the value of a tag; returns the tag. */
  skipTag(tag: number): number {
    let size = this.tagSize();
    while (size > 0) {
      if (this.position === this.chunk.length) this.#advance();
      const step = Math.min(size, this.chunk.length - this.position);
      this.position += step;
      size -= step;
    }
    return tag;
  }

  /** The size of a tagged field's value, known to be there. */
  tagSize(): number {
    const size = this.uvarint();
    this.#within(size);
    return size;
  }

  /** A tagged field must take exactly the bytes that it announced. */
  tagEnd(remainingAfter: number): void {
    if (this.remaining !== remainingAfter)
      throw new WireError('RK9002', 'a tagged field is not as long as it says');
  }

  #within(length: number): void {
    if (length > this.remaining) throw new WireError('RK9003', `${length} bytes of ${this.remaining}`);
  }

  #absent(length: number): null {
    if (length !== -1) throw new WireError('RK9003', `length ${length}`);
    return null;
  }

  /** Moves to the next chunk that has bytes, if there is one. */
  #advance(): void {
    for (let chunk = this.#take(); chunk !== undefined; chunk = this.#take()) {
      this.#later -= chunk.length;
      this.#use(chunk);
      if (chunk.length > 0) return;
    }
  }

  #take(): Buffer | undefined {
    const tail = this.#tail;
    if (tail === null) return this.#chunks[this.#next++];
    this.#tail = null;
    return tail;
  }

  /** Joins the end of this chunk with as much of the following ones as `size` needs. */
  #stitch(size: number): void {
    if (size > this.remaining)
      throw new WireError('RK9001', `${size} more bytes needed, ${this.remaining} left`);
    if (this.position === this.chunk.length) {
      this.#advance();
      if (this.chunk.length >= size) return;
    }
    const pieces = [this.chunk.subarray(this.position)];
    let have = pieces[0]!.length;
    while (have < size) {
      const chunk = this.#take()!;
      const piece = chunk.subarray(0, size - have);
      pieces.push(piece);
      have += piece.length;
      this.#later -= piece.length;
      if (piece.length < chunk.length) this.#tail = chunk.subarray(piece.length);
    }
    this.#use(Buffer.concat(pieces, have));
  }

  #use(chunk: Buffer): void {
    this.chunk = chunk;
    this.view = viewOf(chunk);
    this.position = 0;
  }
}

/** A 64-bit integer from its halves; refused when a double cannot hold it exactly. */
export function safe(high: number, low: number): number {
  if (high > 0x1fffff || high < -0x200000) throw new WireError('RK9004', `0x${(high >>> 0).toString(16)}……`);
  return high * 0x100000000 + low;
}
