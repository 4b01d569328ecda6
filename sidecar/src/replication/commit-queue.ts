import type { ErrorName } from '@rookery/wire';

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
    const waiting = { offset, committed };
    let at = this.#waiting.length;
    // Appends come in the order of their offsets; only the repetition of one that still waits is behind.
    while (at > this.#head && this.#waiting[at - 1]!.offset > offset) at--;
    if (at === this.#waiting.length) this.#waiting.push(waiting);
    else this.#waiting.splice(at, 0, waiting);
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
