import type { FileSystem } from '../vfs/file-system.ts';
import { IndexFile } from './index-file.ts';
import { readInt64, writeInt64 } from './int64.ts';

/** `version:i16 producerId:i64 firstOffset:i64 lastOffset:i64 lastStableOffset:i64`: docs/format/transaction-index.md. */
const entrySize = 34;
const version = 0;

export interface AbortedTransaction {
  readonly producerId: number;
  readonly firstOffset: number;
  /** The offset of the marker that ended it. */
  readonly lastOffset: number;
  /** The last stable offset once it was aborted: whoever reads below it needs this entry no more. */
  readonly lastStableOffset: number;
}

/** What an entry says; null where no transaction can be like that. */
export function readAborted(entry: Buffer): AbortedTransaction | null {
  const aborted = {
    producerId: readInt64(entry, 2),
    firstOffset: readInt64(entry, 10),
    lastOffset: readInt64(entry, 18),
    lastStableOffset: readInt64(entry, 26),
  };
  const { producerId, firstOffset, lastOffset, lastStableOffset } = aborted;
  const isPossible =
    entry.readInt16BE(0) === version &&
    producerId >= 0 &&
    firstOffset >= 0 &&
    firstOffset < lastOffset &&
    lastStableOffset <= lastOffset + 1;
  return isPossible ? aborted : null;
}

/** The transactions whose abort marker is in a segment. Most segments have none, and no file. */
export class TransactionIndex {
  readonly file: IndexFile;

  constructor(fs: FileSystem, path: string) {
    this.file = new IndexFile(fs, path, entrySize);
  }

  append({ producerId, firstOffset, lastOffset, lastStableOffset }: AbortedTransaction): void {
    const entry = this.file.append();
    entry.writeInt16BE(version, 0);
    writeInt64(entry, 2, producerId);
    writeInt64(entry, 10, firstOffset);
    writeInt64(entry, 18, lastOffset);
    writeInt64(entry, 26, lastStableOffset);
  }

  /** The entries in the order of their markers; null for one that cannot be what was written. */
  *all(): Generator<AbortedTransaction | null> {
    for (let i = 0; i < this.file.count; i++) yield readAborted(this.file.entry(i));
  }

  /** Forgets transactions whose marker is at or after this offset. */
  truncateTo(offset: number): void {
    let kept = 0;
    for (const transaction of this.all()) {
      if (transaction === null || transaction.lastOffset >= offset) break;
      kept++;
    }
    if (kept < this.file.count) this.file.truncate(kept);
  }
}
