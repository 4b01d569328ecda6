import { batchHeaderSize, batchOverhead, RecordBatch, WireError } from '@rookery/wire';
import type { File } from '../vfs/file-system.ts';

/** How far a segment's bytes are good. */
export interface Scanned {
  /** The offset after the last good batch. */
  readonly nextOffset: number;
  readonly position: number;
  /** Why the scan stopped before the end of the file; null when it did not. */
  readonly damage: string | null;
}

/** How much is read at once; a larger batch gets a buffer of its own. */
const pieceBytes = 1 << 20;
/** No batch is larger: no request is. */
const batchBytesMax = 1 << 30;

export interface ScanOptions {
  /** Where a batch begins. */
  readonly from: number;
  /** The offset at or after which that batch must begin. */
  readonly expected: number;
  /** Up to this one offsets may be missing between batches, because the log was compacted or they were deleted. */
  readonly holesUpTo: number;
  /** Where the segment's whole batches are known to end; what is behind is not looked at. */
  readonly until?: number;
  /** Told of every good batch. */
  readonly note?: (batch: RecordBatch, position: number) => void;
}

/** Reads and checks every batch from a position on, before the loop turns: at a start, when nobody waits for it. */
export function scanNow(log: File, options: ScanOptions): Scanned {
  const size = options.until ?? log.size();
  const batches = new BatchReader(options, size);
  for (let want = batches.next(); want !== null; want = batches.next()) {
    const bytes = Buffer.allocUnsafe(want.size);
    batches.take(bytes.subarray(0, log.readNow(bytes, want.position)));
  }
  return batches.scanned;
}

/**
 * The same on the pool, piece by piece.
 * @param pause told how much was read, before the next piece; the scan ends where it says false
 */
export async function scan(
  log: File,
  options: ScanOptions,
  pause: (bytes: number) => Promise<boolean>,
): Promise<Scanned | null> {
  const batches = new BatchReader(options, options.until ?? log.size());
  // The segment may be closed while a piece is on its way.
  log.retain();
  try {
    return await scanPieces(log, batches, pause);
  } finally {
    log.release();
  }
}

async function scanPieces(
  log: File,
  batches: BatchReader,
  pause: (bytes: number) => Promise<boolean>,
): Promise<Scanned | null> {
  for (let want = batches.next(); want !== null; want = batches.next()) {
    const bytes = Buffer.allocUnsafe(want.size);
    batches.take(bytes.subarray(0, await log.read(bytes, want.position)));
    if (!(await pause(want.size))) return null;
  }
  return batches.scanned;
}

interface Wanted {
  readonly position: number;
  readonly size: number;
}

/** Checks batches out of the pieces that it asks for. */
class BatchReader {
  readonly #size: number;
  readonly #note: (batch: RecordBatch, position: number) => void;
  #position: number;
  #nextOffset: number;
  readonly #holesUpTo: number;
  #damage: string | null = null;
  #pieceBytes: number = pieceBytes;

  constructor({ from, expected, holesUpTo, note = () => {} }: ScanOptions, size: number) {
    this.#size = size;
    this.#position = from;
    this.#nextOffset = expected;
    this.#holesUpTo = holesUpTo;
    this.#note = note;
  }

  get scanned(): Scanned {
    return { nextOffset: this.#nextOffset, position: this.#position, damage: this.#damage };
  }

  /** What must be read next; null when there is no more to see. */
  next(): Wanted | null {
    const left = this.#size - this.#position;
    if (this.#damage !== null || left <= 0) return null;
    return { position: this.#position, size: Math.min(left, this.#pieceBytes) };
  }

  take(bytes: Buffer): void {
    let at = 0;
    try {
      for (;;) {
        const batch = RecordBatch.read(bytes, at);
        if (batch === null) break;
        this.#damage = damageOf(batch, this.#nextOffset, this.#holesUpTo);
        if (this.#damage !== null) return;
        this.#note(batch, this.#position);
        this.#nextOffset = batch.nextOffset;
        this.#position += batch.sizeInBytes;
        at += batch.sizeInBytes;
      }
      this.#pieceBytes = pieceBytes;
      if (at === 0) this.#askForMore(bytes);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#damage = error.message;
    }
  }

  /** Not even one batch was in the piece. */
  #askForMore(bytes: Buffer): void {
    const needed =
      bytes.length < batchOverhead
        ? batchHeaderSize
        : Math.max(batchHeaderSize, batchOverhead + bytes.readInt32BE(8));
    const isWhole = bytes.length < needed && this.#position + needed <= this.#size;
    if (isWhole && needed <= batchBytesMax) this.#pieceBytes = needed;
    else this.#damage = 'the file ends inside a batch';
  }
}

/** What is wrong with a batch, whole as it is; null when nothing is. */
function damageOf(batch: RecordBatch, expected: number, holesUpTo: number): string | null {
  const { magic, baseOffset } = batch;
  if (magic !== 2) return `magic ${magic}`;
  // The base offset lies outside the CRC: only its neighbours tell whether it is right.
  if (baseOffset !== expected && (baseOffset < expected || baseOffset > holesUpTo))
    return `base offset ${baseOffset} where ${expected} should be`;
  if (batch.lastOffsetDelta < 0 || batch.recordCount < 0) return 'a negative count';
  return batch.checkCrc() ? null : 'a batch fails its CRC';
}
