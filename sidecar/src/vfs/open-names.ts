/** One name in the tree, and the files that are open under it. */
export interface Place<F> {
  readonly path: string;
  readonly files: ReadonlySet<F>;
}

/**
 * Under which names the open files are to be found: a file that is closed for a while must be opened again under
 * the name that it has by then. Only what is open is in the tree.
 */
export class OpenNames<F> {
  readonly #root = new Node<F>(null, '');

  add(path: string, file: F): Place<F> {
    let node = this.#root;
    for (const name of partsOf(path)) node = node.child(name);
    node.files.add(file);
    return node;
  }

  /** The file is open no more. */
  remove(place: Place<F>, file: F): void {
    const node = place as Node<F>;
    node.files.delete(file);
    node.prune();
  }

  /** What is open at a path, or below it. */
  at(path: string): F[] {
    return [...(this.#find(path)?.all() ?? [])];
  }

  /** What was at `from`, and below it, is at `to` now. What was at `to` has been taken out before. */
  rename(from: string, to: string): void {
    const moved = this.#find(from);
    if (moved === null) return;
    moved.leave();
    let parent = this.#root;
    const parts = partsOf(to);
    for (const name of parts.slice(0, -1)) parent = parent.child(name);
    moved.enter(parent, parts.at(-1)!);
  }

  #find(path: string): Node<F> | null {
    let node: Node<F> | undefined = this.#root;
    for (const name of partsOf(path)) {
      node = node.children.get(name);
      if (node === undefined) return null;
    }
    return node;
  }
}

class Node<F> implements Place<F> {
  readonly files = new Set<F>();
  readonly children = new Map<string, Node<F>>();
  #parent: Node<F> | null;
  #name: string;

  constructor(parent: Node<F> | null, name: string) {
    this.#parent = parent;
    this.#name = name;
  }

  get path(): string {
    return this.#parent === null ? '' : `${this.#parent.path}/${this.#name}`;
  }

  child(name: string): Node<F> {
    let child = this.children.get(name);
    if (child === undefined) this.children.set(name, (child = new Node(this, name)));
    return child;
  }

  *all(): Generator<F> {
    yield* this.files;
    for (const child of this.children.values()) yield* child.all();
  }

  leave(): void {
    const parent = this.#parent!;
    parent.children.delete(this.#name);
    parent.prune();
  }

  enter(parent: Node<F>, name: string): void {
    this.#parent = parent;
    this.#name = name;
    parent.children.set(name, this);
  }

  /** Nobody needs a name under which nothing is open. */
  prune(): void {
    if (this.files.size === 0 && this.children.size === 0 && this.#parent !== null) this.leave();
  }
}

const partsOf = (path: string): string[] => path.split('/').filter((part) => part !== '');
