import type { Clock, Timer } from '../clock.ts';
import type { PartitionLog } from './partition-log.ts';

/** How long what was written may stay unsynced, whatever `flush.mode` says. */
const backgroundMs = 1_000;
/** How much may be written before it is synced, whatever `flush.mode` says: a quarter of what may be unsynced. */
const backgroundBytes = 64 * 1024 * 1024;

/**
 * Group commit. Appends of one turn of the event loop are written together at its end, one gathered write a
 * segment; in sync mode one fdatasync a file follows on the pool, all files side by side, and what arrives
 * meanwhile is the next group. Behind every mode a background sync keeps the unsynced tail short, so that a
 * restart has little to scan.
 */
export class Flusher {
  readonly #clock: Clock;
  /** Told when a background sync is through: recovery points have moved. */
  readonly #synced: () => void;
  #dirty = new Set<PartitionLog>();
  readonly #unsynced = new Set<PartitionLog>();
  #writtenBytes = 0;
  #timer: Timer | null = null;

  constructor(clock: Clock, synced: () => void) {
    this.#clock = clock;
    this.#synced = synced;
  }

  /** The log has something to write. */
  add(log: PartitionLog): void {
    if (this.#dirty.size === 0) this.#clock.nextTurn(() => this.flush());
    this.#dirty.add(log);
  }

  /** Writes what waits, now. */
  flush(): void {
    const logs = this.#dirty;
    this.#dirty = new Set();
    for (const log of logs) {
      const before = log.unsyncedBytes;
      log.write();
      if (log.settleWritten() === 'sync') void log.sync().then(() => this.#afterSync(log));
      this.#writtenBytes += before;
      this.#unsynced.add(log);
    }
    if (this.#writtenBytes > backgroundBytes) this.#background();
    else this.#timer ??= this.#clock.after(this.#patience(), () => this.#background());
  }

  forget(log: PartitionLog): void {
    this.#unsynced.delete(log);
    this.#dirty.delete(log);
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** The shortest time that any unsynced log allows. */
  #patience(): number {
    let ms = backgroundMs;
    for (const log of this.#unsynced) ms = Math.min(ms, log.flushMs);
    return ms;
  }

  #background(): void {
    this.stop();
    this.#writtenBytes = 0;
    const logs = [...this.#unsynced];
    void Promise.all(logs.map((log) => log.sync().then(() => this.#afterSync(log)))).then(() => {
      this.#synced();
      if (this.#unsynced.size > 0)
        this.#timer ??= this.#clock.after(this.#patience(), () => this.#background());
    });
  }

  #afterSync(log: PartitionLog): void {
    if (log.unsyncedBytes === 0 || log.offlineReason !== null) this.#unsynced.delete(log);
  }
}
