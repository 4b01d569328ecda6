/** The largest piece: a larger frame takes several. */
const pieceMax = 1024 * 1024;
const pieceMin = 32 * 1024;
/** How much lies here unused at most, to be taken again. */
const freeBytesMax = 16 * 1024 * 1024;

/**
 * Memory into which large frames are received, used over and over. V8 would collect as much memory as goes through a
 * busy broker, hundreds of megabytes a second, which costs more than all that is done with the bytes. What is not given
 * back is collected as ever, so giving back is for those alone who know that nobody looks at it any more.
 */
export class FrameMemory {
  /** By size class, the smallest first. */
  readonly #free: Buffer[][] = [];
  #freeBytes = 0;

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** A piece for so many bytes, or for the first of them. Nobody knows what is in it. */
  take(size: number): Buffer {
    const place = classOf(Math.min(size, pieceMax));
    const piece = this.#free[place]?.pop();
    if (piece === undefined) return Buffer.allocUnsafeSlow(pieceMin << place);
    this.#freeBytes -= piece.length;
    return piece;
  }

  /** Takes a piece back, of which no part may be looked at from now on. */
  give(piece: Buffer): void {
    if (this.#freeBytes + piece.length > freeBytesMax) return;
    (this.#free[classOf(piece.length)] ??= []).push(piece);
    this.#freeBytes += piece.length;
  }
}

/** The place of the smallest class that holds so many bytes: each class is twice the one before. */
const classOf = (size: number): number => Math.max(0, 32 - Math.clz32((size - 1) / pieceMin));
