import { batchHeaderSize, batchOverhead, decodeRecords, RecordBatch, WireError } from '@rookery/wire';
import { readFile, type File, type FileSystem } from '../vfs/file-system.ts';
import { AbortedReplay } from './aborted-replay.ts';
import { parseOffsets } from './checkpoint.ts';
import { swapSuffix } from './compaction.ts';
import { markerName } from './data-directory.ts';
import { readInt64 } from './int64.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import { holesIn, holesInLast } from './offset-order.ts';
import { epochsName } from './partition-directory.ts';
import { decodeSnapshot } from './producer-snapshot.ts';
import { decide, fileTable, kindOf, logTable, type Found, type LogAction, type Place } from './recovery.ts';
import { scanNow } from './segment-scan.ts';
import { Segment, segmentName } from './segment.ts';
import { readAborted, TransactionIndex } from './transaction-index.ts';

/** What a partition's directory is measured against: what the data directory knows of it. */
export interface Expected {
  readonly logStartOffset: number | null;
  /** Null when nobody knows. */
  readonly recoveryPoint: number | null;
  /** The last stop was orderly: a start takes nothing for the work of a crash. */
  readonly isMarked: boolean;
  /** It was compacted, or nobody knows. */
  readonly mayHaveHoles: boolean;
}

/** Bytes that are no batch, or a batch that is not there, and what stands around them. */
export interface Damage {
  /** Base offset of the segment in which it begins; of one that is not there, where none is. */
  readonly segment: number;
  readonly position: number;
  /** Where the next good bytes begin in that segment; its end where nothing good follows. */
  readonly endPosition: number;
  /** The offsets that cannot be read: from here, which may be before the log start… */
  readonly offset: number;
  /** …to the one before this. */
  readonly endOffset: number;
  readonly reason: string;
  /**
   * Nothing good follows, it is above the recovery point, and the last stop was no orderly one: the next start cuts
   * it, as after any crash.
   */
  readonly isTornTail: boolean;
  /** It is the first, and a start that finds it cuts the log there, whatever good may follow. */
  readonly isCutByStart: boolean;
}

/** A file that is made again from the log, or goes: nothing is lost with it. */
export interface Fault {
  readonly file: string;
  readonly problem: string;
}

/** Good records in a stretch of the log; those before its start are nobody's any more. */
export interface Stretch {
  readonly segments: number;
  readonly batches: number;
  readonly records: number;
  readonly bytes: number;
}

export interface PartitionCheck {
  readonly directory: string;
  readonly baseOffsets: readonly number[];
  readonly logStartOffset: number;
  /** Not before the start, also where the last batch ends there. */
  readonly logEndOffset: number;
  readonly good: Stretch;
  readonly batches: readonly GoodBatch[];
  readonly damages: readonly Damage[];
  readonly faults: readonly Fault[];
  /** The good records at or behind an offset: what is lost when the log is cut there. */
  behind(offset: number): Stretch;
}

export interface GoodBatch {
  readonly segment: number;
  readonly position: number;
  readonly baseOffset: number;
  readonly lastOffset: number;
  readonly maxTimestamp: number;
  readonly sizeInBytes: number;
  /** Records that readers can get: not those before the log start. */
  readonly recordCount: number;
  readonly leaderEpoch: number;
}

/** Reads every byte of a partition and says what is wrong with it. Writes nothing and takes no lock. */
export function checkPartition(fs: FileSystem, directory: string, expected: Expected): PartitionCheck {
  return new Check(fs, directory, expected).run();
}

class Check {
  readonly #fs: FileSystem;
  readonly #directory: string;
  readonly #expected: Expected;
  readonly #batches: GoodBatch[] = [];
  readonly #damages: Damage[] = [];
  readonly #faults: Fault[] = [];
  #bases: readonly number[] = [];
  /** Base offsets of segments that a compaction has made: a start puts them in the place of those that they replace. */
  readonly #swapped = new Set<number>();
  /** What was aborted, as long as the batches tell: not behind damage, nor where records were compacted away. */
  #replay: AbortedReplay | null = null;

  constructor(fs: FileSystem, directory: string, expected: Expected) {
    this.#fs = fs;
    this.#directory = directory;
    this.#expected = expected;
  }

  run(): PartitionCheck {
    const found = (this.#bases = this.#basesAfterSwaps());
    const logStartOffset = this.#expected.logStartOffset ?? found[0] ?? 0;
    // What is left of segments before the log's start is the log's no more.
    const bases = found.filter((_, i) => (found[i + 1] ?? Infinity) > logStartOffset);
    let next = bases[0] ?? logStartOffset;
    if (next > logStartOffset)
      this.#damage(
        'headless',
        { segment: next, position: 0, endPosition: 0, offset: logStartOffset, endOffset: next },
        `the log starts at ${logStartOffset}, its first segment at ${next}`,
      );
    const replay = new AbortedReplay(this.#fs, this.#directory, next);
    if (replay.isComplete && !this.#expected.mayHaveHoles) this.#replay = replay;
    bases.forEach((base, i) => (next = this.#segment(base, next, bases[i + 1] ?? null)));
    this.#end(bases.at(-1) ?? null, next, logStartOffset);
    this.#names();
    const behind = (offset: number): Stretch =>
      stretchOf(this.#batches.filter(({ lastOffset }) => lastOffset >= Math.max(offset, logStartOffset)));
    return {
      directory: this.#directory,
      baseOffsets: bases,
      logStartOffset,
      logEndOffset: Math.max(next, logStartOffset),
      good: behind(logStartOffset),
      batches: this.#batches,
      damages: this.#damages,
      faults: this.#faults,
      behind,
    };
  }

  /** As `finishSwap` of `stray-files.ts` will leave them. */
  #basesAfterSwaps(): number[] {
    let bases = Segment.basesIn(this.#fs, this.#directory);
    for (const name of this.#fs.list(this.#directory)) {
      if (kindOf(name) !== 'swapped log') continue;
      const base = Number(name.slice(0, 20));
      const swapped = new Segment(this.#fs, this.#directory, base, swapSuffix, 'read');
      const { nextOffset, damage } = scanNow(swapped.log, { from: 0, expected: base, holesUpTo: Infinity });
      swapped.close();
      // A start leaves this one alone, and the partition in quarantine.
      if (damage !== null) continue;
      this.#swapped.add(base);
      const others = bases.filter((other) => other < base || (other >= nextOffset && other !== base));
      bases = [...others, base].sort((a, b) => a - b);
    }
    return bases;
  }

  /** Whether the log reaches as far as the data directory says, by the measure of `log-loader.ts`. */
  #end(last: number | null, next: number, logStartOffset: number): void {
    const { isMarked } = this.#expected;
    const recoveryPoint = this.#expected.recoveryPoint ?? 0;
    // A crash may take what was deleted before it was synced; an orderly stop leaves a log that reaches its start.
    const due = isMarked ? Math.max(recoveryPoint, logStartOffset) : recoveryPoint;
    if ((isMarked ? next : Math.max(next, logStartOffset)) >= due) return;
    const position = last === null ? 0 : this.#fs.size(this.#path(last));
    const place = { segment: last ?? next, position, endPosition: position, offset: next, endOffset: due };
    const point = due === recoveryPoint ? 'its recovery point' : 'its start';
    this.#damage('short', place, `the log ends at ${next}, before ${point} ${due}`);
  }

  #path(base: number): string {
    return `${this.#directory}/${segmentName(base)}.log${this.#swapped.has(base) ? swapSuffix : ''}`;
  }

  #damage(
    found: Found,
    place: Omit<Damage, 'reason' | 'isTornTail' | 'isCutByStart'>,
    reason: string,
    isLast = false,
  ): void {
    const isCut = this.#actionOf(found, place.offset) === 'cut';
    this.#replay = null;
    this.#damages.push({
      ...place,
      reason,
      isTornTail: isCut && isLast,
      isCutByStart: isCut && this.#damages.length === 0,
    });
  }

  /** What a start does about damage, as far as nobody has met rot before. */
  #actionOf(found: Found, offset: number): LogAction {
    const { isMarked, recoveryPoint, logStartOffset } = this.#expected;
    const isBelow = recoveryPoint !== null && Math.max(offset, logStartOffset ?? 0) < recoveryPoint;
    const known = isBelow ? 'below the recovery point' : 'above it';
    const place: Place = recoveryPoint === null ? 'nobody knows' : known;
    return decide(logTable, { isRemembered: false, isMarked, found, place }).action;
  }

  /** @returns the offset after the segment */
  #segment(base: number, expected: number, nextBase: number | null): number {
    const { recoveryPoint } = this.#expected;
    const logStartOffset = this.#expected.logStartOffset ?? 0;
    const facts = { ...this.#expected, logStartOffset };
    if (base !== expected && (base < expected || base > holesIn(facts))) this.#gap(base, expected);
    // Where the checkpoint does not name the partition nobody knows its end.
    const named = recoveryPoint === 0 ? null : recoveryPoint;
    const holesUpTo = nextBase === null ? holesInLast(facts, named) : holesIn(facts);
    const log = this.#fs.open(this.#path(base), 'read');
    const first = this.#batches.length;
    let nextOffset = base;
    this.#replay?.nextSegment();
    try {
      for (let from = 0; ;) {
        const note = (batch: RecordBatch, position: number): void => {
          this.#batches.push(placed(batch, base, position, logStartOffset));
          this.#replay?.note(batch);
        };
        const limit = nextBase ?? undefined;
        const scanned = scanNow(log, { from, expected: nextOffset, holesUpTo, limit, note });
        nextOffset = scanned.nextOffset;
        if (scanned.damage === null) break;
        // The one behind it has told that its offsets are wrong.
        if (this.#batches.at(-1)?.position === scanned.position && this.#batches.length > first)
          this.#batches.pop();
        const good = findBatch(log, scanned.position + 1, nextOffset, nextBase ?? Infinity);
        const endPosition = good?.position ?? log.size();
        const endOffset = good?.baseOffset ?? nextBase ?? Math.max(recoveryPoint ?? 0, nextOffset);
        const isLast = good === null && nextBase === null;
        const place = {
          segment: base,
          position: scanned.position,
          endPosition,
          offset: nextOffset,
          endOffset,
        };
        this.#damage('torn', place, scanned.damage, isLast);
        nextOffset = this.#damages.at(-1)!.isTornTail ? nextOffset : endOffset;
        if (good === null) break;
        from = good.position;
      }
    } finally {
      log.release();
    }
    this.#indexes(base, this.#batches.slice(first));
    return nextOffset;
  }

  #gap(base: number, expected: number): void {
    const before = this.#bases.findLast((other) => other < base);
    if (before === undefined) return;
    const position = this.#fs.size(this.#path(before));
    const place = { segment: before, position, endPosition: position, offset: expected, endOffset: base };
    this.#damage('gap', place, `a segment begins at ${base} where ${expected} should come`);
  }

  #indexes(base: number, batches: readonly GoodBatch[]): void {
    // Those of a swap are made again.
    if (batches.length === 0 || this.#swapped.has(base)) return;
    const byPosition = new Map(batches.map((batch) => [batch.position, batch]));
    // What leads to bytes that are damaged may be as true as it ever was.
    const damages = this.#damages.filter(({ segment }) => segment === base);
    const isSealed = base !== this.#bases.at(-1);
    this.#entries(base, '.index', 8, isSealed, (entry, before) => {
      const position = entry.readInt32BE(4);
      const isDamaged = damages.some((each) => each.position <= position && position < each.endPosition);
      if (!isDamaged && byPosition.get(position)?.lastOffset !== base + entry.readInt32BE(0))
        return 'leads to no such batch';
      return before !== null && before.readInt32BE(4) >= position ? 'is not behind the one before it' : null;
    });
    this.#entries(base, '.timeindex', 12, isSealed, (entry, before) => {
      const timestamp = Number(entry.readBigInt64BE(0));
      const offset = base + entry.readInt32BE(8);
      const batch = batches.find(({ lastOffset }) => lastOffset >= offset);
      if (damages.some((each) => each.offset <= offset && offset < each.endOffset)) return null;
      if (batch === undefined || batch.baseOffset > offset || batch.maxTimestamp !== timestamp)
        return 'names a time that its batch has not';
      return before !== null && Number(before.readBigInt64BE(0)) >= timestamp
        ? 'is not younger than the one before it'
        : null;
    });
    const faults = this.#faults.length;
    this.#entries(base, '.txnindex', 34, false, (entry) => {
      const aborted = readAborted(entry);
      return aborted === null || aborted.lastOffset < base ? 'is no aborted transaction' : null;
    });
    const file = `${segmentName(base)}.txnindex`;
    const index = new TransactionIndex(this.#fs, `${this.#directory}/${file}`);
    // The newest entries of the active segment are in its broker's memory until it is told to keep them.
    if (isSealed && this.#faults.length === faults && this.#replay?.agreesWith(index) === false)
      this.#faults.push({ file, problem: 'it does not name the transactions that were aborted' });
    index.file.close();
  }

  #entries(
    base: number,
    suffix: string,
    size: number,
    mustBeThere: boolean,
    problemOf: (entry: Buffer, before: Buffer | null) => string | null,
  ): void {
    const file = `${segmentName(base)}${suffix}`;
    const bytes = readFile(this.#fs, `${this.#directory}/${file}`);
    if (bytes === null) {
      if (mustBeThere) this.#faults.push({ file, problem: 'it is missing' });
      return;
    }
    if (bytes.length % size !== 0)
      this.#faults.push({ file, problem: `its last entry is cut: ${bytes.length} bytes` });
    let before: Buffer | null = null;
    for (let at = 0; at + size <= bytes.length; at += size) {
      const entry = bytes.subarray(at, at + size);
      const problem = problemOf(entry, before);
      if (problem !== null) return void this.#faults.push({ file, problem: `entry ${at / size} ${problem}` });
      before = entry;
    }
  }

  /** An epoch lies outside the CRC. Nobody reads it but to make the file again, so where the two differ nothing is lost. */
  #epochs(): void {
    const epochs = new LeaderEpochs(this.#fs, `${this.#directory}/${epochsName}`);
    if (epochs.found === 'damaged') this.#faults.push({ file: epochsName, problem: 'it is no checkpoint' });
    if (epochs.found !== 'readable') return;
    const wrong = this.#batches.find(
      ({ baseOffset, leaderEpoch }) =>
        leaderEpoch >= 0 && epochs.knows(baseOffset) && epochs.epochOf(baseOffset) !== leaderEpoch,
    );
    if (wrong === undefined) return;
    const { baseOffset, leaderEpoch, segment } = wrong;
    const problem = `the batch at offset ${baseOffset} says leader epoch ${leaderEpoch}, ${epochsName} says ${epochs.epochOf(baseOffset)}`;
    this.#faults.push({ file: `${segmentName(segment)}.log`, problem });
  }

  /** What the names of the files tell, and those files that have a checksum or a form of their own. */
  #names(): void {
    const names = this.#fs.list(this.#directory);
    const logs = new Set(names.filter((name) => kindOf(name) === 'log').map((name) => name.slice(0, 20)));
    for (const file of names) {
      const kind = kindOf(file);
      const { action } = decide(fileTable, { kind, hasLog: logs.has(file.slice(0, 20)) });
      if (action === 'remove') this.#faults.push({ file, problem: 'a start will remove it' });
      if (action === 'finish') this.#faults.push({ file, problem: 'a start will finish this compaction' });
      if (kind === 'strange') this.#faults.push({ file, problem: 'it is nothing that a log has' });
      const bytes = kind === 'snapshot' ? readFile(this.#fs, `${this.#directory}/${file}`) : null;
      if (bytes !== null && decodeSnapshot(bytes) === null)
        this.#faults.push({ file, problem: 'its CRC or its form is wrong' });
    }
    this.#epochs();
    const metadata = readFile(this.#fs, `${this.#directory}/partition.metadata`)?.toString('latin1') ?? '';
    if (!/^topic_id: \S{22}$/m.test(metadata))
      this.#faults.push({ file: 'partition.metadata', problem: 'it names no topic' });
  }
}

const placed = (
  batch: RecordBatch,
  segment: number,
  position: number,
  logStartOffset: number,
): GoodBatch => ({
  segment,
  position,
  baseOffset: batch.baseOffset,
  lastOffset: batch.lastOffset,
  maxTimestamp: batch.maxTimestamp,
  sizeInBytes: batch.sizeInBytes,
  recordCount: recordsFrom(batch, logStartOffset),
  leaderEpoch: batch.partitionLeaderEpoch,
});

/** How many records of a batch are at or behind an offset. */
function recordsFrom(batch: RecordBatch, offset: number): number {
  if (batch.baseOffset >= offset || batch.recordCount === 0) return batch.recordCount;
  if (batch.lastOffset < offset) return 0;
  try {
    return decodeRecords(batch).filter((record) => record.offset >= offset).length;
  } catch (error) {
    // A producer sent what nobody can look into, and where it was not compacted there is one for each offset.
    if (error instanceof WireError) return Math.min(batch.recordCount, batch.nextOffset - offset);
    throw error;
  }
}

function stretchOf(batches: readonly GoodBatch[]): Stretch {
  let [records, bytes] = [0, 0];
  for (const { recordCount, sizeInBytes } of batches) {
    records += recordCount;
    bytes += sizeInBytes;
  }
  return {
    segments: new Set(batches.map(({ segment }) => segment)).size,
    batches: batches.length,
    records,
    bytes,
  };
}

const windowBytes = 1 << 20;

/** The first whole batch at or after a position whose offsets fit in between; null when there is none. */
function findBatch(
  log: File,
  from: number,
  offsetMin: number,
  offsetLimit: number,
): { position: number; baseOffset: number } | null {
  const size = log.size();
  for (let start = from; start + batchHeaderSize <= size;) {
    const window = Buffer.alloc(Math.min(windowBytes, size - start));
    log.readNow(window, start);
    const last = window.length - batchHeaderSize;
    for (let at = 0; at <= last; at++) {
      // A byte in 256 looks like the magic; the rest of a header seldom follows.
      if (window[at + 16] !== 2) continue;
      const length = batchOverhead + window.readInt32BE(at + 8);
      if (length < batchHeaderSize || start + at + length > size) continue;
      const baseOffset = readInt64(window, at);
      if (baseOffset < offsetMin || baseOffset >= offsetLimit) continue;
      if (isWhole(log, start + at, length)) return { position: start + at, baseOffset };
    }
    start += last + 1;
  }
  return null;
}

function isWhole(log: File, position: number, length: number): boolean {
  const bytes = Buffer.alloc(length);
  log.readNow(bytes, position);
  try {
    return RecordBatch.read(bytes, 0)?.checkCrc() ?? false;
  } catch (error) {
    if (error instanceof WireError) return false;
    throw error;
  }
}

/** A data directory's partitions, and what it knows of each. */
export function partitionsIn(fs: FileSystem, path: string): string[] {
  return fs
    .list(path)
    .filter((name) => /^.+-\d+$/.test(name) && fs.isDirectory(`${path}/${name}`))
    .filter((name) => !name.endsWith('-delete'));
}

/** @param partition a directory in it; beside no checkpoints, as in a copy, nobody knows whether it was compacted */
export function expectedOf(fs: FileSystem, dataDir: string, partition: string): Expected {
  const offsets = (name: string): ReadonlyMap<string, number> | null =>
    parseOffsets(readFile(fs, `${dataDir}/${name}`)?.toString('utf8') ?? '');
  const points = offsets('recovery-point-offset-checkpoint');
  return {
    logStartOffset: offsets('log-start-offset-checkpoint')?.get(partition) ?? null,
    recoveryPoint: points === null ? null : (points.get(partition) ?? 0),
    isMarked: fs.exists(`${dataDir}/${markerName}`),
    mayHaveHoles: offsets('cleaner-offset-checkpoint')?.has(partition) ?? true,
  };
}
