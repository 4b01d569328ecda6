import { readFile, writeAtomically, writeAtomicallyNow, type FileSystem } from '../vfs/file-system.ts';

/** One offset a partition, by `topic-partition`. */
export type Offsets = ReadonlyMap<string, number>;

/**
 * A small text file of offsets in Kafka's form, replaced whole: version, count, then `topic partition offset`
 * lines. docs/format/checkpoints.md.
 */
export class Checkpoint {
  readonly #fs: FileSystem;
  readonly path: string;
  #written = '';
  /** Names in the file. */
  #named = new Set<string>();
  #urgentWrites = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(fs: FileSystem, path: string) {
    this.#fs = fs;
    this.path = path;
  }

  /** Null when it is missing or damaged. */
  read(): Offsets | null {
    const offsets = parseOffsets(readFile(this.#fs, this.path)?.toString('utf8') ?? '');
    for (const name of offsets?.keys() ?? []) this.#named.add(name);
    return offsets;
  }

  /** What it says of a log that is gone must not be taken for what it says of a new one of that name. */
  forgetNow(name: string, others: () => Offsets): void {
    if (this.#named.has(name)) this.writeNow(others());
  }

  /** One after another; does nothing when nothing has changed. */
  write(offsets: () => Offsets): Promise<void> {
    const writing = this.#writing
      .catch(() => {})
      .then(async () => {
        const current = offsets();
        const text = format(current);
        if (text === this.#written) return;
        const before = this.#urgentWrites;
        for (const name of current.keys()) this.#named.add(name);
        try {
          await writeAtomically(this.#fs, this.path, Buffer.from(text));
        } catch (error) {
          // A write that could not wait has come between, and has put newer offsets in place.
          if (this.#urgentWrites !== before) return;
          throw error;
        }
        if (this.#urgentWrites === before) this.#wrote(text, current);
      });
    this.#writing = writing;
    return writing;
  }

  writeNow(offsets: Offsets): void {
    this.#urgentWrites++;
    const text = format(offsets);
    writeAtomicallyNow(this.#fs, this.path, Buffer.from(text));
    this.#wrote(text, offsets);
  }

  #wrote(text: string, offsets: Offsets): void {
    this.#written = text;
    this.#named = new Set(offsets.keys());
  }
}

/** Null for a text that is no checkpoint. */
export function parseOffsets(text: string): Offsets | null {
  const [version, count, ...lines] = text.trimEnd().split('\n');
  if (version !== '0' || Number(count) !== lines.length) return null;
  const offsets = new Map<string, number>();
  for (const line of lines) {
    const [topic, partition, offset] = line.split(' ');
    if (!Number.isSafeInteger(Number(offset)) || Number(offset) < 0) return null;
    offsets.set(`${topic}-${partition}`, Number(offset));
  }
  return offsets;
}

function format(offsets: Offsets): string {
  const lines = [...offsets].map(([name, offset]) => {
    const dash = name.lastIndexOf('-');
    return `${name.slice(0, dash)} ${name.slice(dash + 1)} ${offset}\n`;
  });
  return `0\n${lines.length}\n${lines.join('')}`;
}
