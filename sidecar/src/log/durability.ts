import type { RecordBatch } from '@rookery/wire';
import { assert } from '../invariant.ts';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { syncNamesNow } from './partition-directory.ts';
import { snapshotPath, writeSnapshot } from './producer-snapshot.ts';
import type { Segment } from './segment.ts';
import type { UnsyncedTail } from './unsynced-tail.ts';

/** An end of the log, by offset and by place. */
export interface End {
  readonly offset: number;
  readonly segment: Segment;
  readonly position: number;
}

export interface DurabilityDeps {
  readonly fs: FileSystem;
  readonly directory: string;
  /** Makes the names of the log's files durable, and that of its directory. */
  readonly syncNames: () => Promise<void>;
  readonly tail: UnsyncedTail;
  readonly config: () => LogConfig;
  /** The producer state of this moment, as bytes. */
  readonly snapshot: () => Buffer;
  /** The durable end has moved. */
  readonly moved: () => void;
  /** The disk is full: the log must end here again, as if what came after had never been appended. */
  readonly takeBack: (to: End, reason: string) => void;
  /** The disk has failed: nothing more is written. */
  readonly failed: (reason: string) => void;
}

/** What recovery knows when the log opens. */
export interface Recovered {
  readonly end: End;
  readonly recoveryPoint: number;
  /** Segments that hold bytes which may be in the page cache alone. */
  readonly unsynced: readonly Segment[];
  /** Those of them that take no more batches: their indexes are to be synced with them. */
  readonly sealed: readonly Segment[];
  /** Files were made whose names are not durable yet. */
  readonly hasNewFiles: boolean;
  /** Nobody knows that the names of the files, from the first on, are durable. */
  readonly isNameless: boolean;
  /** The newest snapshot of the producer state. */
  readonly snapshotOffset: number;
}

/** Producer state as of an offset, to be put on disk with the sync that covers the offset. */
interface Snapshot {
  readonly offset: number;
  readonly bytes: Buffer;
  /** Taken where no segment begins: it goes when a newer one is there. */
  readonly isPassing: boolean;
}

/** How much may be written before the producer state is put on disk again, so that a restart has little to read. */
const snapshotEveryBytes = 64 * 1024 * 1024;

/** Bytes of one segment that wait for one gathered write. */
interface Run {
  readonly segment: Segment;
  readonly position: number;
  readonly chunks: Buffer[];
  sizeInBytes: number;
  recordCount: number;
  end: End;
}

/**
 * The disk takes no more, or the process may open no more files; neither harms anything, and it may be over soon.
 * Any other failure is the disk's own.
 */
const passingCodes = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EMFILE', 'ENFILE']);
/** Of these a failure is final, whatever its code. */
const syncCalls = new Set(['fsync', 'fdatasync']);

function mayPass(error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException;
  return code !== undefined && passingCodes.has(code) && !(syscall !== undefined && syncCalls.has(syscall));
}

/**
 * How safe the bytes of one log are. They pass four ends, each at or before the one before it: appended (they
 * wait for the end of the turn), written (in the page cache), durable (as safe as `flush.mode` says: readers
 * may have them), and the recovery point (on the platter, whatever the mode).
 */
export class Durability {
  readonly #deps: DurabilityDeps;
  #waiting: Run[] = [];
  /** Where the log ends once what waits is written. */
  #appended: End;
  #written: End;
  #durable: End;
  #recoveryPoint: number;
  /** The log is about to be cut here, so no sync of what is behind counts. */
  #cutOffset = Infinity;
  readonly #unsynced = new Set<Segment>();
  /** Segments that were sealed and whose indexes are not synced: after that they are never looked at again. */
  readonly #sealed = new Set<Segment>();
  #hasNewFiles: boolean;
  #isNameless: boolean;
  #snapshots: Snapshot[] = [];
  #snapshotOffset: number;
  #passingSnapshot: number | null = null;
  #bytesSinceSnapshot = 0;
  #unsyncedBytes = 0;
  #unsyncedRecords = 0;
  #syncingBytes = 0;
  #hasChanged: boolean;
  #writing: Promise<void> | null = null;
  #isSyncing = false;
  /** Told when the sync under way has ended. */
  readonly #whenSynced: (() => void)[] = [];
  #isStopped = false;

  constructor(deps: DurabilityDeps, recovered: Recovered) {
    this.#deps = deps;
    this.#appended = this.#written = this.#durable = recovered.end;
    this.#recoveryPoint = recovered.recoveryPoint;
    for (const segment of recovered.unsynced) this.#unsynced.add(segment);
    for (const segment of recovered.sealed) this.#sealed.add(segment);
    this.#hasNewFiles = this.#hasChanged = recovered.hasNewFiles;
    this.#isNameless = recovered.isNameless;
    this.#snapshotOffset = recovered.snapshotOffset;
  }

  get written(): End {
    return this.#written;
  }

  /** The names of the files, and what else is synced with them, are not durable before the next sync. */
  get isNameless(): boolean {
    return this.#isNameless;
  }

  get durable(): End {
    return this.#durable;
  }

  get recoveryPoint(): number {
    return this.#recoveryPoint;
  }

  get unsyncedBytes(): number {
    return this.#unsyncedBytes + this.#syncingBytes;
  }

  /** Whether anything was written, or made, since the log was opened. */
  get hasChanged(): boolean {
    return this.#hasChanged || this.#unsynced.size > 0;
  }

  get isSynced(): boolean {
    return this.#recoveryPoint === this.#written.offset && this.#sealed.size === 0;
  }

  /** How long what was written may stay unsynced in the background; Infinity where only the broker's limits hold. */
  get flushMs(): number {
    const { flushMode, flushMs } = this.#deps.config();
    return flushMode === 'interval' ? flushMs : Infinity;
  }

  /** Takes a batch that stands at the end of the segment; its bytes wait for the next write. */
  append(batch: RecordBatch, segment: Segment, position: number): void {
    const { nextOffset, sizeInBytes, recordCount, chunks } = batch;
    const end = { offset: nextOffset, segment, position: position + sizeInBytes };
    const run = this.#waiting.at(-1);
    if (run?.segment === segment) {
      for (const chunk of chunks) run.chunks.push(chunk);
      run.sizeInBytes += sizeInBytes;
      run.recordCount += recordCount;
      run.end = end;
    } else {
      this.#waiting.push({ segment, position, chunks: [...chunks], sizeInBytes, recordCount, end });
    }
    this.#appended = end;
    this.#hasChanged = true;
  }

  /** The active segment was sealed and `next` begins: its name must be durable before anything in it is. */
  rolled(sealed: Segment, next: Segment): void {
    this.#sealed.add(sealed);
    this.#hasNewFiles = this.#hasChanged = true;
    this.#takeSnapshot(false);
    const begin = { offset: this.#appended.offset, segment: next, position: 0 };
    // An end that stands where the new segment begins moves there, so that it never keeps an old segment busy.
    if (this.#durable.offset === begin.offset) this.#durable = begin;
    if (this.#written.offset === begin.offset) this.#written = begin;
    this.#appended = begin;
  }

  /** Segments are deleted: their bytes need no sync any more. */
  forget(segments: readonly Segment[]): void {
    for (const segment of segments) {
      this.#unsynced.delete(segment);
      this.#sealed.delete(segment);
    }
  }

  /** Nothing waits to be written, and nothing is on its way to the disk. */
  get isQuiet(): boolean {
    return this.#waiting.length === 0 && this.#writing === null && !this.#isSyncing;
  }

  /** Writes what waits, and waits for what is on its way: a sync that ends later would speak of an end that is gone. */
  async quiet(): Promise<void> {
    while (!this.isQuiet && !this.#isStopped) {
      await this.write();
      if (this.#isSyncing) await new Promise<void>((resolve) => this.#whenSynced.push(resolve));
    }
  }

  /** The recovery point does not pass an offset until the log is cut there, or is not to be cut any more. */
  willCut(offset: number): void {
    this.#cutOffset = offset;
    this.#recoveryPoint = Math.min(this.#recoveryPoint, offset);
  }

  /** The log was cut: it ends here now, and what stood behind was never written. Nothing may wait when this is called. */
  cut(to: End): void {
    assert(this.isQuiet, 'nothing waits while the log is cut');
    this.#cutOffset = Infinity;
    this.#appended = this.#written = to;
    this.#hasChanged = true;
    if (this.#durable.offset >= to.offset) this.#durable = to;
    this.#recoveryPoint = Math.min(this.#recoveryPoint, to.offset);
    this.#snapshots = this.#snapshots.filter(({ offset }) => offset <= to.offset);
    this.#snapshotOffset = Math.min(this.#snapshotOffset, to.offset);
    const isCutOff = (segment: Segment): boolean => segment.baseOffset > to.segment.baseOffset;
    for (const set of [this.#unsynced, this.#sealed])
      for (const segment of set) if (isCutOff(segment)) set.delete(segment);
    this.#sealed.delete(to.segment);
    this.#unsynced.add(to.segment);
  }

  /** How much of a segment is written. */
  writtenSizeOf(segment: Segment): number {
    const { segment: last, position } = this.#written;
    if (segment === last) return position;
    return segment.baseOffset < last.baseOffset ? segment.sizeInBytes : 0;
  }

  /** Puts what waits into its files on the loop: into the page cache, which takes microseconds on a good day. */
  writeNow(): void {
    if (this.#writing !== null || this.#isStopped) return;
    for (let run = this.#waiting[0]; run !== undefined; run = this.#waiting[0]) {
      try {
        run.segment.log.writeNow(run.chunks, run.position);
      } catch (error) {
        return this.#refused(error);
      }
      this.#waiting.shift();
      this.#wrote(run);
    }
  }

  /** The same on the pool, where a disk that makes its writers wait does not hold up the loop. */
  write(): Promise<void> {
    this.#writing ??= this.#writeAll().finally(() => (this.#writing = null));
    return this.#writing;
  }

  async #writeAll(): Promise<void> {
    try {
      for (let run = this.#waiting.shift(); run !== undefined; run = this.#waiting.shift()) {
        await run.segment.log.write(run.chunks, run.position);
        if (this.#isStopped) return;
        this.#wrote(run);
      }
    } catch (error) {
      this.#refused(error);
    }
  }

  /** After a write: moves the durable end as `flush.mode` allows, and says whether a sync is due for that. */
  settleWritten(): 'settled' | 'sync' {
    if (this.#isStopped) return 'settled';
    const { flushMode, flushMessages } = this.#deps.config();
    // With too much unsynced, an acknowledgement waits for the disk in every mode: that slows producers down.
    if (flushMode === 'sync' || this.#deps.tail.isFull)
      return this.#written.offset > this.#durable.offset ? 'sync' : 'settled';
    this.#moveDurable(this.#written);
    return flushMode === 'interval' && this.#unsyncedRecords >= flushMessages ? 'sync' : 'settled';
  }

  /**
   * Syncs what has been written so far, on the pool. What is written meanwhile is the next group's.
   * A sync that fails is never tried again: the kernel may have dropped the pages and would now report success.
   */
  async sync(): Promise<void> {
    if (this.#isSyncing || this.#isStopped || this.isSynced) return;
    this.#isSyncing = true;
    const upTo = this.#written;
    if (this.#isSnapshotDue && upTo === this.#appended) this.#takeSnapshot(true);
    const unsynced = [...this.#unsynced];
    const sealed = [...this.#sealed].filter(({ baseOffset }) => baseOffset < upTo.segment.baseOffset);
    const hasNewFiles = this.#hasNewFiles || this.#isNameless;
    this.#unsynced.clear();
    for (const segment of sealed) this.#sealed.delete(segment);
    this.#hasNewFiles = false;
    this.#syncingBytes = this.#unsyncedBytes;
    this.#unsyncedBytes = this.#unsyncedRecords = 0;
    try {
      await Promise.all([
        ...unsynced.map((segment) => segment.log.sync()),
        ...sealed.map((segment) => this.#syncIndexes(segment)),
      ]);
      if (hasNewFiles) await this.#syncNames();
      await this.#writeSnapshots(upTo.offset);
      for (const segment of sealed) if (!this.#sealed.has(segment)) segment.rest();
    } catch (error) {
      return this.#syncFailed(error);
    } finally {
      this.#isSyncing = false;
      this.#deps.tail.synced(this.#syncingBytes);
      this.#syncingBytes = 0;
      for (const tell of this.#whenSynced.splice(0)) tell();
    }
    if (this.#isStopped) return;
    this.#synced(upTo);
  }

  #synced(upTo: End): void {
    // A snapshot for which there was no room keeps it from passing.
    const snapshotOffset = this.#snapshots[0]?.offset ?? Infinity;
    const point = Math.min(upTo.offset, this.#cutOffset, snapshotOffset);
    this.#recoveryPoint = Math.max(this.#recoveryPoint, point);
    this.#moveDurable(upTo);
  }

  /** Where there is no room for its entries, the next sync tries again: they are an aid, and the batches are safe. */
  async #syncIndexes(segment: Segment): Promise<void> {
    try {
      await segment.syncIndexes();
    } catch (error) {
      if (!mayPass(error)) throw error;
      this.#sealed.add(segment);
    }
  }

  /**
   * The same on the loop, when there is nothing to it but the end of one file.
   * @returns false when there is more: then nothing was done
   */
  syncNow(): boolean {
    if (this.#isSyncing || this.#isStopped || this.#hasNewFiles || this.#isNameless) return false;
    if (this.#unsynced.size > 1 || !this.#unsynced.has(this.#written.segment)) return false;
    if (this.#sealed.size > 0) return false;
    if (this.#snapshots.length > 0 || this.#isSnapshotDue) return false;
    const upTo = this.#written;
    try {
      upTo.segment.log.syncNow();
    } catch (error) {
      this.#syncFailed(error);
      return true;
    }
    this.#unsynced.clear();
    this.#deps.tail.synced(this.#unsyncedBytes);
    this.#unsyncedBytes = this.#unsyncedRecords = 0;
    this.#synced(upTo);
    return true;
  }

  get #isSnapshotDue(): boolean {
    return this.#bytesSinceSnapshot >= snapshotEveryBytes;
  }

  /**
   * At an orderly stop: everything, the active segment's indexes too.
   *
   * @returns false when there was no room for all that saves the next start from reading the log
   * @throws what the disk throws
   */
  async syncAll(): Promise<boolean> {
    await this.write();
    const { segment } = this.#written;
    const sealed = [...this.#sealed, segment];
    this.#sealed.clear();
    await Promise.all([...this.#unsynced, segment].map(({ log }) => log.sync()));
    await Promise.all(sealed.map((each) => this.#syncIndexes(each)));
    await this.#syncNames();
    if (this.#snapshotOffset !== this.#written.offset) this.#takeSnapshot(false);
    await this.#writeSnapshots(this.#written.offset);
    if (this.#isStopped) return false;
    this.#synced(this.#written);
    return this.#sealed.size === 0 && this.#snapshots.length === 0;
  }

  /** Nothing more is written or synced; what waits is dropped, as if it had never come. */
  stop(): void {
    this.#isStopped = true;
    this.#waiting = [];
    this.#deps.tail.synced(this.#unsyncedBytes);
    this.#unsyncedBytes = 0;
  }

  /** Before the log's start moves: that is kept elsewhere, and must not be known of a log that is not. */
  async name(): Promise<void> {
    if (this.#isNameless) await this.#syncNames();
  }

  /** Before a second segment begins: after a power cut it must not be there without the first. */
  nameNow(): void {
    if (!this.#isNameless) return;
    try {
      syncNamesNow(this.#deps.fs, this.#deps.directory);
    } catch (error) {
      this.#syncFailed(error);
      throw error;
    }
  }

  async #syncNames(): Promise<void> {
    if (this.#isNameless) await this.#deps.syncNames();
    else await this.#deps.fs.syncDirectory(this.#deps.directory);
    this.#isNameless = false;
  }

  #takeSnapshot(isPassing: boolean): void {
    this.#snapshots.push({ offset: this.#appended.offset, bytes: this.#deps.snapshot(), isPassing });
    this.#bytesSinceSnapshot = 0;
  }

  /** Only what is on the platter may be in a snapshot there, and it must be there before the recovery point passes it. */
  async #writeSnapshots(upTo: number): Promise<void> {
    const { fs, directory } = this.#deps;
    for (let [due] = this.#snapshots; due !== undefined && due.offset <= upTo; [due] = this.#snapshots) {
      const { offset, bytes, isPassing } = due;
      try {
        await writeSnapshot(fs, directory, offset, bytes);
      } catch (error) {
        if (!mayPass(error)) throw error;
        // There is no room for it: the next sync tries again.
        return;
      }
      this.#snapshots = this.#snapshots.filter((each) => each !== due);
      if (this.#passingSnapshot !== null && this.#passingSnapshot !== offset)
        fs.remove(snapshotPath(directory, this.#passingSnapshot));
      this.#passingSnapshot = isPassing ? offset : null;
      this.#snapshotOffset = offset;
    }
  }

  #wrote(run: Run): void {
    // The first bytes make the file, perhaps after a sync that came between the roll and them.
    if (run.position === 0) this.#hasNewFiles = true;
    this.#bytesSinceSnapshot += run.sizeInBytes;
    this.#unsynced.add(run.segment);
    this.#unsyncedBytes += run.sizeInBytes;
    this.#unsyncedRecords += run.recordCount;
    this.#deps.tail.wrote(run.sizeInBytes);
    this.#written = run.end.offset === this.#appended.offset ? this.#appended : run.end;
  }

  #refused(error: unknown): void {
    if (this.#isStopped) return;
    const { message } = error as Error;
    if (!mayPass(error)) return this.#fail(`a write failed: ${message}`);
    this.#waiting = [];
    this.#appended = this.#written;
    this.#snapshots = this.#snapshots.filter(({ offset }) => offset <= this.#written.offset);
    // Segments made meanwhile go again, and that must be as durable as their making.
    this.#hasNewFiles = true;
    for (const segment of this.#sealed)
      if (segment.baseOffset >= this.#written.segment.baseOffset) this.#sealed.delete(segment);
    try {
      this.#deps.takeBack(this.#written, message);
    } catch (worse) {
      this.#fail(`a write failed and could not be undone: ${(worse as Error).message}`);
    }
  }

  #moveDurable(end: End): void {
    assert(end.offset <= this.#written.offset, 'what is durable has been written');
    if (end.offset <= this.#durable.offset) return;
    this.#durable = end.offset === this.#written.offset ? this.#written : end;
    this.#deps.moved();
  }

  #syncFailed(error: unknown): void {
    this.#fail(`a sync failed: ${(error as Error).message}`);
  }

  #fail(reason: string): void {
    if (this.#isStopped) return;
    this.stop();
    this.#deps.failed(reason);
  }
}
