import type { RecordBatch } from '@rookery/wire';
import type { BatchPosition, Segment } from './segment.ts';

/** What a buffer, its place in a tail and its share of the accounts take beside the bytes themselves. */
const chunkOverhead = 256;

/**
 * The newest bytes of busy partitions, as the very buffers in which they arrived: a reader at the tail gets them
 * without a look at the disk. All partitions share one budget. A partition's batches are kept while somebody
 * reads at its tail; when memory is short, the tail that was read longest ago gives up its oldest.
 *
 * What counts is what is really held: a slice of a buffer holds all of it, once, however many slices there are.
 */
export class TailCache {
  readonly #bytesMax: number;
  #bytes = 0;
  /** Slices of each piece of memory. */
  readonly #slices = new Map<ArrayBufferLike, number>();
  /** Tails that hold something, the one read longest ago first. */
  readonly #tails = new Set<Tail>();
  /** The same for all tails: there may be thousands. */
  readonly #share: Share;

  /** @param bytesMax `tail.cache.bytes`; 0 keeps nothing */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
    this.#share = {
      keeps: bytesMax > 0,
      hold: (tail, chunks) => this.#hold(tail, chunks),
      letGo: (chunks) => this.#letGo(chunks),
      used: (tail) => this.#used(tail),
      emptied: (tail) => void this.#tails.delete(tail),
    };
  }

  /** Bytes of memory that are held. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A place for the newest batches of one partition. */
  tail(): Tail {
    return new Tail(this.#share);
  }

  #hold(tail: Tail, chunks: readonly Buffer[]): void {
    for (const { buffer } of chunks) {
      const slices = this.#slices.get(buffer) ?? 0;
      this.#slices.set(buffer, slices + 1);
      this.#bytes += chunkOverhead + (slices === 0 ? buffer.byteLength : 0);
    }
    this.#tails.add(tail);
    for (const oldest of this.#tails) {
      while (this.#bytes > this.#bytesMax && oldest.dropOldest());
      if (this.#bytes <= this.#bytesMax) return;
    }
  }

  #letGo(chunks: readonly Buffer[]): void {
    for (const { buffer } of chunks) {
      const slices = this.#slices.get(buffer)! - 1;
      if (slices === 0) this.#slices.delete(buffer);
      else this.#slices.set(buffer, slices);
      this.#bytes -= chunkOverhead + (slices === 0 ? buffer.byteLength : 0);
    }
  }

  #used(tail: Tail): void {
    if (this.#tails.delete(tail)) this.#tails.add(tail);
  }
}

interface Share {
  readonly keeps: boolean;
  hold(tail: Tail, chunks: readonly Buffer[]): void;
  letGo(chunks: readonly Buffer[]): void;
  used(tail: Tail): void;
  emptied(tail: Tail): void;
}

interface KeptBatch extends BatchPosition {
  readonly chunks: readonly Buffer[];
}

/** Stands where a batch was, so that nothing leads to its memory any more. */
const dropped: KeptBatch = {
  baseOffset: -1,
  lastOffset: -1,
  position: -1,
  sizeInBytes: 0,
  maxTimestamp: -1,
  chunks: [],
};

/** The newest batches of one partition, without a gap and all of one segment, up to its end. */
export class Tail {
  readonly #share: Share;
  #segment: Segment | null = null;
  #batches: KeptBatch[] = [];
  /** Where in `#batches` the oldest is that is still held. */
  #first = 0;
  /** The batches before it have been read since they came. */
  #unread = 0;
  /** Somebody has read to the end, and will come for what follows. */
  #hasReader = false;

  constructor(share: Share) {
    this.#share = share;
  }

  /** A reader has seen the end of the log: what comes next is for it. */
  reachedEnd(): void {
    this.#hasReader = this.#share.keeps;
    this.#unread = this.#batches.length;
    this.#share.used(this);
  }

  /**
   * Takes a batch that stands in the segment from `position` on. What does not continue the last one begins anew.
   * @returns whether its bytes are held
   */
  add(batch: RecordBatch, segment: Segment, position: number): boolean {
    if (!this.#hasReader) return false;
    if (segment !== this.#segment || position !== this.#end) this.#empty();
    this.#segment = segment;
    const { baseOffset, lastOffset, sizeInBytes, maxTimestamp, chunks } = batch;
    this.#batches.push({ baseOffset, lastOffset, position, sizeInBytes, maxTimestamp, chunks });
    this.#share.hold(this, chunks);
    return true;
  }

  /** The batch that holds the offset, or the first one after it; null when that is not here. */
  find(segment: Segment, offset: number): BatchPosition | null {
    const oldest = this.#batches[this.#first];
    if (segment !== this.#segment || oldest === undefined || offset < oldest.baseOffset) return null;
    return this.#batches[this.#lowest(({ lastOffset }) => lastOffset >= offset)] ?? null;
  }

  /** The bytes of whole batches from one that begins at `position`, the last perhaps cut; null when they are not here. */
  read(segment: Segment, position: number, size: number): Buffer[] | null {
    const oldest = this.#batches[this.#first];
    if (segment !== this.#segment || oldest === undefined) return null;
    if (position < oldest.position || position + size > this.#end) return null;
    const pieces: Buffer[] = [];
    let left = size;
    for (let i = this.#lowest((batch) => batch.position >= position); left > 0; i++) {
      for (const chunk of this.#batches[i]!.chunks) {
        if (left === 0) break;
        pieces.push(chunk.length <= left ? chunk : chunk.subarray(0, left));
        left -= pieces.at(-1)!.length;
      }
    }
    this.#share.used(this);
    return pieces;
  }

  /** Lets go of everything: the log was cut, or is gone. */
  clear(): void {
    this.#empty();
    this.#hasReader = false;
  }

  /**
   * Gives up the oldest batch. One that nobody came to read shows that nobody is at the tail any more, so
   * everything goes.
   *
   * @returns false when there was nothing to give up
   */
  dropOldest(): boolean {
    if (this.#first === this.#batches.length) return false;
    if (this.#first >= this.#unread) {
      this.clear();
      return true;
    }
    this.#share.letGo(this.#batches[this.#first]!.chunks);
    this.#batches[this.#first++] = dropped;
    if (this.#first === this.#batches.length) this.#empty();
    else if (this.#first > 1024 && this.#first * 2 > this.#batches.length) this.#forgetDropped();
    return true;
  }

  get #end(): number {
    const newest = this.#batches.at(-1);
    return newest === undefined ? -1 : newest.position + newest.sizeInBytes;
  }

  #forgetDropped(): void {
    this.#batches = this.#batches.slice(this.#first);
    this.#unread -= this.#first;
    this.#first = 0;
  }

  #empty(): void {
    for (let i = this.#first; i < this.#batches.length; i++) this.#share.letGo(this.#batches[i]!.chunks);
    this.#batches = [];
    this.#first = this.#unread = 0;
    this.#segment = null;
    this.#share.emptied(this);
  }

  /** The first of the batches held for which a claim holds that holds for all after it. */
  #lowest(holds: (batch: KeptBatch) => boolean): number {
    let low = this.#first;
    let high = this.#batches.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (holds(this.#batches[middle]!)) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
