import type { File, FileSystem } from '../vfs/file-system.ts';

const nothing = Buffer.alloc(0);

/**
 * A file of sorted, fixed-size entries. Entries appended stay in memory until `flush`, because the file is
 * only an aid: it is rebuilt from the log after a crash, so it need not keep up with every append.
 */
export class IndexFile {
  /** Follows the file when it is renamed. */
  path: string;
  readonly entrySize: number;
  /** The file was there when this one was looked at first. */
  readonly isThere: boolean;
  readonly #fs: FileSystem;
  #file: File | null = null;
  /** Entries in the file. */
  #stored: number;
  /** Entries that are not in the file yet. */
  #fresh: Buffer = nothing;
  #freshCount = 0;

  constructor(fs: FileSystem, path: string, entrySize: number) {
    this.#fs = fs;
    this.path = path;
    this.entrySize = entrySize;
    this.isThere = fs.exists(path);
    this.#stored = this.isThere ? Math.floor(fs.size(path) / entrySize) : 0;
  }

  get count(): number {
    return this.#stored + this.#freshCount;
  }

  get sizeInBytes(): number {
    return this.count * this.entrySize;
  }

  /** The bytes of an entry: a view that the next call may overwrite. */
  entry(index: number): Buffer {
    if (index >= this.#stored) {
      const at = (index - this.#stored) * this.entrySize;
      return this.#fresh.subarray(at, at + this.entrySize);
    }
    const bytes = Buffer.alloc(this.entrySize);
    this.#open().readNow(bytes, index * this.entrySize);
    return bytes;
  }

  /** Room for one more entry, to be filled by the caller. */
  append(): Buffer {
    const at = this.#freshCount * this.entrySize;
    if (at + this.entrySize > this.#fresh.length) {
      const larger = Buffer.allocUnsafe(Math.max(16 * this.entrySize, 2 * this.#fresh.length));
      this.#fresh.copy(larger);
      this.#fresh = larger;
    }
    this.#freshCount++;
    return this.#fresh.subarray(at, at + this.entrySize);
  }

  /** The last entry for which `isAtOrBelow` holds, −1 when it holds for none; entries are sorted by it. */
  floor(isAtOrBelow: (entry: Buffer) => boolean): number {
    let low = -1;
    let high = this.count - 1;
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2);
      if (isAtOrBelow(this.entry(middle))) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  truncate(count: number): void {
    if (count < this.#stored) {
      this.#open().truncateNow(count * this.entrySize);
      this.#stored = count;
      this.#freshCount = 0;
    } else {
      this.#freshCount = count - this.#stored;
    }
  }

  /**
   * Puts the entries into the file; nothing is synced. The file is let go at once, because one with unsynced bytes
   * keeps its descriptor until a sync, and an index is synced only when its segment takes no more batches: each busy
   * log would keep two. That nobody hears of a write that the disk could not carry out does no harm here, for every
   * entry is checked by what it leads to.
   */
  flush(): void {
    if (this.#freshCount === 0) return;
    const file = this.#open();
    file.writeNow(
      [this.#fresh.subarray(0, this.#freshCount * this.entrySize)],
      this.#stored * this.entrySize,
    );
    this.#stored += this.#freshCount;
    this.#freshCount = 0;
    this.#fresh = nothing;
    this.close();
  }

  async sync(): Promise<void> {
    this.flush();
    await this.#open().sync();
  }

  syncNow(): void {
    this.flush();
    this.#open().syncNow();
  }

  close(): void {
    this.#file?.release();
    this.#file = null;
  }

  #open(): File {
    if (this.#file === null) {
      this.#file = this.#fs.open(this.path, 'create');
      // A torn entry at the end is no entry.
      if (this.#file.size() !== this.#stored * this.entrySize)
        this.#file.truncateNow(this.#stored * this.entrySize);
    }
    return this.#file;
  }
}
