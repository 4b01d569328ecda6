import type { Change, Entry, Outcome, Transaction } from './meta-store.ts';

interface Held {
  readonly value: string;
  readonly revision: number;
  readonly lease: number | null;
}

/** A transaction as it is kept: what it puts and removes, under its revision. */
export interface Committed {
  readonly revision: number;
  readonly put: readonly { readonly key: string; readonly value: string; readonly lease?: number }[];
  readonly remove: readonly string[];
}

/** The contents of a store and the rule of its transactions, without any I/O. */
export class StoreState {
  revision = 0;
  readonly #held = new Map<string, Held>();

  get(key: string): Entry | null {
    const held = this.#held.get(key);
    return held === undefined ? null : { key, value: held.value, revision: held.revision };
  }

  range(prefix: string): Entry[] {
    return [...this.#held.keys()]
      .filter((key) => key.startsWith(prefix))
      .sort()
      .map((key) => this.get(key)!);
  }

  /** What a transaction would do now; null when its comparison fails. */
  prepare({ compare = [], put = [], remove = [] }: Transaction): Committed | null {
    const holds = compare.every(({ key, revision }) => (this.#held.get(key)?.revision ?? null) === revision);
    if (!holds) return null;
    return {
      revision: this.revision + 1,
      put: put.map(({ key, value, lease }) =>
        lease === undefined ? { key, value } : { key, value, lease: lease.id },
      ),
      remove: remove.filter((key) => this.#held.has(key)),
    };
  }

  apply({ revision, put, remove }: Committed): Change[] {
    this.revision = revision;
    for (const { key, value, lease } of put) this.#held.set(key, { value, revision, lease: lease ?? null });
    for (const key of remove) this.#held.delete(key);
    return [
      ...put.map(({ key, value }) => ({ key, value, revision })),
      ...remove.map((key) => ({ key, value: null, revision })),
    ];
  }

  /** Keys that go with a lease. */
  leasedBy(lease: number): string[] {
    return [...this.#held].filter(([, held]) => held.lease === lease).map(([key]) => key);
  }

  /** Everything that outlives the process, as one transaction that makes it again. */
  snapshot(): Committed {
    const put = [...this.#held]
      .filter(([, { lease }]) => lease === null)
      .map(([key, { value }]) => ({ key, value }));
    return { revision: this.revision, put, remove: [] };
  }
}

export const failed = (state: StoreState): Outcome => ({ succeeded: false, revision: state.revision });
