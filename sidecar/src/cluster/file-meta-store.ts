import { crc32c } from '@rookery/wire';
import type { Clock, Timer } from '../clock.ts';
import { SidecarError } from '../errors.ts';
import { assert } from '../invariant.ts';
import { readFile, writeAtomically, type File, type FileSystem } from '../vfs/file-system.ts';
import {
  operationsMax,
  type Change,
  type Entry,
  type Lease,
  type MetaStore,
  type Outcome,
  type Transaction,
} from './meta-store.ts';
import { failed, StoreState, type Committed } from './store-state.ts';

/** The version of the journal; docs/format/metadata-journal.md. */
const formatVersion = 1;
const frameSize = 8;
/** A journal of this size is written anew, if most of it is history. */
const compactBytes = 1 << 20;

/**
 * A store in one local file: a journal of transactions, each in a frame with its length and CRC-32C, the first
 * one a snapshot. A commit is on disk before it resolves. What a crash tore at the end is cut: nobody was told
 * of it. After a failed write or sync nothing more is taken, because nobody knows what is on the disk.
 */
export class FileMetaStore implements MetaStore {
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #state = new StoreState();
  readonly #watchers = new Set<{ prefix: string; listener: (changes: readonly Change[]) => void }>();
  readonly #leases = new Map<number, Timer>();
  #nextLease = 1;
  #file: File;
  #size: number;
  /** Commits take their turns, because each compares with what the one before it left. */
  #turn: Promise<unknown> = Promise.resolve();
  #failure: Error | null = null;

  private constructor(fs: FileSystem, path: string, clock: Clock, file: File, size: number) {
    this.#fs = fs;
    this.#path = path;
    this.#clock = clock;
    this.#file = file;
    this.#size = size;
  }

  /** @throws SidecarError RK0303 for a newer format, RK0305 for a damaged one */
  static async open(fs: FileSystem, path: string, clock: Clock): Promise<FileMetaStore> {
    const bytes = readFile(fs, path);
    if (bytes === null) {
      await writeAtomically(fs, path, frame(header(new StoreState())));
    }
    const { entries, end } = parse(bytes ?? frame(header(new StoreState())), path);
    const file = fs.open(path, 'write');
    if (bytes !== null && end < bytes.length) file.truncateNow(end);
    const store = new FileMetaStore(fs, path, clock, file, end);
    for (const entry of entries) store.#state.apply(withoutLeases(entry));
    return store;
  }

  async get(key: string): Promise<Entry | null> {
    return this.#state.get(key);
  }

  async range(prefix: string): Promise<Entry[]> {
    return this.#state.range(prefix);
  }

  commit(transaction: Transaction): Promise<Outcome> {
    const { compare = [], put = [], remove = [] } = transaction;
    assert(
      compare.length + put.length + remove.length <= operationsMax,
      `a transaction of at most ${operationsMax} operations`,
    );
    const outcome = this.#turn.then(() => this.#commit(transaction));
    this.#turn = outcome.catch(() => {});
    return outcome;
  }

  async #commit(transaction: Transaction): Promise<Outcome> {
    if (this.#failure !== null) throw new SidecarError('RK0401', this.#path, { cause: this.#failure });
    const committed = this.#state.prepare(transaction);
    if (committed === null) return failed(this.#state);
    try {
      await this.#append(frame(committed));
    } catch (error) {
      this.#failure = error as Error;
      throw new SidecarError('RK0401', this.#path, { cause: error });
    }
    this.#publish(this.#state.apply(committed));
    return { succeeded: true, revision: committed.revision };
  }

  async #append(bytes: Buffer): Promise<void> {
    if (this.#size + bytes.length > compactBytes) await this.#compact();
    this.#file.writeNow([bytes], this.#size);
    await this.#file.sync();
    this.#size += bytes.length;
  }

  async #compact(): Promise<void> {
    const snapshot = frame(header(this.#state));
    if (snapshot.length > this.#size / 2) return;
    await writeAtomically(this.#fs, this.#path, snapshot);
    this.#file.release();
    this.#file = this.#fs.open(this.#path, 'write');
    this.#size = snapshot.length;
  }

  watch(prefix: string, listener: (changes: readonly Change[]) => void): () => void {
    const watcher = { prefix, listener };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  #publish(changes: readonly Change[]): void {
    for (const { prefix, listener } of this.#watchers) {
      const seen = changes.filter(({ key }) => key.startsWith(prefix));
      if (seen.length > 0) listener(seen);
    }
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    const id = this.#nextLease++;
    const revoke = async (): Promise<void> => {
      this.#leases.get(id)?.cancel();
      this.#leases.delete(id);
      const keys = this.#state.leasedBy(id);
      if (keys.length > 0) await this.commit({ remove: keys });
    };
    const arm = (): void => {
      this.#leases.get(id)?.cancel();
      this.#leases.set(
        id,
        this.#clock.after(ttlMs, () => void revoke().catch(() => {})),
      );
    };
    arm();
    return { id, revoke, renew: async () => void (this.#leases.has(id) && arm()) };
  }

  async close(): Promise<void> {
    for (const timer of this.#leases.values()) timer.cancel();
    this.#leases.clear();
    await this.#turn;
    this.#file.release();
  }
}

type Snapshot = Committed & { readonly format: number };

const header = (state: StoreState): Snapshot => ({ format: formatVersion, ...state.snapshot() });

/** `length:u32 crc32c:u32 json` */
function frame(entry: Committed): Buffer {
  const json = Buffer.from(JSON.stringify(entry));
  const bytes = Buffer.alloc(frameSize + json.length);
  bytes.writeUInt32BE(json.length, 0);
  bytes.writeUInt32BE(crc32c([json]), 4);
  json.copy(bytes, frameSize);
  return bytes;
}

function parse(bytes: Buffer, path: string): { entries: Committed[]; end: number } {
  const entries: Committed[] = [];
  let at = 0;
  while (bytes.length - at >= frameSize) {
    const length = bytes.readUInt32BE(at);
    const json = bytes.subarray(at + frameSize, at + frameSize + length);
    if (json.length < length || crc32c([json]) !== bytes.readUInt32BE(at + 4)) break;
    entries.push(JSON.parse(json.toString('utf8')) as Committed);
    at += frameSize + length;
  }
  const first = entries[0] as Snapshot | undefined;
  // The first frame was put in place whole, so a crash cannot have torn it.
  if (first === undefined) throw new SidecarError('RK0305', `${path}: the first entry`);
  if (first.format > formatVersion) {
    throw new SidecarError(
      'RK0303',
      `${path} has format ${first.format}, this version knows ${formatVersion}`,
    );
  }
  return { entries, end: at };
}

/** A lease ends with the process that held it. */
const withoutLeases = ({ revision, put, remove }: Committed): Committed => ({
  revision,
  put: put.filter(({ lease }) => lease === undefined),
  remove: [...remove, ...put.filter(({ lease }) => lease !== undefined).map(({ key }) => key)],
});
