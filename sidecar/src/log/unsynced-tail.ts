/** Bytes in a data directory that were written and are not known to be on the platter. */
export class UnsyncedTail {
  readonly #bytesMax: number;
  #bytes = 0;
  #writtenBytes = 0;

  /** @param bytesMax beyond it acknowledgements wait for the disk, whatever `flush.mode` says */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Everything that was ever written. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  get isFull(): boolean {
    return this.#bytes >= this.#bytesMax;
  }

  wrote(bytes: number): void {
    this.#bytes += bytes;
    this.#writtenBytes += bytes;
  }

  /** So many of them are on the platter, or have gone with their log. */
  synced(bytes: number): void {
    this.#bytes -= bytes;
  }
}
