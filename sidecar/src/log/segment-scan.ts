import { batchHeaderSize, batchOverhead, RecordBatch, WireError } from '@rookery/wire';
import type { File } from '../vfs/file-system.ts';
import { OffsetOrder, type Misplaced, type OrderOptions } from './offset-order.ts';

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

export interface ScanOptions extends OrderOptions {
  /** Where a batch begins. */
  readonly from: number;
  /** Where the segment's whole batches are known to end; what is behind is not looked at. */
  readonly until?: number;
  /** Told of every good batch; of those, one may turn out to be misplaced when the one behind it is read. */
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
  readonly #order: OffsetOrder;
  #position: number;
  #damage: string | null = null;
  /** A batch that was taken for good before the one behind it told otherwise. */
  #misplaced: Misplaced | null = null;
  #pieceBytes: number = pieceBytes;

  constructor(options: ScanOptions, size: number) {
    this.#size = size;
    this.#position = options.from;
    this.#order = new OffsetOrder(options);
    this.#note = options.note ?? ((): void => {});
  }

  get scanned(): Scanned {
    if (this.#misplaced === null)
      return { nextOffset: this.#order.next, position: this.#position, damage: this.#damage };
    const { offset, position, problem } = this.#misplaced;
    return { nextOffset: offset, position, damage: problem };
  }

  /** What must be read next; null when there is no more to see. */
  next(): Wanted | null {
    const left = this.#size - this.#position;
    if (this.#damage !== null || this.#misplaced !== null || left <= 0) return null;
    return { position: this.#position, size: Math.min(left, this.#pieceBytes) };
  }

  take(bytes: Buffer): void {
    let at = 0;
    try {
      for (;;) {
        const batch = RecordBatch.read(bytes, at);
        if (batch === null) break;
        this.#damage = damageOf(batch);
        if (this.#damage !== null) return;
        this.#misplaced = this.#order.take(batch, this.#position);
        if (this.#misplaced !== null) return;
        this.#note(batch, this.#position);
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

/** What is wrong with a batch, whole as it is and wherever it stands; null when nothing is. */
function damageOf(batch: RecordBatch): string | null {
  if (batch.magic !== 2) return `magic ${batch.magic}`;
  if (batch.lastOffsetDelta < 0 || batch.recordCount < 0) return 'a negative count';
  return batch.checkCrc() ? null : 'a batch fails its CRC';
}
