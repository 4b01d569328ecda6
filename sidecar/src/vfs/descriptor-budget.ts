/** Something with a descriptor that it can open again. */
export interface Holder {
  /** Gives the descriptor back, until it is needed again. */
  close(): void;
  /** Gets ready to be closed: bytes that keep it open are synced, on the pool. */
  settle(): void;
  /** The same before the loop turns. */
  settleNow(): void;
}

/** What the rest of the sidecar may know of open files. */
export interface Descriptors {
  /** Descriptors of files and directories that are open. */
  readonly open: number;
  /** How many should be open at most. */
  readonly max: number;
  /** How many the system leaves for everything else: sockets above all. */
  readonly leftForOthers: number;
  /** How often a file was closed so that another could be opened. */
  readonly evictions: number;
  /** One more would be too many, and none of those that are open can be closed at once. */
  readonly isSpent: boolean;
}

/**
 * Open files under one limit. Those that could be closed without losing anything wait in the order in which they
 * were last used; when the budget is spent, the one used longest ago is closed, and opens itself again when it is
 * needed. A file with bytes of which nobody knows whether the disk has them must be synced first; whoever can wait
 * has that done. Whoever cannot exceeds the budget, and so it is where every file has an operation under way: no
 * byte is lost for it.
 */
export class DescriptorBudget implements Descriptors {
  readonly #limits: () => { readonly max: number; readonly leftForOthers: number };
  /** May be closed; the one used longest ago first. */
  readonly #idle = new Set<Holder>();
  #newest: Holder | null = null;
  /** May be closed after a sync; the one that was written longest ago first. */
  readonly #unsynced = new Set<Holder>();
  /** Who wants a descriptor and can wait for one; the first came first. */
  readonly #waiting: (() => void)[] = [];
  #open = 0;
  #evictions = 0;
  #operations = 0;

  /** @param limits asked whenever it matters, so that whoever opens nothing need not find them out */
  constructor(limits: () => { readonly max: number; readonly leftForOthers: number }) {
    this.#limits = limits;
  }

  get open(): number {
    return this.#open;
  }

  get max(): number {
    return this.#limits().max;
  }

  get leftForOthers(): number {
    return this.#limits().leftForOthers;
  }

  get evictions(): number {
    return this.#evictions;
  }

  get isSpent(): boolean {
    return this.#idle.size === 0 && this.#open >= this.max;
  }

  /** For what cannot wait and is not worth everything: until half of what is left for others is taken. */
  get mayExceed(): boolean {
    return this.#open < this.max + this.leftForOthers / 2;
  }

  /** A descriptor is about to be opened: makes room for it, if that can be done without a sync. */
  makeRoom(): void {
    while (this.#open >= this.max && this.closeOldest());
  }

  /** @returns false when nothing can be closed */
  closeOldest(): boolean {
    const [oldest] = this.#idle;
    if (oldest === undefined) return false;
    this.#evictions++;
    oldest.close();
    return true;
  }

  /** Starts a sync after which one more can be closed. @returns false when there is none that needs it */
  settleOldest(): boolean {
    const [oldest] = this.#unsynced;
    oldest?.settle();
    return oldest !== undefined;
  }

  /** The same before the loop turns. */
  settleOldestNow(): boolean {
    const [oldest] = this.#unsynced;
    oldest?.settleNow();
    return oldest !== undefined;
  }

  opened(): void {
    this.#open++;
  }

  closed(holder: Holder | null): void {
    if (holder !== null) this.pin(holder);
    this.#open--;
    this.#wakeOne();
  }

  /** It was just used, and may be closed from now on: at once, where too many are open. */
  rest(holder: Holder): void {
    this.#unsynced.delete(holder);
    // Whoever reads one file again and again need not move it every time.
    if (holder === this.#newest) return;
    this.#idle.delete(holder);
    this.#idle.add(holder);
    this.#newest = holder;
    while (this.#open > this.max && this.closeOldest());
    this.#wakeOne();
  }

  /** It was just written, and may be closed after a sync. */
  owe(holder: Holder): void {
    this.pin(holder);
    this.#unsynced.add(holder);
  }

  /** It must not be closed, whatever happens. */
  pin(holder: Holder): void {
    this.#idle.delete(holder);
    this.#unsynced.delete(holder);
    if (holder === this.#newest) this.#newest = null;
  }

  /** An operation begins that has a descriptor for as long as it takes. */
  began(): void {
    this.#operations++;
  }

  ended(): void {
    if (--this.#operations > 0) return this.#wakeOne();
    // Nothing is under way that would wake anybody later.
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Whether waiting makes sense: an operation is under way, and may leave a descriptor behind when it ends. */
  get mayBecomeFree(): boolean {
    return this.#operations > 0;
  }

  /** Resolves when it is worth another try. */
  whenFree(): Promise<void> {
    return new Promise((wake) => this.#waiting.push(wake));
  }

  #wakeOne(): void {
    this.#waiting.shift()?.();
  }
}
