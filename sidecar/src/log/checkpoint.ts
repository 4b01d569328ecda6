import { readFile, writeAtomically, writeAtomicallyNow, type FileSystem } from '../vfs/file-system.ts';

/** One offset a partition, by `topic-partition`. */
export type Offsets = ReadonlyMap<string, number>;

/**
 * A small text file of offsets in Kafka's form, replaced whole: version, count, then `topic partition offset`
 * lines. docs/format/checkpoints.md.
 */
export class Checkpoint {
  readonly #fs: FileSystem;
  readonly #path: string;
  #written = '';
  #writing: Promise<void> = Promise.resolve();

  constructor(fs: FileSystem, path: string) {
    this.#fs = fs;
    this.#path = path;
  }

  /** Empty when it is missing or damaged, which costs a longer scan and nothing else. */
  read(): Offsets {
    const text = readFile(this.#fs, this.#path)?.toString('utf8') ?? '';
    const [version, count, ...lines] = text.trimEnd().split('\n');
    const offsets = new Map<string, number>();
    if (version !== '0' || Number(count) !== lines.length) return offsets;
    for (const line of lines) {
      const [topic, partition, offset] = line.split(' ');
      if (!Number.isSafeInteger(Number(offset))) return new Map();
      offsets.set(`${topic}-${partition}`, Number(offset));
    }
    return offsets;
  }

  /** One after another; does nothing when nothing has changed. */
  write(offsets: () => Offsets): Promise<void> {
    const writing = this.#writing
      .catch(() => {})
      .then(async () => {
        const text = format(offsets());
        if (text === this.#written) return;
        await writeAtomically(this.#fs, this.#path, Buffer.from(text));
        this.#written = text;
      });
    this.#writing = writing;
    return writing;
  }

  writeNow(offsets: Offsets): void {
    writeAtomicallyNow(this.#fs, this.#path, Buffer.from(format(offsets)));
  }
}

function format(offsets: Offsets): string {
  const lines = [...offsets].map(([name, offset]) => {
    const dash = name.lastIndexOf('-');
    return `${name.slice(0, dash)} ${name.slice(dash + 1)} ${offset}\n`;
  });
  return `0\n${lines.length}\n${lines.join('')}`;
}
