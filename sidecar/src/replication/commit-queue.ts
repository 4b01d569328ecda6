import type { ErrorName } from '@rookery/wire';
import { assert } from '../invariant.ts';

/** Told once: null when the offset is committed, else the name of the error that took the promise away. */
export type Committed = (error: ErrorName | null) => void;

/**
 * Those who wait for the high watermark of one partition to pass an offset, in the order of their offsets:
 * appends come in that order, so releasing them is a walk from the front and costs nothing else.
 */
export class CommitQueue {
  #waiting: { readonly offset: number; readonly committed: Committed }[] = [];
  #head = 0;

  get size(): number {
    return this.#waiting.length - this.#head;
  }

  /** @param offset the last offset that must be below the high watermark */
  add(offset: number, committed: Committed): void {
    const last = this.#waiting.at(-1);
    assert(last === undefined || last.offset <= offset, 'appends are awaited in the order of their offsets');
    this.#waiting.push({ offset, committed });
  }

  release(highWatermark: number): void {
    while (this.#head < this.#waiting.length && this.#waiting[this.#head]!.offset < highWatermark) {
      this.#waiting[this.#head++]!.committed(null);
    }
    if (this.#head === this.#waiting.length || this.#head > 1024) {
      this.#waiting.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** Nobody at or after the offset will be told of a commit any more: they are told of the error. */
  fail(error: ErrorName, fromOffset = 0): void {
    const first = this.#waiting.findIndex(({ offset }, i) => i >= this.#head && offset >= fromOffset);
    if (first < 0) return;
    for (const { committed } of this.#waiting.splice(first)) committed(error);
  }
}
