/** How long others must have been silent. */
const aloneMs = 50;

/**
 * Whether one log has been the only one to be written for a while. Then nobody gains from a sync that runs beside the
 * loop, and the one who waits for it gains from one that does not.
 */
export class SoleLog {
  #log: object | null = null;
  #sinceMs = 0;

  /** @param logs what is written in this turn */
  isWritten(nowMs: number, logs: ReadonlySet<object>): boolean {
    const [log] = logs;
    if (logs.size > 1 || log !== this.#log) {
      this.#log = logs.size > 1 ? null : log!;
      this.#sinceMs = nowMs;
    }
    return this.#log !== null && nowMs - this.#sinceMs >= aloneMs;
  }

  /** A log that is gone is not held on to. */
  forget(log: object): void {
    if (this.#log === log) this.#log = null;
  }
}
