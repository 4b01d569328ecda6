import { readFile, replaceNow, writeAtomicallyNow, type FileSystem } from '../vfs/file-system.ts';

export interface EpochStart {
  readonly epoch: number;
  readonly startOffset: number;
}

const undefinedEpoch = { leaderEpoch: -1, endOffset: -1 };

/** Which leader epoch began at which offset: `leader-epoch-checkpoint`, docs/format/checkpoints.md. */
export class LeaderEpochs {
  readonly #fs: FileSystem;
  readonly #path: string;
  #starts: EpochStart[];
  /** Whether the file was there, and could be read. */
  readonly found: 'missing' | 'damaged' | 'readable';

  constructor(fs: FileSystem, path: string) {
    this.#fs = fs;
    this.#path = path;
    const bytes = readFile(fs, path);
    const starts = bytes === null ? null : parseEpochs(bytes.toString('utf8'));
    this.#starts = starts ?? [];
    this.found = bytes === null ? 'missing' : starts === null ? 'damaged' : 'readable';
  }

  get latest(): number {
    return this.#starts.at(-1)?.epoch ?? -1;
  }

  /**
   * Durable before it returns: no batch of an epoch may be on disk without the epoch's beginning. But for the first
   * one of a log that is new: that becomes durable with the names of its files.
   * @param isNameless these are still to be made durable, before anything is acknowledged
   */
  assign(epoch: number, startOffset: number, isNameless: boolean): void {
    if (epoch <= this.latest) return;
    // Being first is not enough: a log cut down to nothing begins again under names that nobody syncs a second time.
    const isFirst = isNameless && this.#starts.length === 0 && startOffset === 0;
    // An epoch in which nothing was written has no offsets: the next one begins in its place.
    this.#starts = [
      ...this.#starts.filter((start) => start.startOffset < startOffset),
      { epoch, startOffset },
    ];
    if (isFirst) replaceNow(this.#fs, this.#path, this.#encoded());
    else this.#write();
  }

  /** Whether it is known in which epoch an offset was written. */
  knows(offset: number): boolean {
    return this.epochOf(offset) >= 0;
  }

  /**
   * Takes what the batches say in place of what the file said.
   * @param mayWrite false where no file of the log may be touched
   */
  restore(batches: Iterable<EpochStart>, mayWrite: boolean): void {
    this.#starts = startsOf(batches);
    if (mayWrite && this.#starts.length > 0) this.#write();
  }

  /** The epoch in which an offset was written, −1 when nobody knows. */
  epochOf(offset: number): number {
    return this.#starts.findLast(({ startOffset }) => startOffset <= offset)?.epoch ?? -1;
  }

  /** Kafka's answer to OffsetForLeaderEpoch: the largest epoch up to the one asked for, and where it ended. */
  endOffset(epoch: number, logEndOffset: number): { leaderEpoch: number; endOffset: number } {
    if (epoch < 0 || epoch > this.latest) return undefinedEpoch;
    if (epoch === this.latest) return { leaderEpoch: epoch, endOffset: logEndOffset };
    const next = this.#starts.find((start) => start.epoch > epoch)!;
    const own = this.#starts.findLast((start) => start.epoch <= epoch);
    return { leaderEpoch: own?.epoch ?? epoch, endOffset: next.startOffset };
  }

  /** Forgets epochs that began at or after the new end of the log. */
  truncateTo(offset: number): void {
    const kept = this.#starts.filter(({ startOffset }) => startOffset < offset);
    if (kept.length === this.#starts.length) return;
    this.#starts = kept;
    this.#write();
  }

  /** Forgets epochs that ended before the log's new start; the one that holds the start begins there now. */
  advanceStart(offset: number): void {
    const before = this.#starts.filter(({ startOffset }) => startOffset < offset);
    if (before.length === 0) return;
    const behind = this.#starts.slice(before.length);
    const covers = behind[0]?.startOffset === offset ? [] : [{ ...before.at(-1)!, startOffset: offset }];
    this.#starts = [...covers, ...behind];
    this.#write();
  }

  #write(): void {
    writeAtomicallyNow(this.#fs, this.#path, this.#encoded());
  }

  #encoded(): Buffer {
    const lines = this.#starts.map(({ epoch, startOffset }) => `${epoch} ${startOffset}\n`);
    return Buffer.from(`0\n${lines.length}\n${lines.join('')}`);
  }
}

/**
 * Where the epochs begin that batches carry. An epoch lies outside the CRC, so one that a single batch has, and from
 * which the next one goes back, is not believed.
 */
function startsOf(batches: Iterable<EpochStart>): EpochStart[] {
  const starts: (EpochStart & { batches: number })[] = [];
  const latest = (back = 1): number => starts.at(-back)?.epoch ?? -1;
  for (const { epoch, startOffset } of batches) {
    const isUnlikely = epoch < latest() && epoch >= latest(2) && starts.at(-1)!.batches === 1;
    const unlikely = isUnlikely ? starts.pop() : undefined;
    // Of the log's first batch nothing better is known.
    const from = starts.length === 0 ? (unlikely?.startOffset ?? startOffset) : startOffset;
    if (epoch > latest()) starts.push({ epoch, startOffset: from, batches: 1 });
    else if (epoch === latest() && epoch >= 0) starts.at(-1)!.batches++;
  }
  return starts.map(({ epoch, startOffset }) => ({ epoch, startOffset }));
}

/** Null for a text that is no such file: the epochs are in the batches too. */
function parseEpochs(text: string): EpochStart[] | null {
  const [version, count, ...lines] = text.trimEnd().split('\n');
  if (version !== '0' || Number(count) !== lines.length) return null;
  const starts = lines.map((line) => {
    const [epoch, startOffset] = line.split(' ').map(Number);
    return { epoch: epoch!, startOffset: startOffset! };
  });
  const isRising = starts.every(({ epoch, startOffset }, i) => {
    const before = starts[i - 1] ?? { epoch: -1, startOffset: -1 };
    const areNumbers = Number.isSafeInteger(epoch) && Number.isSafeInteger(startOffset);
    return areNumbers && epoch > before.epoch && startOffset > before.startOffset;
  });
  return isRising ? starts : null;
}
