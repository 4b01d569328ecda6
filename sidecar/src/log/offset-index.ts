import type { FileSystem } from '../vfs/file-system.ts';
import { IndexFile } from './index-file.ts';

/** `relativeOffset:i32 position:i32`, sparse: docs/format/offset-index.md. */
const entrySize = 8;

/** The furthest an offset may be from its segment's base: indexes keep it in 31 bits. */
export const relativeOffsetMax = 0x7fffffff;

export interface OffsetEntry {
  /** The last offset of the batch that begins at `position`. */
  readonly lastOffset: number;
  readonly position: number;
}

/** From an offset to a position at or before the batch that holds it. */
export class OffsetIndex {
  readonly file: IndexFile;
  readonly #baseOffset: number;

  constructor(fs: FileSystem, path: string, baseOffset: number) {
    this.file = new IndexFile(fs, path, entrySize);
    this.#baseOffset = baseOffset;
  }

  /** @param lastOffset the last offset of the batch that begins at `position` */
  append(lastOffset: number, position: number): void {
    const entry = this.file.append();
    entry.writeInt32BE(lastOffset - this.#baseOffset, 0);
    entry.writeInt32BE(position, 4);
  }

  /** The last entry that is not past an offset, −1 for none. */
  floor(offset: number): number {
    const relative = offset - this.#baseOffset;
    return this.file.floor((entry) => entry.readInt32BE(0) <= relative);
  }

  last(): OffsetEntry | null {
    return this.at(this.file.count - 1);
  }

  at(index: number): OffsetEntry | null {
    if (index < 0 || index >= this.file.count) return null;
    const entry = this.file.entry(index);
    return { lastOffset: this.#baseOffset + entry.readInt32BE(0), position: entry.readInt32BE(4) };
  }

  /** Forgets entries for offsets at or after this one. */
  truncateTo(offset: number): void {
    const relative = offset - this.#baseOffset;
    this.file.truncate(this.file.floor((entry) => entry.readInt32BE(0) < relative) + 1);
  }
}
