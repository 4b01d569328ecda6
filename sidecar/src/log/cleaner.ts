import type { Clock, Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { CompactionPlan, CompactionResult } from './compaction.ts';
import type { CompactionChoice } from './compaction-choice.ts';
import type { PartitionLog } from './partition-log.ts';
import { RotFound } from './rot.ts';

export interface CleanerOptions {
  readonly clock: Clock;
  readonly events: EventBus;
  readonly logs: () => Iterable<PartitionLog>;
  /** Runs a plan where it does not hold up appends; when the signal aborts, it writes nothing more. */
  readonly compact: (plan: CompactionPlan, signal: AbortSignal) => Promise<CompactionResult>;
  /** How far each log was compacted; one that is not named never was. */
  readonly compactedTo: Map<string, number>;
  /** Puts that on disk. */
  readonly checkpoint: () => Promise<void>;
  /** `log.cleaner.backoff.ms`: the pause after there was nothing to do. */
  readonly backoffMs: number;
  /** `log.cleaner.dedupe.buffer.size`: memory for the keys of one log. */
  readonly mapBytesMax: number;
}

/** Compacts logs one after another, the dirtiest first. */
export class Cleaner {
  readonly #options: CleanerOptions;
  readonly #timer: Timer;
  readonly #stopping = new AbortController();
  #cleaning: Promise<void> | null = null;

  constructor(options: CleanerOptions) {
    this.#options = options;
    this.#timer = options.clock.every(options.backoffMs, () => void this.clean());
  }

  /** Compacts until no log is due. */
  clean(): Promise<void> {
    this.#cleaning ??= this.#pass().finally(() => (this.#cleaning = null));
    return this.#cleaning;
  }

  /** Gives up what is under way; when it resolves, nothing of it touches a file any more. */
  async stop(): Promise<void> {
    this.#timer.cancel();
    this.#stopping.abort();
    await this.#cleaning;
  }

  async #pass(): Promise<void> {
    const failed = new Set<PartitionLog>();
    for (let next = this.#dirtiest(failed); next !== null; next = this.#dirtiest(failed))
      if (!(await this.#compact(next.log, next.choice))) failed.add(next.log);
  }

  #dirtiest(except: ReadonlySet<PartitionLog>): { log: PartitionLog; choice: CompactionChoice } | null {
    if (this.#stopping.signal.aborted) return null;
    const { logs, compactedTo } = this.#options;
    let best: { log: PartitionLog; choice: CompactionChoice } | null = null;
    for (const log of logs()) {
      if (except.has(log)) continue;
      const choice = log.chooseCompaction(compactedTo.get(log.name) ?? null);
      if (choice === null || !choice.isDue) continue;
      if (best === null || choice.dirtyRatio > best.choice.dirtyRatio) best = { log, choice };
    }
    return best;
  }

  /** @returns whether it went well: what failed is not tried again in this pass */
  async #compact(log: PartitionLog, choice: CompactionChoice): Promise<boolean> {
    const { compact, compactedTo, checkpoint, events, mapBytesMax, clock } = this.#options;
    const startedMs = clock.monotonic();
    try {
      const result = await compact(log.compactionPlan(choice, mapBytesMax), this.#stopping.signal);
      // Before the first hole is on disk: a start that does not find the log named takes holes for rot.
      if (!compactedTo.has(log.name)) {
        compactedTo.set(log.name, choice.firstDirtyOffset);
        await checkpoint();
      }
      if (!(await log.swap(result))) return false;
      compactedTo.set(log.name, result.endOffset);
      await checkpoint();
      const { bytesBefore, bytesAfter, endOffset } = result;
      const milliseconds = clock.monotonic() - startedMs;
      events.emit('compacted', { partition: log.name, bytesBefore, bytesAfter, endOffset, milliseconds });
      return true;
    } catch (error) {
      // Retention may have taken files from under it, and what is missing then is no rot.
      if (this.#stopping.signal.aborted || !log.hasSegments(choice.segments)) return false;
      if (error instanceof RotFound) log.condemn(error.rot);
      else events.emit('backgroundFailed', { task: `compacting ${log.name}`, error });
      return false;
    }
  }
}
