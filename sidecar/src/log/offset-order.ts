import type { RecordBatch } from '@rookery/wire';

export interface OrderOptions {
  /** The offset that comes next. */
  readonly expected: number;
  /** Up to this one offsets may be missing between batches, because the log was compacted or they were deleted. */
  readonly holesUpTo: number;
  /** No offset reaches this one: the next segment begins there. */
  readonly limit?: number | undefined;
}

/** The first place at which the offsets do not follow one another. */
export interface Misplaced {
  readonly position: number;
  /** The offset that should come there. */
  readonly offset: number;
  readonly problem: string;
}

/**
 * Whether batches carry the offsets that they were given. The base offset lies outside the CRC, because the leader
 * patches it in, so only its neighbours tell whether it is right: in a log that was never compacted each must be the
 * one that comes next. Where holes are allowed, a batch that has moved up looks like one behind a hole, until the
 * next one goes back; then it is the one in front that is not believed.
 */
export class OffsetOrder {
  readonly #holesUpTo: number;
  readonly #limit: number;
  #next: number;
  /** The last batch, when it stands behind a hole. */
  #behindHole: Misplaced | null = null;

  constructor({ expected, holesUpTo, limit = Infinity }: OrderOptions) {
    this.#next = expected;
    this.#holesUpTo = holesUpTo;
    this.#limit = limit;
  }

  /** The offset after the last batch that was in order. */
  get next(): number {
    return this.#next;
  }

  /** Takes the batch that stands at a position; null when it is in order there. */
  take(
    { baseOffset, nextOffset }: Pick<RecordBatch, 'baseOffset' | 'nextOffset'>,
    position: number,
  ): Misplaced | null {
    const offset = this.#next;
    // Said only of a batch that needs it: millions of others go by.
    const misplaced = (problem = `base offset ${baseOffset} where ${offset} should be`): Misplaced => {
      return { position, offset, problem };
    };
    const before = this.#behindHole;
    if (baseOffset < offset) return before !== null && baseOffset >= before.offset ? before : misplaced();
    const isBehindHole = baseOffset > offset;
    if (isBehindHole && baseOffset > this.#holesUpTo) return misplaced();
    if (nextOffset > this.#limit)
      return misplaced(`offset ${nextOffset - 1} before a segment that begins at ${this.#limit}`);
    this.#behindHole = isBehindHole ? misplaced() : null;
    this.#next = nextOffset;
    return null;
  }
}
