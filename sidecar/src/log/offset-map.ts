import { hash } from 'node:crypto';

/** 16 bytes of a key's hash, 8 of the offset. */
const entrySize = 24;
const hashSize = 16;
/** Beyond it looking up takes long. */
const loadMax = 0.75;

/**
 * The last offset of each key, in a bounded piece of memory. Keys are known by their MD5 alone, as in Kafka:
 * two keys of one log do not meet in 128 bits.
 */
export class OffsetMap {
  readonly #slots: number;
  readonly #bytes: Buffer;
  readonly #countMax: number;
  #count = 0;

  /**
   * @param keys how many are expected at the most
   * @param bytesMax what the map may take
   */
  constructor(keys: number, bytesMax: number) {
    const wanted = Math.ceil((keys + 1) / loadMax);
    this.#slots = Math.max(2, Math.min(wanted, Math.floor(bytesMax / entrySize)));
    this.#countMax = Math.max(1, Math.floor(this.#slots * loadMax));
    this.#bytes = Buffer.alloc(this.#slots * entrySize);
  }

  get size(): number {
    return this.#count;
  }

  /** @returns whether there was room: nothing has changed when there was not */
  put(key: Uint8Array, offset: number): boolean {
    const digest = digestOf(key);
    const at = this.#find(digest);
    if (!this.#isTaken(at)) {
      if (this.#count >= this.#countMax) return false;
      digest.copy(this.#bytes, at);
      this.#count++;
    }
    // Offsets are kept plus one, so that an empty slot is all zeros.
    this.#bytes.writeDoubleLE(offset + 1, at + hashSize);
    return true;
  }

  /** −1 for a key that is not there. */
  get(key: Uint8Array): number {
    return this.#bytes.readDoubleLE(this.#find(digestOf(key)) + hashSize) - 1;
  }

  /** The key's slot, or the free one where it would go. */
  #find(digest: Buffer): number {
    let slot = digest.readUInt32LE(0) % this.#slots;
    for (;;) {
      const at = slot * entrySize;
      if (!this.#isTaken(at) || this.#bytes.compare(digest, 0, hashSize, at, at + hashSize) === 0) return at;
      slot = slot + 1 === this.#slots ? 0 : slot + 1;
    }
  }

  #isTaken(at: number): boolean {
    return this.#bytes.readDoubleLE(at + hashSize) !== 0;
  }
}

const digestOf = (key: Uint8Array): Buffer => hash('md5', key, 'buffer');
