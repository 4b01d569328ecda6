import type { RecordBatch } from '@rookery/wire';
import type { FileSystem } from '../vfs/file-system.ts';
import { noteBatch } from './producer-recovery.ts';
import { readSnapshot } from './producer-snapshot.ts';
import { ProducerState } from './producer-state.ts';
import type { AbortedTransaction, TransactionIndex } from './transaction-index.ts';

/**
 * What was aborted in a segment, as its batches tell it: a transaction index has no checksum, and this is what it must
 * say. Transactions that were open when the segment began are in the snapshot of that moment.
 */
export class AbortedReplay {
  readonly #producers = new ProducerState();
  #found: AbortedTransaction[] = [];
  /** The producers at the beginning are known; without them, batches of the segments before must be noted first. */
  readonly isComplete: boolean;

  constructor(fs: FileSystem, directory: string, baseOffset: number) {
    const snapshot = readSnapshot(fs, directory, baseOffset);
    this.isComplete = snapshot !== null || baseOffset === 0;
    this.#producers.restore(snapshot ?? []);
  }

  note(batch: RecordBatch): void {
    if (batch.producerId >= 0)
      noteBatch(this.#producers, batch, { append: (aborted) => this.#found.push(aborted) });
  }

  /** The next segment begins: what was aborted so far is in other indexes. */
  nextSegment(): void {
    this.#found = [];
  }

  get aborted(): readonly AbortedTransaction[] {
    return this.#found;
  }

  /** Whether an index says the same. A last stable offset may be lower than need be: that costs a reader nothing. */
  agreesWith(index: TransactionIndex): boolean {
    const entries = [...index.all()];
    return (
      entries.length === this.#found.length &&
      this.#found.every((found, i) => {
        const said = entries[i]!;
        return (
          said !== null &&
          said.producerId === found.producerId &&
          said.firstOffset === found.firstOffset &&
          said.lastOffset === found.lastOffset &&
          said.lastStableOffset <= found.lastStableOffset
        );
      })
    );
  }
}
