import { assert } from '../invariant.ts';
import type { Segment } from './segment.ts';

/** A log's segments in the order of their base offsets; the last one is active. There is always one. */
export class SegmentList {
  #segments: Segment[];

  constructor(segments: readonly Segment[]) {
    assert(segments.length > 0, 'a log has a segment');
    this.#segments = [...segments];
  }

  get active(): Segment {
    return this.#segments.at(-1)!;
  }

  get length(): number {
    return this.#segments.length;
  }

  get sizeInBytes(): number {
    let size = 0;
    for (const segment of this.#segments) size += segment.sizeInBytes;
    return size;
  }

  /** The segments as they stand: what changes the list later does not change this. */
  all(): readonly Segment[] {
    return this.#segments;
  }

  at(index: number): Segment | undefined {
    return this.#segments[index];
  }

  /** The index of the segment in which an offset would be; 0 for one before the first. */
  floor(offset: number): number {
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2);
      if (this.#segments[middle]!.baseOffset <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Whether there are segments of all these base offsets. */
  has(bases: readonly number[]): boolean {
    return bases.every((base) => this.#segments[this.floor(base)]!.baseOffset === base);
  }

  add(segment: Segment): void {
    assert(segment.baseOffset > this.active.baseOffset, 'segments are added at the end');
    this.#segments = [...this.#segments, segment];
  }

  /** Puts one segment in the place of neighbours with these base offsets, and returns those. */
  replace(bases: readonly number[], by: Segment): Segment[] {
    const first = this.#segments.findIndex(({ baseOffset }) => baseOffset === bases[0]);
    const replaced = this.#segments.slice(first, first + bases.length);
    assert(
      first >= 0 && replaced.every(({ baseOffset }, i) => baseOffset === bases[i]),
      'what is replaced is there, side by side',
    );
    this.#segments = [...this.#segments.slice(0, first), by, ...this.#segments.slice(first + bases.length)];
    return replaced;
  }

  /** Forgets the first so many segments, and returns them; the active one stays. */
  drop(count: number): Segment[] {
    assert(count < this.#segments.length, 'the active segment stays');
    const dropped = this.#segments.slice(0, count);
    this.#segments = this.#segments.slice(count);
    return dropped;
  }

  /** Forgets the segments behind this index, and returns them. */
  cutAfter(index: number): Segment[] {
    const cut = this.#segments.slice(index + 1);
    this.#segments = this.#segments.slice(0, index + 1);
    return cut;
  }
}
