import type { RecordBatch } from '@rookery/wire';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import type { Segment } from './segment.ts';

/** An end of the log, by offset and by place. */
export interface End {
  readonly offset: number;
  readonly segment: Segment;
  readonly position: number;
}

export interface DurabilityDeps {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly config: () => LogConfig;
  /** The durable end has moved. */
  readonly moved: () => void;
  /** A write or a sync has failed; nothing more is written. */
  readonly failed: (reason: string) => void;
}

/** What recovery knows when the log opens. */
export interface Recovered {
  readonly end: End;
  readonly recoveryPoint: number;
  /** Segments that hold bytes which may be in the page cache alone. */
  readonly unsynced: readonly Segment[];
  /** Files were made whose names are not durable yet. */
  readonly hasNewFiles: boolean;
}

/**
 * How safe the bytes of one log are. They pass four ends, each at or before the one before it: appended (they
 * wait for the end of the turn), written (in the page cache), durable (as safe as `flush.mode` says: readers
 * may have them), and the recovery point (on the platter, whatever the mode).
 */
export class Durability {
  readonly #deps: DurabilityDeps;
  #pending: Buffer[] = [];
  #pendingPosition = 0;
  /** Where the log ends once what waits is written. */
  #appended: End;
  #written: End;
  #durable: End;
  #recoveryPoint: number;
  readonly #unsynced = new Set<Segment>();
  #hasNewFiles: boolean;
  #unsyncedBytes = 0;
  #unsyncedMessages = 0;
  #isSyncing = false;
  #isStopped = false;

  constructor(deps: DurabilityDeps, { end, recoveryPoint, unsynced, hasNewFiles }: Recovered) {
    this.#deps = deps;
    this.#appended = this.#written = this.#durable = end;
    this.#recoveryPoint = recoveryPoint;
    for (const segment of unsynced) this.#unsynced.add(segment);
    this.#hasNewFiles = hasNewFiles;
  }

  get written(): End {
    return this.#written;
  }

  get durable(): End {
    return this.#durable;
  }

  get recoveryPoint(): number {
    return this.#recoveryPoint;
  }

  get unsyncedBytes(): number {
    return this.#unsyncedBytes;
  }

  /** How long what was written may stay unsynced in the background; Infinity where only the broker's limits hold. */
  get flushMs(): number {
    const { flushMode, flushMs } = this.#deps.config();
    return flushMode === 'interval' ? flushMs : Infinity;
  }

  /** Takes a batch that stands at the end of the segment; its bytes wait for `write`. */
  append(batch: RecordBatch, segment: Segment, position: number): void {
    if (this.#pending.length === 0) this.#pendingPosition = position;
    for (const chunk of batch.chunks) this.#pending.push(chunk);
    const { nextOffset, sizeInBytes, recordCount } = batch;
    this.#appended = { offset: nextOffset, segment, position: position + sizeInBytes };
    this.#unsyncedBytes += sizeInBytes;
    this.#unsyncedMessages += recordCount;
  }

  /** A segment was made: its name must be durable before anything in it is. */
  addFile(): void {
    this.#hasNewFiles = true;
  }

  /** How much of a segment is written. */
  writtenSizeOf(segment: Segment): number {
    const waits = this.#pending.length > 0 && segment === this.#appended.segment;
    return waits ? this.#pendingPosition : segment.sizeInBytes;
  }

  /** Puts what waits into its file, in one gathered write. */
  write(): void {
    if (this.#pending.length === 0 || this.#isStopped) return;
    const { segment } = this.#appended;
    try {
      segment.log.writeNow(this.#pending, this.#pendingPosition);
    } catch (error) {
      return this.#fail(`a write failed: ${(error as Error).message}`);
    }
    this.#pending = [];
    this.#unsynced.add(segment);
    this.#written = this.#appended;
  }

  /** After `write`: moves the durable end as `flush.mode` allows, and says whether a sync is due for that. */
  settleWritten(): 'settled' | 'sync' {
    const { flushMode, flushMessages } = this.#deps.config();
    if (flushMode === 'sync') return this.#written.offset > this.#durable.offset ? 'sync' : 'settled';
    this.#moveDurable(this.#written);
    return flushMode === 'interval' && this.#unsyncedMessages >= flushMessages ? 'sync' : 'settled';
  }

  /**
   * Syncs what has been written so far, on the pool. What is written meanwhile is the next group's.
   * A sync that fails is never tried again: the kernel may have dropped the pages and would now report success.
   */
  async sync(): Promise<void> {
    if (this.#isSyncing || this.#isStopped || this.#recoveryPoint === this.#written.offset) return;
    this.#isSyncing = true;
    const upTo = this.#written;
    const segments = [...this.#unsynced];
    const hasNewFiles = this.#hasNewFiles;
    this.#unsynced.clear();
    this.#hasNewFiles = false;
    this.#unsyncedBytes = 0;
    this.#unsyncedMessages = 0;
    try {
      await Promise.all(segments.map((segment) => segment.log.sync()));
      if (hasNewFiles) await this.#deps.fs.syncDirectory(this.#deps.directory);
    } catch (error) {
      return this.#fail(`a sync failed: ${(error as Error).message}`);
    } finally {
      this.#isSyncing = false;
    }
    if (this.#isStopped) return;
    this.#recoveryPoint = Math.max(this.#recoveryPoint, upTo.offset);
    this.#moveDurable(upTo);
    if (this.#deps.config().flushMode === 'sync' && this.#written.offset > upTo.offset) void this.sync();
  }

  /** At an orderly stop: everything, the active segment's indexes too. @throws what the disk throws */
  async syncAll(active: Segment): Promise<void> {
    await Promise.all([active.log.sync(), active.index.file.sync(), active.timeIndex.file.sync()]);
    for (const segment of this.#unsynced) await segment.log.sync();
    await this.#deps.fs.syncDirectory(this.#deps.directory);
    this.#recoveryPoint = this.#written.offset;
    this.#moveDurable(this.#written);
  }

  /** Nothing more is written or synced; what waits is dropped, as if it had never come. */
  stop(): void {
    this.#isStopped = true;
    this.#pending = [];
  }

  #moveDurable(end: End): void {
    if (end.offset <= this.#durable.offset) return;
    this.#durable = end;
    this.#deps.moved();
  }

  #fail(reason: string): void {
    if (this.#isStopped) return;
    this.stop();
    this.#deps.failed(reason);
  }
}
