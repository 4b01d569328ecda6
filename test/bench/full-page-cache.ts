import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { totalmem, tmpdir } from 'node:os';
import { join } from 'node:path';

const pieceBytes = 256 * 1024 * 1024;
const chunk = Buffer.alloc(1024 * 1024);

/** The most of the disk that may be in use, whatever the memory. */
const diskShareMax = 0.8;

/**
 * A page cache that is full, as that of a host which has served for some days. On a virtual machine the first touch
 * of a page that nobody has used for a while is the hypervisor's to serve, and costs several times what copying into
 * the page does; how often a broker meets one then decides what a write costs it. Where the cache is full, pages come
 * from what was in it before, and every broker's writes cost the same.
 */
export class FullPageCache {
  readonly #unusedBytesMax: number;
  readonly #unusedBytes: () => number;
  readonly #home = mkdtempSync(join(tmpdir(), 'rookery-page-cache-'));
  readonly #files: string[] = [];
  #made = 0;

  /** With so much memory unused the cache counts as full. */
  constructor(unusedBytesMax = totalmem() / 20, unusedBytes = unusedMemory) {
    this.#unusedBytesMax = unusedBytesMax;
    this.#unusedBytes = unusedBytes;
    process.on('exit', () => this.empty());
  }

  /** Again before each broker: what one has left behind is deleted, and its pages with it. */
  fill(): void {
    while (this.#unusedBytes() > this.#unusedBytesMax) {
      const { blocks, bavail } = statfsSync(this.#home);
      if (bavail < blocks * (1 - diskShareMax))
        throw new Error(`${this.#home}: the disk has no room for as much as the memory holds`);
      this.#add();
      // The oldest are in memory no more.
      if (this.#files.length * pieceBytes > totalmem()) rmSync(this.#files.shift()!);
    }
  }

  empty(): void {
    rmSync(this.#home, { recursive: true, force: true });
    this.#files.length = 0;
  }

  #add(): void {
    const path = join(this.#home, String(this.#made++));
    const file = openSync(path, 'w');
    for (let written = 0; written < pieceBytes; written += chunk.length) writeSync(file, chunk);
    // Memory is only made free of what the disk has.
    fsyncSync(file);
    closeSync(file);
    this.#files.push(path);
  }
}

/** Bytes of memory that hold nothing at all. */
function unusedMemory(): number {
  return Number(/^MemFree:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'latin1'))![1]) * 1_024;
}
