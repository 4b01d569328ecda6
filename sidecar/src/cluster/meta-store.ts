/**
 * What the brokers know of the world, behind one interface: keys with a revision each, changed by transactions
 * that compare first. A store is a local file (one broker), etcd (a cluster), or simulated (tests); all pass
 * `meta-store.conformance.ts`.
 *
 * Values are text. A transaction holds at most 128 operations, which is what etcd takes, and names a key at
 * most once among those that it puts and removes.
 */
export interface MetaStore {
  get(key: string): Promise<Entry | null>;
  /** Entries whose keys begin with `prefix`, in the order of their keys. */
  range(prefix: string): Promise<Entry[]>;
  /**
   * All of it or nothing, durable before it resolves.
   *
   * @throws SidecarError RK0401 when the store cannot keep it, or a lease that it puts under has lapsed
   */
  commit(transaction: Transaction): Promise<Outcome>;
  /**
   * Tells of every change under the prefix, in order, before the commit that made it resolves.
   * @returns the end of it
   */
  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void;
  /** Keys put under a lease go when it is not renewed in time, and with the process that held it. */
  grantLease(ttlMs: number): Promise<Lease>;
  close(): Promise<void>;
}

export interface Entry {
  readonly key: string;
  readonly value: string;
  /** Changes with every put of the key, and is never used again. */
  readonly revision: number;
}

export interface Transaction {
  readonly compare?: readonly Comparison[];
  readonly put?: readonly { readonly key: string; readonly value: string; readonly lease?: Lease }[];
  readonly remove?: readonly string[];
}

/** The key has this revision; `null`: there is no such key. */
export interface Comparison {
  readonly key: string;
  readonly revision: number | null;
}

export interface Outcome {
  readonly succeeded: boolean;
  /** The revision of what was put; when the comparison failed, of nothing. */
  readonly revision: number;
}

export interface Change {
  readonly key: string;
  /** Null when the key is gone. */
  readonly value: string | null;
  readonly revision: number;
}

export interface Lease {
  readonly id: number;
  /** False when it has lapsed: a new one must be granted. */
  renew(): Promise<boolean>;
  revoke(): Promise<void>;
}

export const operationsMax = 128;
