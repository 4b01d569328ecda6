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
/** A journal below this size is not worth writing anew. */
const compactBytes = 1 << 20;

/**
 * A store in one local file: a journal of transactions, each in a frame with its length and CRC-32C, the first
 * one a snapshot. A commit is on disk before it resolves. What a crash tore at the end is cut: nobody was told
 * of it. A write that the disk refuses is taken back; after a failed sync nothing more is taken, because nobody
 * knows what is on the disk.
 */
export class FileMetaStore implements MetaStore {
  readonly #fs: FileSystem;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #makeRoom: () => boolean;
  readonly #state = new StoreState();
  readonly #watchers = new Set<{ prefix: string; listener: (changes: readonly Change[]) => void }>();
  readonly #leases = new Map<number, Timer>();
  #nextLease = 1;
  #file: File;
  #size: number;
  /** At this size the journal is written anew, if that makes it smaller by half. */
  #compactAt = compactBytes;
  /** Commits take their turns, because each compares with what the one before it left. */
  #turn: Promise<unknown> = Promise.resolve();
  #failure: Error | null = null;

  private constructor(
    fs: FileSystem,
    path: string,
    clock: Clock,
    file: File,
    size: number,
    makeRoom: () => boolean,
  ) {
    this.#makeRoom = makeRoom;
    this.#fs = fs;
    this.#path = path;
    this.#clock = clock;
    this.#file = file;
    this.#size = size;
  }

  /**
   * @param makeRoom gives up what was kept aside on the disk for a removal; false when there is nothing
   * @throws SidecarError RK0303 for a newer format, RK0305 for a damaged one
   */
  static async open(
    fs: FileSystem,
    path: string,
    clock: Clock,
    makeRoom = (): boolean => false,
  ): Promise<FileMetaStore> {
    let bytes = readFile(fs, path);
    if (bytes === null) {
      bytes = frame(header(new StoreState()));
      await writeAtomically(fs, path, bytes);
    }
    const { entries, end } = parse(bytes, path);
    const file = fs.open(path, 'write');
    try {
      if (end < bytes.length) file.truncateNow(end);
      // What is read may never have been synced: a commit whose sync failed, and a restart without a crash.
      await file.sync();
    } catch (error) {
      file.release();
      throw new SidecarError('RK0301', path, { cause: error });
    }
    const store = new FileMetaStore(fs, path, clock, file, end, makeRoom);
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
    checkTransaction(transaction);
    return this.#inTurn(() => this.#commit(transaction));
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(run);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #commit(transaction: Transaction): Promise<Outcome> {
    if (this.#failure !== null) throw new SidecarError('RK0401', this.#path, { cause: this.#failure });
    for (const { lease } of transaction.put ?? [])
      if (lease !== undefined && !this.#leases.has(lease.id))
        throw new SidecarError('RK0401', `lease ${lease.id} has lapsed`);
    const committed = this.#state.prepare(transaction);
    if (committed === null) return failed(this.#state);
    await this.#append(frame(committed), (transaction.remove ?? []).length > 0);
    this.#publish(this.#state.apply(committed));
    return { succeeded: true, revision: committed.revision };
  }

  async #append(bytes: Buffer, isRemoval: boolean): Promise<void> {
    if (this.#size + bytes.length > this.#compactAt) await this.#compact();
    try {
      this.#write(bytes);
    } catch (error) {
      // What goes makes room for others.
      if (this.#failure !== null || !isRemoval || !this.#makeRoom()) throw error;
      this.#write(bytes);
    }
    try {
      await this.#file.sync();
    } catch (error) {
      throw this.#fail(error);
    }
    this.#size += bytes.length;
  }

  #write(bytes: Buffer): void {
    try {
      this.#file.writeNow([bytes], this.#size);
    } catch (error) {
      this.#takeBack(error);
      throw new SidecarError('RK0401', this.#path, { cause: error });
    }
  }

  /** The disk is full, say: what it took of the frame goes, and the next commit may succeed. */
  #takeBack(cause: unknown): void {
    try {
      this.#file.truncateNow(this.#size);
    } catch {
      this.#fail(cause);
    }
  }

  #fail(cause: unknown): SidecarError {
    this.#failure = cause as Error;
    return new SidecarError('RK0401', this.#path, { cause });
  }

  async #compact(): Promise<void> {
    const snapshot = frame(header(this.#state));
    // Asked again only after as much has been added: the whole state is not written out with every commit.
    this.#compactAt = Math.max(compactBytes, snapshot.length * 2);
    if (snapshot.length > this.#size / 2) return;
    try {
      await writeAtomically(this.#fs, this.#path, snapshot);
    } catch (error) {
      // Without the snapshot in its place the journal that we have goes on.
      if (this.#fs.size(this.#path) === this.#size) return;
      throw this.#fail(error);
    }
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
      if (!this.#leases.has(id)) return;
      this.#leases.get(id)!.cancel();
      this.#leases.delete(id);
      await this.#inTurn(async () => {
        const remove = this.#state.leasedBy(id);
        if (remove.length > 0) await this.#commit({ remove });
      });
    };
    const arm = (): void => {
      this.#leases.get(id)?.cancel();
      // A store that cannot forget them now forgets them when it is opened again.
      this.#leases.set(
        id,
        this.#clock.after(ttlMs, () => void revoke().catch(() => {})),
      );
    };
    arm();
    const renew = async (): Promise<boolean> => {
      if (!this.#leases.has(id)) return false;
      arm();
      return true;
    };
    return { id, revoke, renew };
  }

  async close(): Promise<void> {
    for (const timer of this.#leases.values()) timer.cancel();
    this.#leases.clear();
    await this.#turn;
    this.#file.release();
  }
}

function checkTransaction({ compare = [], put = [], remove = [] }: Transaction): void {
  const operations = compare.length + put.length + remove.length;
  assert(operations <= operationsMax, `a transaction of at most ${operationsMax} operations`);
  const changed = new Set([...put.map(({ key }) => key), ...remove]);
  assert(changed.size === put.length + remove.length, 'a transaction changes a key once');
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
  for (let json = frameAt(bytes, at); json !== null; json = frameAt(bytes, at)) {
    entries.push(readEntry(json, path));
    at += frameSize + json.length;
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
  // A frame begins when the one before it is synced, so a crash tears the last one alone. Before others it is rot.
  if (hasFrameAfter(bytes, at)) throw new SidecarError('RK0305', `${path}: the entry at byte ${at}`);
  return { entries, end: at };
}

/** What the frame holds; null when there is no whole one. Zeros, which a file system may leave, are none. */
function frameAt(bytes: Buffer, at: number): Buffer | null {
  if (bytes.length - at < frameSize) return null;
  const length = bytes.readUInt32BE(at);
  const json = bytes.subarray(at + frameSize, at + frameSize + length);
  const isWhole = length > 0 && json.length === length && crc32c([json]) === bytes.readUInt32BE(at + 4);
  return isWhole ? json : null;
}

function hasFrameAfter(bytes: Buffer, torn: number): boolean {
  const opening = '{"revision":';
  for (let at = bytes.indexOf(opening, torn + frameSize + 1); at >= 0; at = bytes.indexOf(opening, at + 1))
    if (frameAt(bytes, at - frameSize) !== null) return true;
  return false;
}

function readEntry(json: Buffer, path: string): Committed {
  try {
    return JSON.parse(json.toString('utf8')) as Committed;
  } catch (error) {
    throw new SidecarError('RK0305', path, { cause: error });
  }
}

/** A lease ends with the process that held it. */
const withoutLeases = ({ revision, put, remove }: Committed): Committed => ({
  revision,
  put: put.filter(({ lease }) => lease === undefined),
  remove: [...remove, ...put.filter(({ lease }) => lease !== undefined).map(({ key }) => key)],
});
