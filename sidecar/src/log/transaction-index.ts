import type { FileSystem } from '../vfs/file-system.ts';
import { IndexFile } from './index-file.ts';

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

/** The transactions whose abort marker is in a segment. Most segments have none, and no file. */
export class TransactionIndex {
  readonly file: IndexFile;

  constructor(fs: FileSystem, path: string) {
    this.file = new IndexFile(fs, path, entrySize);
  }

  append({ producerId, firstOffset, lastOffset, lastStableOffset }: AbortedTransaction): void {
    const entry = this.file.append();
    entry.writeInt16BE(version, 0);
    entry.writeBigInt64BE(BigInt(producerId), 2);
    entry.writeBigInt64BE(BigInt(firstOffset), 10);
    entry.writeBigInt64BE(BigInt(lastOffset), 18);
    entry.writeBigInt64BE(BigInt(lastStableOffset), 26);
  }

  *all(): Generator<AbortedTransaction> {
    for (let i = 0; i < this.file.count; i++) {
      const entry = this.file.entry(i);
      yield {
        producerId: Number(entry.readBigInt64BE(2)),
        firstOffset: Number(entry.readBigInt64BE(10)),
        lastOffset: Number(entry.readBigInt64BE(18)),
        lastStableOffset: Number(entry.readBigInt64BE(26)),
      };
    }
  }

  /** Forgets transactions whose marker is at or after this offset. */
  truncateTo(offset: number): void {
    let kept = 0;
    for (const { lastOffset } of this.all()) if (lastOffset < offset) kept++;
    if (kept < this.file.count) this.file.truncate(kept);
  }
}
