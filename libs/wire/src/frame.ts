import { ByteReader } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';
import { decoderOf, encoderOf } from './compile.ts';
import { WireError } from './errors.ts';
import type { Api, ByteSpan, Decoded, Encodable, Message } from './schema.ts';

/**
 * Frames and headers: `size:int32 header body`. Request headers are v1, or v2 (with a tag buffer) where the
 * request is flexible; v0, without a client id, belonged to an API that is gone, so nothing speaks it.
 * Response headers are v0, or v1 (with a tag buffer) where the response is flexible. ApiVersions is the one
 * exception: its response header is always v0, because a client asks before it knows what the broker speaks.
 */

const apiVersionsKey = 18;

/** A chunk of at most so many bytes is a crumb when another frame's beginning waits already. */
const crumbMax = 512;
const crumbsBytes = 16 * 1024;
const noBytes = Buffer.alloc(0);

export interface RequestHeader {
  readonly apiKey: number;
  readonly apiVersion: number;
  readonly correlationId: number;
  readonly clientId: string | null;
}

export const requestHeaderVersion = (api: Api, version: number): number =>
  version >= api.flexibleFrom ? 2 : 1;

export const responseHeaderVersion = (api: Api, version: number): number =>
  api.key !== apiVersionsKey && version >= api.flexibleFrom ? 1 : 0;

/**
 * Reads the header as far as every version has it: key, version, correlation id, client id. The tag buffer
 * of a v2 header is `skipRequestHeaderTags`'s, once the caller knows that it serves this version.
 */
export function decodeRequestHeader(reader: ByteReader): RequestHeader {
  const apiKey = reader.int16();
  const apiVersion = reader.int16();
  const correlationId = reader.int32();
  // The client id keeps its 16-bit length even in the flexible header.
  const clientId = reader.text(reader.int16());
  return { apiKey, apiVersion, correlationId, clientId };
}

export function skipRequestHeaderTags(api: Api, version: number, reader: ByteReader): void {
  if (requestHeaderVersion(api, version) >= 2) reader.skipTags();
}

/** @returns the response's correlation id */
export function decodeResponseHeader(api: Api, version: number, reader: ByteReader): number {
  const correlationId = reader.int32();
  if (responseHeaderVersion(api, version) >= 1) reader.skipTags();
  return correlationId;
}

/** A whole request frame, its size first. Large byte fields stay by reference. */
export function encodeRequest<A extends Api>(
  api: A,
  version: number,
  header: { correlationId: number; clientId: string | null },
  body: Encodable<A['request']>,
): ByteSpan[] {
  const encode = encoderOf(api.request, version);
  const writer = new ByteWriter();
  writer.int32(0);
  writer.int16(api.key);
  writer.int16(version);
  writer.int32(header.correlationId);
  if (header.clientId === null) writer.int16(-1);
  else writer.text(header.clientId);
  if (requestHeaderVersion(api, version) >= 2) writer.uvarint(0);
  encode(writer, body);
  return sealed(writer);
}

/** A whole response frame, its size first. File regions and large buffers stay by reference. */
export function encodeResponse<A extends Api>(
  api: A,
  version: number,
  correlationId: number,
  body: Encodable<A['response']>,
): ByteSpan[] {
  const encode = encoderOf(api.response, version);
  const writer = new ByteWriter();
  writer.int32(0);
  writer.int32(correlationId);
  if (responseHeaderVersion(api, version) >= 1) writer.uvarint(0);
  encode(writer, body);
  return sealed(writer);
}

/** A message body on its own, as group metadata and the consumer protocol store it. */
export function encodeMessage<M extends Message>(message: M, version: number, value: Encodable<M>): Buffer {
  const writer = new ByteWriter();
  encoderOf(message, version)(writer, value);
  return writer.join();
}

/** @param trailing what may follow the last field: nothing, or (`allow`) bytes of a newer version, as the consumer protocol permits */
export function decodeMessage<M extends Message>(
  message: M,
  version: number,
  bytes: Buffer | readonly Buffer[],
  trailing: 'refuse' | 'allow' = 'refuse',
): Decoded<M> {
  const reader = new ByteReader(bytes);
  const value = decoderOf(message, version)(reader);
  if (trailing === 'refuse') reader.end();
  return value;
}

function sealed(writer: ByteWriter): ByteSpan[] {
  const size = writer.size - 4;
  const spans = writer.finish();
  (spans[0] as Buffer).writeInt32BE(size, 0);
  return spans;
}

/**
 * Cuts a stream into frames without joining chunks: what a frame took stays in the chunks that it arrived in.
 * Memory grows with the bytes that came, never with what a size field announces. Only crumbs are joined: a
 * chunk is an object of some hundred bytes, so a peer that sends byte by byte would take a hundred times the
 * memory of its frame.
 */
export class FrameCutter {
  readonly #sizeMax: number;
  #chunks: Buffer[] = [];
  #have = 0;
  #size = -1;
  /** Where crumbs are joined, and how much of it is taken; what is handed out is never written again. */
  #crumbs: Buffer = noBytes;
  #crumbsUsed = 0;

  /** @param sizeMax the largest frame in bytes, its size field aside; a larger one is RK9011 */
  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax;
  }

  /** Bytes held for a frame that is not whole yet. */
  get held(): number {
    return this.#have;
  }

  /** The size that the frame in the making has announced; −1 between frames. */
  get pending(): number {
    return this.#size;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#have += chunk.length;
    const last = this.#chunks.at(-1);
    if (last === undefined || chunk.length > crumbMax) this.#chunks.push(chunk);
    else if (this.#endsIn(last)) this.#chunks[this.#chunks.length - 1] = this.#extended(last, chunk);
    else if (last.length > crumbMax) this.#chunks.push(chunk);
    else this.#chunks[this.#chunks.length - 1] = this.#joined(last, chunk);
  }

  /** Whether a chunk is the last of the crumbs, and there is room behind it. */
  #endsIn(chunk: Buffer): boolean {
    return (
      chunk.buffer === this.#crumbs.buffer &&
      chunk.byteOffset + chunk.length === this.#crumbs.byteOffset + this.#crumbsUsed &&
      this.#crumbsUsed + crumbMax <= this.#crumbs.length
    );
  }

  #extended(last: Buffer, chunk: Buffer): Buffer {
    const start = this.#crumbsUsed - last.length;
    chunk.copy(this.#crumbs, this.#crumbsUsed);
    this.#crumbsUsed += chunk.length;
    return this.#crumbs.subarray(start, this.#crumbsUsed);
  }

  #joined(last: Buffer, chunk: Buffer): Buffer {
    if (this.#crumbsUsed + 2 * crumbMax > this.#crumbs.length) {
      this.#crumbs = Buffer.allocUnsafeSlow(crumbsBytes);
      this.#crumbsUsed = 0;
    }
    const start = this.#crumbsUsed;
    this.#crumbsUsed += last.copy(this.#crumbs, start);
    return this.#extended(this.#crumbs.subarray(start, this.#crumbsUsed), chunk);
  }

  /** The next whole frame in its chunks, without its size; null until it is complete. */
  next(): Buffer[] | null {
    if (this.#size < 0) {
      if (this.#have < 4) return null;
      this.#size = this.#readSize();
      if (this.#size < 0 || this.#size > this.#sizeMax) {
        throw new WireError('RK9011', `${this.#size} bytes, the limit is ${this.#sizeMax}`);
      }
    }
    if (this.#have < this.#size) return null;
    const frame = this.#take(this.#size);
    this.#size = -1;
    return frame;
  }

  #readSize(): number {
    const first = this.#chunks[0]!;
    if (first.length >= 4) {
      const size = first.readInt32BE(0);
      this.#drop(4);
      return size;
    }
    return Buffer.concat(this.#take(4)).readInt32BE(0);
  }

  #drop(size: number): void {
    const first = this.#chunks[0]!;
    if (first.length === size) this.#chunks.shift();
    else this.#chunks[0] = first.subarray(size);
    this.#have -= size;
  }

  #take(size: number): Buffer[] {
    this.#have -= size;
    const taken: Buffer[] = [];
    let whole = 0;
    while (size > 0) {
      const chunk = this.#chunks[whole]!;
      if (chunk.length > size) {
        taken.push(chunk.subarray(0, size));
        this.#chunks[whole] = chunk.subarray(size);
        break;
      }
      taken.push(chunk);
      size -= chunk.length;
      whole++;
    }
    this.#chunks.splice(0, whole);
    return taken;
  }
}
