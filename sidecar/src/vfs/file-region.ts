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

  constructor(file: File, position: number, byteLength: number) {
    file.retain();
    this.file = file;
    this.position = position;
    this.byteLength = byteLength;
  }

  /** As much as fits into the buffer, from `from` bytes into the region on. */
  async read(into: Buffer, from: number): Promise<Buffer> {
    const piece = into.subarray(0, Math.min(into.length, this.byteLength - from));
    return this.#whole(piece, await this.file.read(piece, this.position + from));
  }

  readNow(): Buffer {
    const bytes = Buffer.allocUnsafe(this.byteLength);
    return this.#whole(bytes, this.file.readNow(bytes, this.position));
  }

  release(): void {
    this.file.release();
  }

  #whole(piece: Buffer, read: number): Buffer {
    if (read === piece.length) return piece;
    throw new Error(
      `${this.file.path} ends ${piece.length - read} bytes before position ${this.position + this.byteLength}`,
    );
  }
}

/** Lets go of the files behind what will not be sent. */
export function releaseSpans(spans: readonly ByteSpan[]): void {
  for (const span of spans) if (!(span instanceof Uint8Array)) (span as FileRegion).release();
}
