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

/** What tells where in a log offsets may be missing. */
export interface HoleFacts {
  /** It is or was compacted, or nobody knows. */
  readonly mayHaveHoles: boolean;
  /** The last stop was orderly. */
  readonly isMarked: boolean;
  readonly logStartOffset: number;
  /** Null when nobody knows. */
  readonly recoveryPoint: number | null;
}

/** Up to where a log may have holes: what is compacted is below the recovery point, and that was on disk before. */
export function holesIn({ mayHaveHoles, isMarked, logStartOffset, recoveryPoint }: HoleFacts): number {
  const compacted = isMarked ? Infinity : (recoveryPoint ?? Infinity);
  return Math.max(logStartOffset, mayHaveHoles ? compacted : 0);
}

/**
 * The same in its last segment, which is never compacted: after an orderly stop a batch behind a hole of it has moved
 * past the end.
 *
 * @param named the recovery point that the checkpoint names, null for none
 */
export function holesInLast(facts: HoleFacts, named: number | null): number {
  const end = facts.isMarked && named !== null ? Math.max(facts.logStartOffset, named - 1) : Infinity;
  return Math.min(holesIn(facts), end);
}
