import type { FileSystem } from '../vfs/file-system.ts';
import { IndexFile } from './index-file.ts';
import { readInt64, writeInt64 } from './int64.ts';

/** `timestamp:i64 relativeOffset:i32`, sparse, both ascending: docs/format/time-index.md. */
const entrySize = 12;

export interface TimeEntry {
  readonly timestamp: number;
  readonly offset: number;
}

/** From a time to an offset before which nothing is younger. */
export class TimeIndex {
  readonly file: IndexFile;
  readonly #baseOffset: number;

  constructor(fs: FileSystem, path: string, baseOffset: number) {
    this.file = new IndexFile(fs, path, entrySize);
    this.#baseOffset = baseOffset;
  }

  /** Adds the largest timestamp so far, unless it was there already. */
  maybeAppend({ timestamp, offset }: TimeEntry): void {
    const last = this.last();
    if (timestamp < 0 || (last !== null && timestamp <= last.timestamp)) return;
    const entry = this.file.append();
    writeInt64(entry, 0, timestamp);
    entry.writeInt32BE(offset - this.#baseOffset, 8);
  }

  /** The last entry that is not younger than `timestamp`. */
  lookup(timestamp: number): TimeEntry | null {
    return this.at(this.file.floor((entry) => timeOf(entry) <= timestamp));
  }

  last(): TimeEntry | null {
    return this.at(this.file.count - 1);
  }

  truncateTo(offset: number): void {
    const relative = offset - this.#baseOffset;
    this.file.truncate(this.file.floor((entry) => entry.readInt32BE(8) < relative) + 1);
  }

  at(index: number): TimeEntry | null {
    if (index < 0 || index >= this.file.count) return null;
    const entry = this.file.entry(index);
    return { timestamp: timeOf(entry), offset: this.#baseOffset + entry.readInt32BE(8) };
  }
}

const timeOf = (entry: Buffer): number => readInt64(entry, 0);
