import type { Descriptors } from './descriptor-budget.ts';
import { readFully, type File, type FileSystem, type Lock } from './file-system.ts';
import type { Extent, PowerCut, UnsyncedChange } from './power-cut.ts';

/**
 * A file system in memory that behaves like a disk on a bad day. What was not synced may be gone after a power
 * cut (`afterPowerCut`), any operation can be made to fail (`failWhen`), syncs take as long as `untilSynced`
 * says while writes go on, a failed sync loses its bytes for good although the next one reports success, and
 * there may be too little room (`capacityBytes`). Names in a directory are only sure once it was synced, and a
 * file that is used after its last release says so.
 */
export class MemoryFileSystem implements FileSystem {
  /** Every operation so far, for tests that want to fail the n-th of them. */
  readonly operations: Operation[] = [];
  /** Told before each operation: what a crash now would leave is what is there now. */
  beforeOperation: ((operation: Operation) => void) | null = null;
  /** What a sync waits for after it began; it covers what was written before. */
  untilSynced: () => Promise<void> = async () => {};
  /** All files together never hold more. */
  capacityBytes = Infinity;
  /** A disk that lies: operations that report success and do nothing. Copies of the disk lie as well. */
  ignores: ((operation: Operation) => boolean) | null = null;
  readonly descriptors: Descriptors = {
    open: 0,
    max: Infinity,
    leftForOthers: Infinity,
    evictions: 0,
    isSpent: false,
  };
  /** How often the power was gone. */
  readonly powerCuts: number;
  readonly #root: MemoryDirectory;
  readonly #locked = new Set<string>();
  #failure: FailWhen | null = null;
  #sequence: number;
  #last: UnsyncedChange | null = null;
  #openFiles = 0;

  constructor(root = new MemoryDirectory(), sequence = 0, powerCuts = 0) {
    this.#root = root;
    this.#sequence = sequence;
    this.powerCuts = powerCuts;
  }

  /** From now on each operation asks whether it fails. */
  failWhen(failure: FailWhen | null): void {
    this.#failure = failure;
  }

  /** The latest change, null before the first one. */
  get lastChange(): UnsyncedChange | null {
    return this.#last;
  }

  /** Files that somebody holds open. */
  get openFiles(): number {
    return this.#openFiles;
  }

  /**
   * The disk as the next process finds it when this one was killed: all that was written is there, and what was
   * not synced is still not synced.
   *
   * @param lastWrite how much of the last write the kill let through
   */
  afterKill(lastWrite?: Extent): MemoryFileSystem {
    const sequence = lastWrite === undefined ? null : this.#last!.sequence;
    return this.#copy(
      this.powerCuts,
      (content) => content.copy(sequence, lastWrite),
      (directory, copy) => directory.copy(copy),
    );
  }

  /** A disk as it may look after the power went: what was synced surely, of each later change what is chosen. */
  afterPowerCut(cut: PowerCut): MemoryFileSystem {
    return this.#copy(
      this.powerCuts + 1,
      (content) => content.afterPowerCut(cut),
      (directory, copy) => directory.afterPowerCut(cut, copy),
    );
  }

  /**
   * Equal for directories in which the same names hold the same bytes.
   *
   * @param digest of a file's bytes (the same Buffer for as long as they are the same), or of a directory's text
   */
  fingerprint(path: string, digest: (content: Buffer | string) => string): string {
    const node = this.#find(path);
    return node === undefined ? 'nothing' : fingerprintOf(node, digest);
  }

  open(path: string, mode: 'read' | 'write' | 'create'): File {
    this.#operate('open', path);
    const { directory, name } = this.#parent(path);
    let node = directory.entries.get(name);
    if (node === undefined && mode === 'create') {
      node = new MemoryContent();
      directory.change({ ...this.#next('entry'), removed: null, added: [name, node] });
    }
    if (!(node instanceof MemoryContent)) throw systemError(node === undefined ? 'ENOENT' : 'EISDIR', path);
    this.#openFiles++;
    return new MemoryFile(path, node, {
      operate: (operation) => this.#operate(operation, path),
      next: (kind, size) => this.#next(kind, size),
      room: () => this.freeBytes(),
      untilSynced: () => this.untilSynced(),
      sequence: () => this.#sequence,
      closed: () => void this.#openFiles--,
    });
  }

  exists(path: string): boolean {
    return this.#find(path) !== undefined;
  }

  size(path: string): number {
    const node = this.#find(path);
    if (!(node instanceof MemoryContent)) throw systemError('ENOENT', path);
    return node.bytes.length;
  }

  list(directory: string): string[] {
    const node = this.#find(directory);
    if (!(node instanceof MemoryDirectory)) throw systemError('ENOENT', directory);
    return [...node.entries.keys()].sort();
  }

  isDirectory(path: string): boolean {
    return this.#find(path) instanceof MemoryDirectory;
  }

  makeDirectory(path: string): void {
    this.#operate('makeDirectory', path);
    let directory = this.#root;
    for (const name of partsOf(path)) {
      let next = directory.entries.get(name);
      if (next === undefined) {
        next = new MemoryDirectory();
        directory.change({ ...this.#next('entry'), removed: null, added: [name, next] });
      }
      if (!(next instanceof MemoryDirectory)) throw systemError('ENOTDIR', path);
      directory = next;
    }
  }

  rename(from: string, to: string): void {
    this.#operate('rename', from);
    const source = this.#parent(from);
    const target = this.#parent(to);
    const node = source.directory.entries.get(source.name);
    if (node === undefined) throw systemError('ENOENT', from);
    if (source.directory !== target.directory) throw systemError('EXDEV', to);
    source.directory.change({ ...this.#next('entry'), removed: source.name, added: [target.name, node] });
  }

  remove(path: string): void {
    if (!this.#operate('remove', path)) return;
    const { directory, name } = this.#parent(path);
    if (!directory.entries.has(name)) throw systemError('ENOENT', path);
    directory.change({ ...this.#next('entry'), removed: name, added: null });
  }

  async removeFile(path: string): Promise<void> {
    this.remove(path);
  }

  /** Time stands still on this disk: whoever needs a time must have another source. */
  modifiedMs(path: string): number {
    if (!this.exists(path)) throw systemError('ENOENT', path);
    return Infinity;
  }

  async removeDirectory(path: string): Promise<void> {
    if (this.exists(path)) this.remove(path);
  }

  async syncDirectory(path: string): Promise<void> {
    const { directory, sequence } = this.#beginDirectorySync(path);
    await this.untilSynced();
    directory.sync(sequence);
  }

  syncDirectoryNow(path: string): void {
    const { directory, sequence } = this.#beginDirectorySync(path);
    directory.sync(sequence);
  }

  freeBytes(): number {
    return this.capacityBytes === Infinity
      ? Infinity
      : Math.max(0, this.capacityBytes - this.#root.sizeInBytes);
  }

  lock(path: string): Lock | null {
    if (this.#locked.has(path)) return null;
    this.open(path, 'create').release();
    this.#locked.add(path);
    return { release: () => void this.#locked.delete(path) };
  }

  #beginDirectorySync(path: string): { directory: MemoryDirectory; sequence: number } {
    const isDone = this.#operate('syncDirectory', path);
    const directory = this.#find(path);
    if (!(directory instanceof MemoryDirectory)) throw systemError('ENOENT', path);
    return { directory, sequence: isDone ? this.#sequence : 0 };
  }

  #copy(
    powerCuts: number,
    copyContent: (content: MemoryContent) => MemoryContent,
    copyDirectory: (directory: MemoryDirectory, copy: (node: Node) => Node) => MemoryDirectory,
  ): MemoryFileSystem {
    const copies = new Map<Node, Node>();
    const copy = (node: Node): Node => {
      const known = copies.get(node);
      if (known !== undefined) return known;
      const made = node instanceof MemoryContent ? copyContent(node) : copyDirectory(node, copy);
      copies.set(node, made);
      return made;
    };
    const copied = new MemoryFileSystem(copy(this.#root) as MemoryDirectory, this.#sequence, powerCuts);
    copied.ignores = this.ignores;
    return copied;
  }

  /** @returns whether the operation is to be done */
  #operate(name: Operation['name'], path: string): boolean {
    const operation = { name, path };
    this.beforeOperation?.(operation);
    const code = this.#failure?.(operation, this.operations.length) ?? null;
    this.operations.push(operation);
    if (code !== null) throw Object.assign(systemError(code, path), { syscall: syscallOf[name] ?? name });
    return this.ignores === null || !this.ignores(operation);
  }

  #next(kind: UnsyncedChange['kind'], sizeInBytes = 0): UnsyncedChange {
    this.#last = { kind, sequence: ++this.#sequence, sizeInBytes };
    return this.#last;
  }

  #find(path: string): Node | undefined {
    const parts = partsOf(path);
    return this.#walk(parts, parts.length);
  }

  #parent(path: string): { directory: MemoryDirectory; name: string } {
    const parts = partsOf(path);
    const name = parts.at(-1);
    const directory = this.#walk(parts, parts.length - 1);
    if (name === undefined || !(directory instanceof MemoryDirectory)) throw systemError('ENOENT', path);
    return { directory, name };
  }

  #walk(parts: readonly string[], count: number): Node | undefined {
    let node: Node | undefined = this.#root;
    for (let i = 0; i < count; i++) {
      if (!(node instanceof MemoryDirectory)) return undefined;
      node = node.entries.get(parts[i]!);
    }
    return node;
  }
}

/** What is about to be done: an operation's name and the path it touches. */
export interface Operation {
  readonly name:
    'open' | 'write' | 'truncate' | 'sync' | 'rename' | 'remove' | 'syncDirectory' | 'makeDirectory' | 'read';
  readonly path: string;
}

/** The system's code with which an operation fails, null when it does not. */
export type FailWhen = (operation: Operation, index: number) => string | null;

type Node = MemoryDirectory | MemoryContent;

/** One change of a directory; a rename is one change, so it is never half there. */
interface EntryChange extends UnsyncedChange {
  readonly removed: string | null;
  readonly added: readonly [name: string, node: Node] | null;
}

class MemoryDirectory {
  readonly entries: Map<string, Node>;
  #durable: Map<string, Node>;
  #changes: EntryChange[] = [];

  constructor(entries = new Map<string, Node>()) {
    this.entries = entries;
    this.#durable = new Map(entries);
  }

  get sizeInBytes(): number {
    let size = 0;
    for (const node of this.entries.values())
      size += node instanceof MemoryContent ? node.bytes.length : node.sizeInBytes;
    return size;
  }

  change(change: EntryChange): void {
    apply(this.entries, change);
    this.#changes.push(change);
  }

  /** Everything up to a change is durable. */
  sync(sequence: number): void {
    while (this.#changes.length > 0 && this.#changes[0]!.sequence <= sequence)
      apply(this.#durable, this.#changes.shift()!);
  }

  copy(copy: (node: Node) => Node): MemoryDirectory {
    const made = new MemoryDirectory(copied(this.entries, copy));
    made.#durable = copied(this.#durable, copy);
    made.#changes = this.#changes.map((change) => ({
      ...change,
      added: change.added && [change.added[0], copy(change.added[1])],
    }));
    return made;
  }

  afterPowerCut(cut: PowerCut, copy: (node: Node) => Node): MemoryDirectory {
    const entries = new Map(this.#durable);
    for (const change of this.#changes) if (cut(change) !== false) apply(entries, change);
    return new MemoryDirectory(copied(entries, copy));
  }
}

/** A write, or with no bytes a truncation to its position. */
interface Write extends UnsyncedChange {
  readonly position: number;
  readonly bytes: Buffer | null;
}

class MemoryContent {
  /** What processes see: the page cache. */
  bytes: Buffer;
  /** What is on the disk. */
  #durable: Buffer;
  #writes: Write[] = [];
  /** Changes up to this one were under a sync that failed: the kernel takes them for clean and forgets them. */
  #forsaken = 0;

  constructor(bytes: Buffer = Buffer.alloc(0), durable = bytes) {
    this.bytes = bytes;
    this.#durable = durable;
  }

  write(write: Write): void {
    this.bytes = written(this.bytes, [write]);
    this.#writes.push(write);
  }

  sync(sequence: number): void {
    const covered = this.#writes.filter((write) => write.sequence <= sequence);
    if (covered.length === 0) return;
    const reached = covered.filter((write) => write.sequence > this.#forsaken);
    // Shared while they are equal, so that copies of the disk share them too.
    const isAll = covered.length === this.#writes.length && this.#forsaken === 0;
    this.#durable = isAll ? this.bytes : written(this.#durable, reached);
    this.#writes = this.#writes.slice(covered.length);
  }

  forsake(sequence: number): void {
    if (this.#writes.length > 0) this.#forsaken = sequence;
  }

  /** @param torn the change of which only an extent was written, if it is one of this file */
  copy(torn: number | null, extent: Extent | undefined): MemoryContent {
    const last = this.#writes.at(-1);
    const isTorn = torn !== null && last?.sequence === torn;
    const made = new MemoryContent(this.bytes, this.#durable);
    made.#writes = this.#writes.slice();
    made.#forsaken = this.#forsaken;
    if (!isTorn) return made;
    made.#writes.pop();
    made.bytes = written(this.#durable, made.#writes);
    made.write(pieceOf(last!, extent!));
    return made;
  }

  afterPowerCut(cut: PowerCut): MemoryContent {
    if (this.#writes.length === 0) return new MemoryContent(this.#durable);
    const reached: Write[] = [];
    for (const write of this.#writes) {
      const kept = write.sequence > this.#forsaken && cut(write);
      if (kept === true) reached.push(write);
      else if (kept !== false) reached.push(pieceOf(write, kept));
    }
    if (reached.length === 0) return new MemoryContent(this.#durable);
    return new MemoryContent(written(this.#durable, reached));
  }
}

/** What a file needs of its disk. */
interface Disk {
  operate(name: Operation['name']): boolean;
  next(kind: UnsyncedChange['kind'], sizeInBytes?: number): UnsyncedChange;
  room(): number;
  untilSynced(): Promise<void>;
  sequence(): number;
  closed(): void;
}

class MemoryFile implements File {
  readonly path: string;
  readonly pageCache = null;
  readonly #content: MemoryContent;
  readonly #disk: Disk;
  #holders = 1;

  constructor(path: string, content: MemoryContent, disk: Disk) {
    this.path = path;
    this.#content = content;
    this.#disk = disk;
  }

  size(): number {
    this.#mustBeOpen();
    return this.#content.bytes.length;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    return this.readNow(into, position);
  }

  readNow(into: Uint8Array, position: number): number {
    this.#operate('read');
    const { bytes } = this.#content;
    return readFully((rest, at) => (at < bytes.length ? bytes.copy(rest, 0, at) : 0), into, position);
  }

  async write(chunks: readonly Uint8Array[], position: number): Promise<void> {
    this.writeNow(chunks, position);
  }

  writeNow(chunks: readonly Uint8Array[], position: number): void {
    if (!this.#operate('write')) return;
    const bytes = Buffer.concat(chunks);
    const room = this.#disk.room() + Math.max(0, this.#content.bytes.length - position);
    // A full disk takes what fits before it says so.
    const fitting = bytes.length > room ? bytes.subarray(0, Math.max(0, room)) : bytes;
    if (fitting.length > 0)
      this.#content.write({ ...this.#disk.next('write', fitting.length), position, bytes: fitting });
    if (fitting.length < bytes.length) throw systemError('ENOSPC', this.path);
  }

  truncateNow(size: number): void {
    if (!this.#operate('truncate')) return;
    this.#content.write({ ...this.#disk.next('truncate'), position: size, bytes: null });
  }

  async sync(): Promise<void> {
    this.retain();
    try {
      const { sequence, failure } = this.#beginSync();
      await this.#disk.untilSynced();
      if (failure !== null) throw failure;
      this.#content.sync(sequence);
    } finally {
      this.release();
    }
  }

  syncNow(): void {
    const { sequence, failure } = this.#beginSync();
    if (failure !== null) throw failure;
    this.#content.sync(sequence);
  }

  retain(): void {
    this.#mustBeOpen();
    this.#holders++;
  }

  release(): void {
    this.#mustBeOpen();
    if (--this.#holders === 0) this.#disk.closed();
  }

  #beginSync(): { sequence: number; failure: Error | null } {
    const sequence = this.#disk.sequence();
    try {
      return { sequence: this.#operate('sync') ? sequence : 0, failure: null };
    } catch (error) {
      this.#content.forsake(sequence);
      return { sequence, failure: error as Error };
    }
  }

  #operate(name: Operation['name']): boolean {
    this.#mustBeOpen();
    return this.#disk.operate(name);
  }

  #mustBeOpen(): void {
    if (this.#holders <= 0) throw systemError('EBADF', this.path);
  }
}

/** Paths that were taken apart already: tests open the same few files over and over. */
const knownParts = new Map<string, readonly string[]>();
const knownPartsMax = 10_000;

function partsOf(path: string): readonly string[] {
  let parts = knownParts.get(path);
  if (parts === undefined) {
    parts = path.split('/').filter((part) => part !== '');
    if (knownParts.size >= knownPartsMax) knownParts.clear();
    knownParts.set(path, parts);
  }
  return parts;
}

function copied(entries: Map<string, Node>, copy: (node: Node) => Node): Map<string, Node> {
  const made = new Map<string, Node>();
  for (const [name, node] of entries) made.set(name, copy(node));
  return made;
}

function apply(entries: Map<string, Node>, { removed, added }: EntryChange): void {
  // A rename of what was never there (its creation was lost) adds it: the content is what the rename moved.
  if (removed !== null) entries.delete(removed);
  if (added !== null) entries.set(...added);
}

/** Bytes after some writes; where a write begins behind the end, zeros fill the hole. */
function written(bytes: Buffer, writes: readonly Write[]): Buffer {
  const most = Math.max(bytes.length, ...writes.map((write) => write.position + (write.bytes?.length ?? 0)));
  const made = Buffer.alloc(most);
  bytes.copy(made);
  let size = bytes.length;
  for (const write of writes) {
    if (write.bytes === null) {
      made.fill(0, write.position, Math.max(size, write.position));
      size = write.position;
    } else {
      write.bytes.copy(made, write.position);
      size = Math.max(size, write.position + write.bytes.length);
    }
  }
  return made.subarray(0, size);
}

function pieceOf(write: Write, { from, to }: Extent): Write {
  if (write.bytes === null) return write;
  const bytes = write.bytes.subarray(from, to);
  return { ...write, position: write.position + from, bytes, sizeInBytes: bytes.length };
}

function fingerprintOf(node: Node, digest: (content: Buffer | string) => string): string {
  if (node instanceof MemoryContent) return digest(node.bytes);
  const names = [...node.entries].map(([name, child]) => `${name} ${fingerprintOf(child, digest)}`);
  return digest(names.sort().join('\n'));
}

/** What the real ones are called in errors, where that is not the operation's own name. */
const syscallOf: Partial<Record<Operation['name'], string>> = { sync: 'fdatasync', syncDirectory: 'fsync' };

function systemError(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
