import type { RecordBatch } from '@rookery/wire';
import type { AbortedReplay } from './aborted-replay.ts';
import type { OffsetEntry } from './offset-index.ts';
import { unindexedBytesMax, type Segment } from './segment.ts';
import type { TimeEntry } from './time-index.ts';

/**
 * Holds the indexes of a closed segment against its batches, as these go by. Lookups check what they meet; but entries
 * that all lead to the front are true as far as they go, and what is missing from an index of transactions is not met
 * by anybody: only this finds them.
 */
export class IndexAudit {
  readonly #segment: Segment;
  readonly #replay: AbortedReplay | null;
  #offsetEntry = 0;
  #timeEntry = 0;
  /** Bytes of batches from the last one on that an entry leads to. */
  #unindexedBytes = 0;
  #isWrong = false;

  /** @param replay what was aborted in the segment; null where the batches do not tell */
  constructor(segment: Segment, replay: AbortedReplay | null) {
    this.#segment = segment;
    this.#replay = replay;
  }

  note(batch: RecordBatch, position: number): void {
    this.#replay?.note(batch);
    if (this.#isWrong) return;
    const { index, timeIndex } = this.#segment;
    const isBehind = (entry: OffsetEntry | null): boolean => entry !== null && entry.position > position;
    const isLater = (entry: TimeEntry | null): boolean => entry !== null && entry.offset > batch.lastOffset;
    const offsets = index.at(this.#offsetEntry);
    if (this.#unindexedBytes > unindexedBytesMax && (offsets === null || isBehind(offsets)))
      this.#isWrong = true;
    if (offsets !== null && !isBehind(offsets)) {
      this.#unindexedBytes = 0;
      const next = index.at(++this.#offsetEntry);
      const isTrue = offsets.position === position && offsets.lastOffset === batch.lastOffset;
      this.#isWrong ||= !isTrue || !(next === null || isBehind(next));
    }
    this.#unindexedBytes += batch.sizeInBytes;
    const time = timeIndex.at(this.#timeEntry);
    if (time !== null && !isLater(time)) {
      const next = timeIndex.at(++this.#timeEntry);
      const isTrue = time.offset >= batch.baseOffset && time.timestamp === batch.maxTimestamp;
      this.#isWrong ||= !isTrue || !(next === null || isLater(next));
    }
  }

  /** Every entry has led to its batch, and none is missing that a lookup could not do without. */
  get isGood(): boolean {
    const { index, timeIndex, transactions } = this.#segment;
    if (this.#isWrong || this.#offsetEntry < index.file.count || this.#timeEntry < timeIndex.file.count)
      return false;
    return this.#replay?.agreesWith(transactions) ?? true;
  }
}
