import { readFully, type File, type FileSystem, type Lock } from './file-system.ts';

/**
 * A file system in memory that behaves like a disk on a bad day: what was not synced may be gone after a
 * crash (`crashClone`), and any operation can be made to fail (`failWhen`). Directory entries are files' names,
 * and they too are only sure once their directory was synced.
 */

type Node = MemoryDirectory | MemoryContent;

/** One change of a directory since it was last synced; a rename is one change, so it is never half there. */
interface EntryChange {
  readonly removed: string | null;
  readonly added: readonly [name: string, node: Node] | null;
}

class MemoryDirectory {
  readonly entries: Map<string, Node>;
  durable: Map<string, Node>;
  changes: EntryChange[] = [];

  constructor(entries = new Map<string, Node>()) {
    this.entries = entries;
    this.durable = new Map(entries);
  }

  change(change: EntryChange): void {
    apply(this.entries, change);
    this.changes.push(change);
  }

  sync(): void {
    this.durable = new Map(this.entries);
    this.changes = [];
  }
}

type Write = { readonly position: number; readonly bytes: Buffer } | { readonly truncatedTo: number };

class MemoryContent {
  bytes: Buffer;
  durable: Buffer;
  writes: Write[] = [];

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.bytes = bytes;
    this.durable = bytes;
  }

  write(write: Write): void {
    this.bytes = written(this.bytes, write);
    this.writes.push(write);
  }

  sync(): void {
    this.durable = this.bytes;
    this.writes = [];
  }
}

/** What is about to be done: an operation's name and the path it touches. */
export interface Operation {
  readonly name:
    'open' | 'write' | 'truncate' | 'sync' | 'rename' | 'remove' | 'syncDirectory' | 'makeDirectory' | 'read';
  readonly path: string;
}

export class MemoryFileSystem implements FileSystem {
  /** Every operation so far, for tests that want to fail the n-th of them. */
  readonly operations: Operation[] = [];
  readonly #root: MemoryDirectory;
  readonly #locked = new Set<string>();
  #failure: ((operation: Operation, index: number) => string | null) | null = null;

  constructor(root = new MemoryDirectory()) {
    this.#root = root;
  }

  /** From now on each operation asks whether it fails, and with which code. */
  failWhen(failure: ((operation: Operation, index: number) => string | null) | null): void {
    this.#failure = failure;
  }

  /**
   * A disk as it may look after the power went: synced bytes and entries surely, each later change perhaps, a
   * write perhaps in part.
   *
   * @param chance numbers in [0, 1), from a seed
   */
  crashClone(chance: () => number): MemoryFileSystem {
    const clones = new Map<Node, Node>();
    const clone = (node: Node): Node => {
      const known = clones.get(node);
      if (known !== undefined) return known;
      if (node instanceof MemoryContent) {
        let bytes = node.durable;
        for (const write of node.writes) if (chance() < 0.6) bytes = written(bytes, torn(write, chance));
        const content = new MemoryContent(bytes);
        clones.set(node, content);
        return content;
      }
      const entries = new Map(node.durable);
      for (const change of node.changes) if (chance() < 0.6) apply(entries, change);
      const directory = new MemoryDirectory(
        new Map([...entries].map(([name, child]) => [name, clone(child)])),
      );
      clones.set(node, directory);
      return directory;
    };
    return new MemoryFileSystem(clone(this.#root) as MemoryDirectory);
  }

  /** The disk as a crash of the process alone leaves it: everything written is there. */
  processCrashClone(): MemoryFileSystem {
    return this.crashClone(() => 0);
  }

  open(path: string, mode: 'read' | 'write' | 'create'): File {
    this.#operate('open', path);
    const { directory, name } = this.#parent(path);
    let node = directory.entries.get(name);
    if (node === undefined && mode === 'create') {
      node = new MemoryContent();
      directory.change({ removed: null, added: [name, node] });
    }
    if (!(node instanceof MemoryContent)) throw systemError(node === undefined ? 'ENOENT' : 'EISDIR', path);
    return new MemoryFile(path, node, (operation) => this.#operate(operation, path));
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
        directory.change({ removed: null, added: [name, next] });
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
    source.directory.change({ removed: source.name, added: [target.name, node] });
  }

  remove(path: string): void {
    this.#operate('remove', path);
    const { directory, name } = this.#parent(path);
    if (!directory.entries.has(name)) throw systemError('ENOENT', path);
    directory.change({ removed: name, added: null });
  }

  async removeDirectory(path: string): Promise<void> {
    if (this.exists(path)) this.remove(path);
  }

  async syncDirectory(path: string): Promise<void> {
    this.syncDirectoryNow(path);
  }

  syncDirectoryNow(path: string): void {
    this.#operate('syncDirectory', path);
    const node = this.#find(path);
    if (!(node instanceof MemoryDirectory)) throw systemError('ENOENT', path);
    node.sync();
  }

  lock(path: string): Lock | null {
    if (this.#locked.has(path)) return null;
    this.open(path, 'create').release();
    this.#locked.add(path);
    return { release: () => void this.#locked.delete(path) };
  }

  #operate(name: Operation['name'], path: string): void {
    const operation = { name, path };
    const code = this.#failure?.(operation, this.operations.length) ?? null;
    this.operations.push(operation);
    if (code !== null) throw systemError(code, path);
  }

  #find(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const name of partsOf(path)) {
      if (!(node instanceof MemoryDirectory)) return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  #parent(path: string): { directory: MemoryDirectory; name: string } {
    const parts = partsOf(path);
    const name = parts.pop();
    const directory = this.#find(`/${parts.join('/')}`);
    if (name === undefined || !(directory instanceof MemoryDirectory)) throw systemError('ENOENT', path);
    return { directory, name };
  }
}

class MemoryFile implements File {
  readonly path: string;
  readonly #content: MemoryContent;
  readonly #operate: (name: Operation['name']) => void;

  constructor(path: string, content: MemoryContent, operate: (name: Operation['name']) => void) {
    this.path = path;
    this.#content = content;
    this.#operate = operate;
  }

  size(): number {
    return this.#content.bytes.length;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    return this.readNow(into, position);
  }

  readNow(into: Uint8Array, position: number): number {
    this.#operate('read');
    return readFully((rest, at) => this.#content.bytes.copy(rest, 0, at), into, position);
  }

  writeNow(chunks: readonly Uint8Array[], position: number): void {
    this.#operate('write');
    this.#content.write({ position, bytes: Buffer.concat(chunks) });
  }

  truncateNow(size: number): void {
    this.#operate('truncate');
    this.#content.write({ truncatedTo: size });
  }

  async sync(): Promise<void> {
    this.syncNow();
  }

  syncNow(): void {
    this.#operate('sync');
    this.#content.sync();
  }

  retain(): void {}

  release(): void {}
}

const partsOf = (path: string): string[] => path.split('/').filter((part) => part !== '');

function apply(entries: Map<string, Node>, { removed, added }: EntryChange): void {
  // A rename of what was never there (its creation was lost) adds it: the content is what the rename moved.
  if (removed !== null) entries.delete(removed);
  if (added !== null) entries.set(...added);
}

function written(bytes: Buffer, write: Write): Buffer {
  if ('truncatedTo' in write) {
    const cut = Buffer.alloc(write.truncatedTo);
    bytes.copy(cut);
    return cut;
  }
  const end = Math.max(bytes.length, write.position + write.bytes.length);
  const next = Buffer.alloc(end);
  bytes.copy(next);
  write.bytes.copy(next, write.position);
  return next;
}

const sector = 512;

/** A write of which only whole sectors reached the disk, now and then. */
function torn(write: Write, chance: () => number): Write {
  if ('truncatedTo' in write || chance() < 0.5) return write;
  const sectors = Math.ceil(write.bytes.length / sector);
  const kept = Math.floor(chance() * (sectors + 1)) * sector;
  return { position: write.position, bytes: write.bytes.subarray(0, kept) };
}

function systemError(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
