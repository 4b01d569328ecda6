/** What a connection gets when the pool is empty: slow, but no peer that stops reading can starve the others. */
const scantBytes = 16 * 1024;

/** Buffers for reading files into on their way to a socket; a bounded number of large ones, reused. */
export class BufferPool {
  readonly #size: number;
  readonly #free: Buffer[] = [];
  #left: number;

  /** @param count how many large buffers there may be in all; @param size bytes of each */
  constructor(count: number, size: number) {
    this.#left = count;
    this.#size = size;
  }

  take(): Buffer {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#left === 0) return Buffer.allocUnsafeSlow(scantBytes);
    this.#left--;
    return Buffer.allocUnsafeSlow(this.#size);
  }

  give(buffer: Buffer): void {
    if (buffer.length === this.#size) this.#free.push(buffer);
  }
}
