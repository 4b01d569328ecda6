import type { ByteSpan } from '@rookery/wire';
import type { File } from './file-system.ts';

/**
 * Bytes of a file on their way to a socket. A region holds its file open until it is released, also when the
 * file is deleted meanwhile; the bytes below a log's durable end never change, so it may be read at any time.
 */
export class FileRegion implements ByteSpan {
  readonly file: File;
  readonly position: number;
  readonly byteLength: number;
  #inMemory: readonly Buffer[] | null;

  /** @param inMemory the same bytes, where they happen to be in memory still */
  constructor(file: File, position: number, byteLength: number, inMemory: readonly Buffer[] | null = null) {
    file.retain();
    this.file = file;
    this.position = position;
    this.byteLength = byteLength;
    this.#inMemory = inMemory;
  }

  /** The bytes, where they need not be fetched from the file. */
  get inMemory(): readonly Buffer[] | null {
    return this.#inMemory;
  }

  /** From here on only the file has the bytes: a reader that is slow to take them must not keep memory from others. */
  leaveMemory(): void {
    this.#inMemory = null;
  }

  /** As much as fits into the buffer, from `from` bytes into the region on. */
  async read(into: Buffer, from: number): Promise<Buffer> {
    const piece = this.#fitting(into, from);
    return this.#whole(piece, from, await this.file.read(piece, this.position + from));
  }

  readNow(into = Buffer.allocUnsafe(this.byteLength), from = 0): Buffer {
    const piece = this.#fitting(into, from);
    return this.#whole(piece, from, this.file.readNow(piece, this.position + from));
  }

  release(): void {
    this.#inMemory = null;
    this.file.release();
  }

  #fitting(into: Buffer, from: number): Buffer {
    return into.subarray(0, Math.min(into.length, this.byteLength - from));
  }

  #whole(piece: Buffer, from: number, read: number): Buffer {
    if (read === piece.length) return piece;
    const [end, due] = [this.position + from + read, this.position + this.byteLength];
    throw new Error(`${this.file.path} ends at position ${end}, bytes up to ${due} were to be sent`);
  }
}

/** Lets go of the files behind what will not be sent. */
export function releaseSpans(spans: readonly ByteSpan[]): void {
  for (const span of spans) if (!(span instanceof Uint8Array)) (span as FileRegion).release();
}
