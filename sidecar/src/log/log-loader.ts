import type { EventBus } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import type { Recovered } from './durability.ts';
import type { LeaderEpochs } from './leader-epochs.ts';
import { OffsetOrder } from './offset-order.ts';
import { epochsName } from './partition-directory.ts';
import { recoverProducers } from './producer-recovery.ts';
import type { ProducerState } from './producer-state.ts';
import {
  decide,
  epochTable,
  indexTable,
  logTable,
  pointTable,
  type EpochsState,
  type Found,
  type Place,
} from './recovery.ts';
import { RotFound, type Rot } from './rot.ts';
import { holesIn, holesInLast, type HoleFacts } from './offset-order.ts';
import { SegmentList } from './segment-list.ts';
import { scanNow, type Scanned } from './segment-scan.ts';
import { Segment } from './segment.ts';
import { putInOrder } from './stray-files.ts';

export interface LoaderDeps {
  /** The partition, for events. */
  readonly name: string;
  readonly directory: string;
  readonly fs: FileSystem;
  readonly events: EventBus;
  readonly config: LogConfig;
  readonly epochs: LeaderEpochs;
  readonly producers: ProducerState;
  /** Told before the end of the log is cut. */
  readonly willCut: () => void;
}

/** What the data directory knows of a log before its files are looked at. */
export interface Checkpointed {
  /** Null where the checkpoint does not name the partition: then the log begins with its first segment. */
  readonly logStartOffset: number | null;
  /** Null when the partition is not named; `lost` when the checkpoint cannot be read. */
  readonly recoveryPoint: number | 'lost' | null;
  /** The last stop was orderly. */
  readonly isMarked: boolean;
  /** The machine has not restarted since: what was written is there, synced or not. */
  readonly isSameBoot: boolean;
  /** A sync failed: nothing at or after this offset may be trusted, however well it reads. Null for none. */
  readonly distrustedFrom: number | null;
  /** Its end was cut before the last stop, and perhaps in the page cache alone. */
  readonly wasCut: boolean;
  /** An earlier run has found rot. */
  readonly rot: Rot | null;
  /** It is or was compacted: then offsets may be missing, and that is no damage. */
  readonly mayHaveHoles: boolean;
}

export interface Loaded extends Recovered {
  readonly segments: SegmentList;
  /** Segments from before the log's start that are to be deleted. */
  readonly outlived: readonly Segment[];
  readonly logStartOffset: number;
  /** Why nothing may be appended; null when all is well. */
  readonly rot: Rot | null;
}

/** Opens a log's files, new or old, and carries out what the recovery tables decide. */
export function loadLog(deps: LoaderDeps, checkpointed: Checkpointed): Loaded {
  const { fs, directory, events, config, name } = deps;
  const swapRot = checkpointed.rot === null ? putInOrder({ fs, directory, events, name }, config) : null;
  const known = swapRot === null ? checkpointed : { ...checkpointed, rot: swapRot };
  const loaded = new Loading(deps, known).load();
  try {
    return { ...loaded, snapshotOffset: bringProducers(deps, loaded) };
  } catch (error) {
    if (!(error instanceof RotFound)) throw error;
    // Batches that were on the platter long ago, read again because no snapshot was whole.
    const again = new Loading(deps, { ...checkpointed, rot: error.rot }).load();
    return { ...again, snapshotOffset: 0 };
  }
}

function bringProducers(
  deps: LoaderDeps,
  { segments, end, rot, transactionsFrom }: Omit<Loaded, 'snapshotOffset'> & { transactionsFrom: number },
): number {
  const upTo =
    rot === null
      ? end
      : { offset: rot.offset, position: rot.position, segment: segments.at(segments.floor(rot.segment))! };
  const log = { ...deps, segments };
  const options = { transactionsFrom, mayChange: rot === null };
  const snapshotOffset = recoverProducers(log, deps.producers, upTo, options);
  deps.producers.settle(upTo.offset);
  return snapshotOffset;
}

/** How far a log's bytes are good, and what is there instead. */
interface Look {
  readonly found: Found;
  /** The segment in which the look ended. */
  readonly index: number;
  readonly nextOffset: number;
  readonly position: number;
  readonly reason: string;
}

/** What a batch says of the leader that wrote it. */
interface Written {
  readonly offset: number;
  readonly leaderEpoch: number;
}

type Opened = Omit<Loaded, 'snapshotOffset'> & { readonly transactionsFrom: number };

class Loading {
  readonly #deps: LoaderDeps;
  readonly #checkpointed: Checkpointed;
  #segments: SegmentList;
  readonly #outlived: readonly Segment[];
  readonly #isNew: boolean;
  readonly #logStartOffset: number;
  /** Null when nobody knows. */
  readonly #recoveryPoint: number | null;
  /** The newest batch that was looked at. */
  #newest: Written | null = null;
  /** From this offset on the transaction indexes must be made again. */
  #transactionsFrom = Infinity;

  constructor(deps: LoaderDeps, checkpointed: Checkpointed) {
    const { fs, directory } = deps;
    this.#deps = deps;
    this.#checkpointed = checkpointed;
    const found = Segment.basesIn(fs, directory);
    this.#isNew = found.length === 0;
    this.#logStartOffset = checkpointed.logStartOffset ?? found[0] ?? 0;
    const bases = this.#isNew ? [this.#logStartOffset] : found;
    const segments = bases.map((base) => new Segment(fs, directory, base));
    // Deleting stopped halfway: what is left before the log's start may have holes, and is the log's no more.
    this.#segments = new SegmentList(segments);
    this.#outlived = this.#segments.drop(this.#segments.floor(this.#logStartOffset));
    // The first one's name is durable before another takes its place as the first.
    if (this.#outlived.length > 0) fs.syncDirectoryNow(directory);
    if (this.#isNew) {
      this.#segments.active.restartIndexes(0);
      this.#segments.active.create();
    }
    this.#recoveryPoint = this.#knownPoint();
  }

  load(): Opened {
    const { isMarked, rot } = this.#checkpointed;
    const look = rot === null ? this.#untilTrusted(this.#look()) : lookOf(rot, this.#segments);
    const { action } = decide(logTable, {
      isRemembered: rot !== null,
      isMarked,
      found: look.found,
      place: rot === null ? this.#placeOf(look) : 'above it',
    });
    if (action === 'quarantine') return this.#quarantine(rot ?? rotAt(look, this.#segments));
    if (action === 'cut') this.#cutTail(look);
    return this.#open(look, action === 'cut');
  }

  #open({ index, nextOffset, position }: Look, isCut: boolean): Opened {
    const { isMarked } = this.#checkpointed;
    const logStartOffset = this.#logStartOffset;
    let end = { offset: nextOffset, segment: this.#segments.at(index)!, position };
    const hasStartedAnew = logStartOffset > nextOffset;
    if (hasStartedAnew) end = { offset: logStartOffset, segment: this.#beginAt(logStartOffset), position: 0 };
    // Before the epochs of what was cut off are forgotten for good.
    if (!isMarked && this.#checkpointed.wasCut) this.#settleCut();
    this.#rememberEpochs(end.offset, true);
    if (!isMarked) this.#deps.epochs.truncateTo(end.offset + 1);
    const recoveryPoint = Math.min(this.#recoveryPoint ?? 0, end.offset);
    const opened = {
      segments: this.#segments,
      outlived: this.#outlived,
      logStartOffset,
      rot: null,
      end,
      transactionsFrom: this.#transactionsFrom,
    };
    const synced = {
      recoveryPoint,
      unsynced: [],
      sealed: [],
      hasNewFiles: this.#isNew || hasStartedAnew,
      isNameless: end.offset === 0,
    };
    if (isMarked) return { ...opened, ...synced, recoveryPoint: end.offset };
    const scanned = this.#segments.all().slice(hasStartedAnew ? 0 : this.#firstToScan);
    if (!isCut && recoveryPoint === end.offset && scanned.length === 1) return { ...opened, ...synced };
    // What a crash left above the recovery point may be in the page cache alone, bytes and names.
    const unsynced = { unsynced: scanned, sealed: scanned.slice(0, -1), hasNewFiles: true };
    return { ...opened, recoveryPoint, ...unsynced, isNameless: recoveryPoint === 0 };
  }

  /**
   * The process may have been killed while it cut the log, which ends as it should because the page cache says so. A
   * power cut must not bring back what was cut off.
   */
  #settleCut(): void {
    const { fs, directory } = this.#deps;
    this.#segments.active.log.syncNow();
    fs.syncDirectoryNow(directory);
  }

  /** Nothing is touched: the segments stay as they are, and readers get what stands before the place. */
  #quarantine(rot: Rot): Opened {
    const segments = this.#segments;
    const { active } = segments;
    const known = Math.max(rot.offset, this.#recoveryPoint ?? 0, active.baseOffset, this.#logStartOffset);
    const end = { offset: known, segment: active, position: active.sizeInBytes };
    this.#rememberEpochs(rot.offset, false);
    const recoveryPoint = this.#recoveryPoint ?? 0;
    const untouched = { recoveryPoint, unsynced: [], sealed: [], hasNewFiles: false, isNameless: false };
    const logStartOffset = this.#logStartOffset;
    return { segments, outlived: [], logStartOffset, rot, end, transactionsFrom: Infinity, ...untouched };
  }

  #knownPoint(): number | null {
    const { recoveryPoint, isMarked } = this.#checkpointed;
    const facts = {
      isReadable: recoveryPoint !== 'lost',
      isNamed: typeof recoveryPoint === 'number',
      isMarked,
    };
    switch (decide(pointTable, facts).action) {
      case 'the entry':
        return recoveryPoint as number;
      case 'zero':
      case 'the end':
        return 0;
      case 'unknown':
        return null;
    }
  }

  /** Only what is on the platter is ever compacted, so a hole above the recovery point is a loss. */
  get #holesUpTo(): number {
    return holesIn(this.#holeFacts);
  }

  get #holeFacts(): HoleFacts {
    const { mayHaveHoles, isMarked } = this.#checkpointed;
    return {
      mayHaveHoles,
      isMarked,
      logStartOffset: this.#logStartOffset,
      recoveryPoint: this.#recoveryPoint,
    };
  }

  /** How the offsets of a segment may follow one another. */
  #orderIn(index: number): { readonly holesUpTo: number; readonly limit: number | undefined } {
    const limit = this.#segments.at(index + 1)?.baseOffset;
    if (limit !== undefined) return { holesUpTo: this.#holesUpTo, limit };
    const { recoveryPoint } = this.#checkpointed;
    const named = typeof recoveryPoint === 'number' ? recoveryPoint : null;
    return { holesUpTo: holesInLast(this.#holeFacts, named), limit };
  }

  #placeOf({ nextOffset }: Look): Place {
    if (this.#recoveryPoint === null) return 'nobody knows';
    // What is missing from before the log's start was deleted, whether it had been synced or not.
    return Math.max(nextOffset, this.#logStartOffset) < this.#recoveryPoint
      ? 'below the recovery point'
      : 'above it';
  }

  /**
   * The segment with the last offset below the recovery point: when it was synced to its end and sealed after
   * that, the recovery point does not tell whether its indexes had their last entries on the platter.
   */
  get #firstToScan(): number {
    return this.#segments.floor((this.#recoveryPoint ?? 0) - 1);
  }

  /** Goes from segment to segment: by their ends where they are on the platter, batch by batch where that is not known. */
  #look(): Look {
    const { isMarked } = this.#checkpointed;
    const segments = this.#segments;
    const first = segments.at(0)!;
    if (first.baseOffset > this.#logStartOffset) {
      const reason = `the log starts at ${this.#logStartOffset}, its first segment at ${first.baseOffset}`;
      return { found: 'headless', index: 0, nextOffset: this.#logStartOffset, position: 0, reason };
    }
    const firstToScan = isMarked ? segments.length : this.#firstToScan;
    let [nextOffset, position] = [first.baseOffset, 0];
    for (let index = 0; index < segments.length; index++) {
      const segment = segments.at(index)!;
      const { baseOffset } = segment;
      if (baseOffset !== nextOffset && (baseOffset < nextOffset || baseOffset > this.#holesUpTo)) {
        const reason = `a segment begins at ${baseOffset} where ${nextOffset} should come`;
        return { found: 'gap', index: index - 1, nextOffset, position, reason };
      }
      const isLast = index === segments.length - 1;
      const scanned =
        index < firstToScan ? this.#lookAtEnd(segment, index) : this.#scan(segment, index, firstToScan);
      ({ nextOffset, position } = scanned);
      if (scanned.damage !== null)
        return { found: 'torn', index, nextOffset, position, reason: scanned.damage };
      if (index >= firstToScan && !isLast) segment.seal();
    }
    const due = Math.max(this.#recoveryPoint ?? 0, isMarked ? this.#logStartOffset : 0);
    const isShort = Math.max(nextOffset, isMarked ? 0 : this.#logStartOffset) < due;
    const found = isShort ? 'short' : 'whole';
    const reason = `the log ends at ${nextOffset}, before ${due}`;
    return { found, index: segments.length - 1, nextOffset, position, reason };
  }

  /** Ends the look where trust ends. */
  #untilTrusted(look: Look): Look {
    const { distrustedFrom } = this.#checkpointed;
    if (distrustedFrom === null || distrustedFrom >= look.nextOffset) return look;
    const index = this.#segments.floor(distrustedFrom);
    const segment = this.#segments.at(index)!;
    const batch = segment.find(distrustedFrom, segment.sizeInBytes);
    const position = batch?.position ?? segment.sizeInBytes;
    const nextOffset = batch?.baseOffset ?? distrustedFrom;
    return { found: 'distrusted', index, nextOffset, position, reason: 'a sync failed before the last stop' };
  }

  /** The last index entry of a synced segment leads to its end by a few headers. */
  #lookAtEnd(segment: Segment, index: number): Scanned {
    const { action } = decide(indexTable, {
      state: segment.indexState(),
      isUnsynced: false,
      isPowerLost: false,
    });
    if (action === 'rebuild') return this.#rebuild(segment, index, `it is ${segment.indexState()}`);
    const size = segment.sizeInBytes;
    const indexed = segment.index.last();
    let order: OffsetOrder | null = null;
    let position = 0;
    for (const batch of segment.walk(indexed?.position ?? 0, size)) {
      // The entry and the batch agree on the offset, so both are believed.
      const expected = indexed === null ? segment.baseOffset : batch.baseOffset;
      order ??= new OffsetOrder({ expected, ...this.#orderIn(index) });
      if (order.take({ baseOffset: batch.baseOffset, nextOffset: batch.lastOffset + 1 }, position) !== null)
        break;
      position = batch.position + batch.sizeInBytes;
      this.#newest = { offset: batch.baseOffset, leaderEpoch: batch.leaderEpoch };
    }
    if (position === size) return { nextOffset: order?.next ?? segment.baseOffset, position, damage: null };
    // Only where the damage begins is left to find out.
    return scanNow(segment.log, { from: 0, expected: segment.baseOffset, ...this.#orderIn(index) });
  }

  /** Reads every batch, and makes the indexes again where they may lack something. */
  #scan(segment: Segment, index: number, firstToScan: number): Scanned {
    const { isSameBoot } = this.#checkpointed;
    // Only the first of them has anything below the recovery point.
    if (index !== firstToScan) return this.#readAll(segment, index);
    const state = segment.indexState();
    const { action } = decide(indexTable, { state, isUnsynced: true, isPowerLost: !isSameBoot });
    if (action === 'rebuild')
      return state === 'lying'
        ? this.#rebuild(segment, index, 'it does not fit the log')
        : this.#readAll(segment, index);
    const from = this.#recoveryPoint ?? 0;
    segment.restartIndexes(from);
    this.#transactionsFrom = Math.min(this.#transactionsFrom, from);
    const last = segment.index.last();
    // Its times are kept: cutting a file costs more than all else does for a log of a few records.
    if (last === null) return this.#read(segment, index, 0, segment.baseOffset);
    const [batch] = segment.walk(last.position, segment.sizeInBytes);
    if (batch === undefined) return this.#readAll(segment, index);
    if (batch.lastOffset !== last.lastOffset) return this.#rebuild(segment, index, 'it does not fit the log');
    return this.#read(segment, index, batch.position, batch.baseOffset);
  }

  #rebuild(segment: Segment, index: number, reason: string): Scanned {
    const { name: partition, events } = this.#deps;
    events.emit('indexRebuilt', { partition, file: segment.index.file.path, reason });
    const scanned = this.#readAll(segment, index);
    segment.seal();
    segment.flushIndexes();
    return scanned;
  }

  #readAll(segment: Segment, index: number): Scanned {
    segment.restartIndexes(0);
    this.#transactionsFrom = Math.min(this.#transactionsFrom, segment.baseOffset);
    return this.#read(segment, index, 0, segment.baseOffset);
  }

  #read(segment: Segment, index: number, from: number, expected: number): Scanned {
    const { indexIntervalBytes } = this.#deps.config;
    return scanNow(segment.log, {
      from,
      expected,
      ...this.#orderIn(index),
      note: (batch, position) => {
        segment.note(batch, position, indexIntervalBytes);
        this.#newest = { offset: batch.baseOffset, leaderEpoch: batch.partitionLeaderEpoch };
      },
    });
  }

  #cutTail({ index, position, nextOffset, reason }: Look): void {
    const { fs, directory, events, name: partition, willCut } = this.#deps;
    willCut();
    const cut = this.#segments.at(index)!;
    let bytes = cut.log.size() - position;
    cut.truncate(position, nextOffset);
    const later = this.#segments.cutAfter(index);
    for (const segment of later) {
      bytes += segment.sizeInBytes;
      segment.remove();
    }
    // A removed segment that came back with the next power cut would stand among offsets given anew.
    if (later.length > 0) fs.syncDirectoryNow(directory);
    events.emit('tailTruncated', { partition, fromOffset: nextOffset, bytes, reason });
  }

  /**
   * Records before the log start were deleted before they were synced, and the power cut took them and perhaps
   * the empty segment behind them. Nobody misses them, but their offsets must not be given again.
   */
  #beginAt(offset: number): Segment {
    const { fs, directory } = this.#deps;
    const segment = new Segment(fs, directory, offset);
    segment.restartIndexes(0);
    segment.create();
    // The others go behind the durable name of the one that takes their place.
    fs.syncDirectoryNow(directory);
    for (const old of this.#segments.all()) old.remove();
    fs.syncDirectoryNow(directory);
    this.#segments = new SegmentList([segment]);
    return segment;
  }

  /** The epochs are in the batches too, and are read from there as far as the log's bytes are good. */
  #rememberEpochs(endOffset: number, mayWrite: boolean): void {
    const { epochs, events, name: partition, directory } = this.#deps;
    const state = this.#epochsState(endOffset);
    const { action } = decide(epochTable, { state, hasBatches: endOffset > this.#logStartOffset });
    if (action === 'keep') return;
    epochs.restore(epochsIn(this.#segments.all(), endOffset), mayWrite);
    const file = `${directory}/${epochsName}`;
    // Batches of before there were epochs, and the file that goes with them: nothing has changed.
    if (epochs.latest >= 0) events.emit('epochsRestored', { partition, file, reason: `it is ${state}` });
  }

  #epochsState(endOffset: number): EpochsState {
    const { epochs } = this.#deps;
    if (epochs.found !== 'readable') return epochs.found;
    if (!epochs.knows(this.#logStartOffset)) return 'short';
    const isDenied = ({ offset, leaderEpoch }: Written): boolean =>
      offset >= this.#logStartOffset && leaderEpoch >= 0 && epochs.epochOf(offset) !== leaderEpoch;
    const last = this.#newest;
    if (last === null || last.offset >= endOffset || !isDenied(last)) return 'fitting';
    const before = this.#writtenBefore(last.offset);
    const areAgreed = before !== null && before.leaderEpoch === last.leaderEpoch && isDenied(before);
    return areAgreed ? 'contradicted' : 'fitting';
  }

  #writtenBefore(end: number): Written | null {
    const segment = this.#segments.at(this.#segments.floor(end - 1))!;
    let before: Written | null = null;
    for (const { baseOffset, leaderEpoch } of segment.walk(segment.startFor(end - 1), segment.sizeInBytes)) {
      if (baseOffset >= end) break;
      before = { offset: baseOffset, leaderEpoch };
    }
    return before;
  }
}

/** What the batches before an offset say of their leaders, in order. */
function* epochsIn(
  segments: readonly Segment[],
  endOffset: number,
): Generator<{ epoch: number; startOffset: number }> {
  for (const segment of segments) {
    for (const { baseOffset, leaderEpoch } of segment.walk(0, segment.sizeInBytes)) {
      if (baseOffset >= endOffset) return;
      yield { epoch: leaderEpoch, startOffset: baseOffset };
    }
  }
}

function rotAt({ index, position, nextOffset, reason }: Look, segments: SegmentList): Rot {
  return { segment: segments.at(index)!.baseOffset, position, offset: nextOffset, reason };
}

function lookOf({ segment, position, offset, reason }: Rot, segments: SegmentList): Look {
  return { found: 'whole', index: segments.floor(segment), nextOffset: offset, position, reason };
}
