import type { Clock, Timer } from '../clock.ts';
import type { Descriptors } from '../vfs/descriptor-budget.ts';
import { DiskPace } from './disk-pace.ts';
import { sideBySide } from './side-by-side.ts';
import { SoleLog } from './sole-log.ts';
import { UnsyncedTail } from './unsynced-tail.ts';

const mebibyte = 1024 * 1024;
/** How long what was written may stay unsynced, whatever `flush.mode` says. */
const backgroundMs = 1_000;
/** How much may be written before it is synced, whatever `flush.mode` says. */
const backgroundBytes = 64 * mebibyte;
/**
 * How many logs are in hand when all are synced. It keeps the pool's threads busy; thousands of logs at once would
 * take no less time, but memory, and a sync for which a producer waits would come behind them all.
 */
const syncedAtOnce = 32;
/** How much may be unsynced at all. */
export const unsyncedBytesMax = 256 * mebibyte;

/** How much the loop syncs itself. */
const syncedOnLoopMax = 64 * 1024;

/** What the flusher does with a log; `durability.ts` explains the verbs. */
export interface FlushedLog {
  /** Nothing is written or synced any more. */
  readonly hasStopped: boolean;
  /** Everything that was written is on the platter. */
  readonly isSynced: boolean;
  /** How long what was written may stay unsynced, in milliseconds. */
  readonly flushMs: number;
  readonly unsyncedBytes: number;
  writeNow(): void;
  write(): Promise<void>;
  settleWritten(): 'settled' | 'sync';
  sync(): Promise<void>;
  syncNow(): boolean;
}

/**
 * Group commit. Appends of one turn of the event loop are written together at its end, one gathered write a
 * segment; in sync mode one fdatasync a file follows on the pool, all files side by side, and what arrives
 * meanwhile is the next group. Only while one log alone gets a little at a time does the loop sync it, since the
 * two hops to the pool and back would be a third of what its producer waits. Behind every mode a background sync
 * keeps the unsynced tail short, so that a restart has little to scan.
 */
export class Flusher {
  readonly tail: UnsyncedTail;
  readonly #writePace: DiskPace;
  readonly #syncPace = new DiskPace(syncedOnLoopMax);
  readonly #sole = new SoleLog();
  readonly #clock: Clock;
  /** Told when many logs were synced: recovery points have moved. */
  readonly #synced: () => void;
  readonly #descriptors: Pick<Descriptors, 'isSpent'>;
  #dirty = new Set<FlushedLog>();
  /** Logs that are not synced to their end. */
  readonly #unsynced = new Set<FlushedLog>();
  readonly #syncing = new Map<FlushedLog, Promise<void>>();
  #bytesAtBackground = 0;
  #timer: Timer | null = null;

  constructor(clock: Clock, bytesMax: number, descriptors: Pick<Descriptors, 'isSpent'>, synced: () => void) {
    this.#descriptors = descriptors;
    this.tail = new UnsyncedTail(bytesMax);
    this.#writePace = new DiskPace(bytesMax / 2);
    this.#clock = clock;
    this.#synced = synced;
  }

  /** The log has something to write. */
  add(log: FlushedLog): void {
    if (this.#dirty.size === 0) this.#clock.nextTurn(() => this.flush());
    this.#dirty.add(log);
  }

  /** Writes what waits, now. */
  flush(): void {
    const logs = this.#dirty;
    this.#dirty = new Set();
    const started = this.#clock.monotonic();
    const isAlone = this.#sole.isWritten(started, logs);
    if (this.#writePace.prefersPool(started, this.tail.bytes)) {
      for (const log of logs) this.#writeOnPool(log);
      return;
    }
    const written: FlushedLog[] = [];
    const inTurn: FlushedLog[] = [];
    for (const log of logs) {
      // Where there is no descriptor left, those that were written first are synced, which is nothing for the loop.
      if (this.#descriptors.isSpent) inTurn.push(log);
      else {
        log.writeNow();
        written.push(log);
      }
    }
    const now = this.#clock.monotonic();
    this.#writePace.observe(now, now - started);
    for (const log of written) this.#settle(log, isAlone);
    for (const log of inTurn) this.#writeOnPool(log);
  }

  #writeOnPool(log: FlushedLog): void {
    void log.write().then(() => this.#settle(log));
  }

  forget(log: FlushedLog): void {
    this.#unsynced.delete(log);
    this.#dirty.delete(log);
    this.#sole.forget(log);
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** Something of the log was written: what its mode promises becomes true, now or with a sync. */
  #settle(log: FlushedLog, isAlone = false): void {
    if (log.hasStopped) return;
    this.#unsynced.add(log);
    if (log.settleWritten() === 'sync' && !(isAlone && this.#syncNow(log))) void this.#sync(log);
    if (this.tail.writtenBytes - this.#bytesAtBackground > backgroundBytes) this.#background();
    else this.#timer ??= this.#clock.after(this.#patience(), () => this.#background());
  }

  /** @returns false when the pool must do it */
  #syncNow(log: FlushedLog): boolean {
    const started = this.#clock.monotonic();
    if (this.#syncing.size > 0 || this.#syncPace.prefersPool(started, log.unsyncedBytes)) return false;
    if (!log.syncNow()) return false;
    const now = this.#clock.monotonic();
    this.#syncPace.observe(now, now - started);
    if (log.isSynced || log.hasStopped) this.#unsynced.delete(log);
    return true;
  }

  /** One sync of a log at a time; those that come meanwhile make the next group. */
  #sync(log: FlushedLog): Promise<void> {
    let syncing = this.#syncing.get(log);
    if (syncing === undefined) {
      syncing = log.sync().then(() => {
        this.#syncing.delete(log);
        if (log.isSynced || log.hasStopped) this.#unsynced.delete(log);
        else if (log.settleWritten() === 'sync') void this.#sync(log);
      });
      this.#syncing.set(log, syncing);
    }
    return syncing;
  }

  /** The shortest time that any unsynced log allows. */
  #patience(): number {
    let ms = backgroundMs;
    for (const log of this.#unsynced) ms = Math.min(ms, log.flushMs);
    return ms;
  }

  /** Syncs what was written of the logs so far. */
  async syncAll(logs: readonly FlushedLog[]): Promise<void> {
    await sideBySide(logs, syncedAtOnce, (log) => this.#sync(log));
    this.#synced();
  }

  #background(): void {
    this.stop();
    this.#bytesAtBackground = this.tail.writtenBytes;
    void this.syncAll([...this.#unsynced]).then(() => {
      if (this.#unsynced.size > 0)
        this.#timer ??= this.#clock.after(this.#patience(), () => this.#background());
    });
  }
}
