import type { EventBus } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import type { Recovered } from './durability.ts';
import type { LeaderEpochs } from './leader-epochs.ts';
import { recoverProducers } from './producer-recovery.ts';
import type { ProducerState } from './producer-state.ts';
import { decide, scan } from './recovery.ts';
import { SegmentList } from './segment-list.ts';
import { finishSwaps } from './unfinished-swaps.ts';
import { logSuffix, Segment } from './segment.ts';

export interface LoaderDeps {
  /** The partition, for events. */
  readonly name: string;
  readonly directory: string;
  readonly fs: FileSystem;
  readonly events: EventBus;
  readonly config: LogConfig;
  readonly epochs: LeaderEpochs;
  readonly producers: ProducerState;
}

/** What the data directory knows of a log before its files are looked at. */
export interface Checkpointed {
  readonly logStartOffset: number;
  readonly recoveryPoint: number;
  /** Segments up to here may have holes between them: compaction made them. */
  readonly compactedTo: number;
  /** The last stop was orderly. */
  readonly isMarked: boolean;
  /** The machine has not restarted since: what was written is there, synced or not. */
  readonly isSameBoot: boolean;
  /** A sync failed: nothing at or after this offset may be trusted, however well it reads. Null for none. */
  readonly distrustedFrom: number | null;
}

export interface Loaded extends Recovered {
  readonly segments: SegmentList;
  /** Segments from before the log's start that are to be deleted. */
  readonly outlived: readonly Segment[];
  /** Why nothing may be appended; null when all is well. */
  readonly damage: string | null;
}

/** Opens a log's files, new or old, and carries out what the recovery table decides. */
export function loadLog(deps: LoaderDeps, checkpointed: Checkpointed): Loaded {
  const loaded = new Loading(deps, checkpointed).load();
  const { segments, end } = loaded;
  const snapshotOffset = recoverProducers({ ...deps, segments }, deps.producers, end.offset, end.position);
  deps.producers.settle(end.offset);
  return { ...loaded, snapshotOffset };
}

/** How far a log's bytes are good. */
interface Found {
  /** The segment in which the scan ended. */
  readonly index: number;
  readonly nextOffset: number;
  readonly position: number;
  readonly damage: string | null;
  /** Where the next segment begins, when that is not where this one ended. */
  readonly gapAt: number | null;
}

class Loading {
  readonly #deps: LoaderDeps;
  readonly #checkpointed: Checkpointed;
  readonly #segments: SegmentList;
  readonly #outlived: readonly Segment[];
  readonly #isNew: boolean;

  constructor(deps: LoaderDeps, checkpointed: Checkpointed) {
    const { fs, directory } = deps;
    this.#deps = deps;
    this.#checkpointed = checkpointed;
    finishSwaps(deps, deps.config.indexIntervalBytes);
    const found = baseOffsets(fs, directory);
    this.#isNew = found.length === 0;
    const bases = this.#isNew ? [checkpointed.logStartOffset] : found;
    const segments = bases.map((base) => new Segment(fs, directory, base));
    // Deleting stopped halfway: what is left before the log's start may have holes, and is the log's no more.
    const first = Math.max(
      0,
      bases.findLastIndex((base) => base <= checkpointed.logStartOffset),
    );
    this.#outlived = segments.slice(0, first);
    // The first one's name is durable before another takes its place as the first.
    if (first > 0) fs.syncDirectoryNow(directory);
    this.#segments = new SegmentList(segments.slice(first));
    if (this.#isNew) this.#segments.active.restartIndexes(0);
  }

  load(): Omit<Loaded, 'snapshotOffset'> {
    const { isMarked, logStartOffset, recoveryPoint } = this.#checkpointed;
    const found = isMarked ? this.#skipToEnd() : this.#untilTrusted(this.#scanFromRecoveryPoint());
    const { index, nextOffset, position } = found;
    const { action } = decide({
      isMarked,
      isDamaged: found.damage !== null,
      hasGap: found.gapAt !== null,
      isBelowRecoveryPoint: nextOffset < recoveryPoint,
    });
    const segment = this.#segments.at(index)!;
    const reason = found.damage ?? `a segment begins at ${found.gapAt}`;
    const segments = this.#segments;
    const outlived = this.#outlived;
    const synced = { unsynced: [], sealed: [], hasNewFiles: this.#isNew };
    if (action === 'refuse') {
      // The segments behind the damage stay on disk for the operator, but nobody reads past the hole.
      segments.cutAfter(index);
      const damage = `damaged below the recovery point, at offset ${nextOffset}: ${reason}`;
      const end = { offset: nextOffset, segment, position };
      return { segments, outlived, damage, end, recoveryPoint, ...synced };
    }
    if (action === 'truncate') this.#cutTail(index, position, nextOffset, reason);
    const end = { offset: Math.max(nextOffset, logStartOffset), segment, position };
    const known = Math.min(recoveryPoint, end.offset);
    if (isMarked) return { segments, outlived, damage: null, end, recoveryPoint: known, ...synced };
    this.#deps.epochs.truncateTo(end.offset + 1);
    const scanned = segments.all().slice(this.#firstToScan);
    if (action === 'keep' && known === end.offset && scanned.length === 1)
      return { segments, outlived, damage: null, end, recoveryPoint: known, ...synced };
    return { segments, outlived, damage: null, end, ...this.#makeDurable(scanned, known, end.offset) };
  }

  /**
   * The segment with the last offset below the recovery point: when it was synced to its end and sealed after
   * that, the recovery point does not tell whether its indexes had their last entries on the platter.
   */
  get #firstToScan(): number {
    return this.#segments.floor(this.#checkpointed.recoveryPoint - 1);
  }

  /**
   * What a crash left above the recovery point may be in the page cache alone, bytes and names. In sync mode it
   * must not be read before it is on the platter; in the others the background sync gets to it.
   */
  #makeDurable(
    unsynced: readonly Segment[],
    recoveryPoint: number,
    logEndOffset: number,
  ): Omit<Recovered, 'end' | 'snapshotOffset'> {
    if (this.#deps.config.flushMode !== 'sync')
      return { recoveryPoint, unsynced, sealed: unsynced.slice(0, -1), hasNewFiles: true };
    for (const segment of unsynced) segment.syncNow();
    this.#deps.fs.syncDirectoryNow(this.#deps.directory);
    return { recoveryPoint: logEndOffset, unsynced: [], sealed: [], hasNewFiles: false };
  }

  /** After an orderly stop the last index entry leads to the end by a few headers. */
  #skipToEnd(): Found {
    const segment = this.#segments.active;
    const last = segment.index.last();
    let nextOffset = segment.baseOffset;
    let position = 0;
    for (const batch of segment.walk(last?.position ?? 0, segment.sizeInBytes)) {
      nextOffset = batch.lastOffset + 1;
      position = batch.position + batch.sizeInBytes;
    }
    return { index: this.#segments.length - 1, nextOffset, position, damage: null, gapAt: null };
  }

  /** Ends the scan where trust ends. */
  #untilTrusted(found: Found): Found {
    const { distrustedFrom } = this.#checkpointed;
    if (distrustedFrom === null || distrustedFrom >= found.nextOffset) return found;
    const index = this.#segments.floor(distrustedFrom);
    const segment = this.#segments.at(index)!;
    const batch = segment.find(distrustedFrom, segment.sizeInBytes);
    const position = batch?.position ?? segment.sizeInBytes;
    const nextOffset = batch?.baseOffset ?? distrustedFrom;
    return { index, nextOffset, position, damage: 'a sync failed before the last stop', gapAt: null };
  }

  #scanFromRecoveryPoint(): Found {
    const { recoveryPoint, logStartOffset } = this.#checkpointed;
    let index = this.#firstToScan;
    let { position, expected } = this.#restart(this.#segments.at(index)!);
    for (; ; index++) {
      const segment = this.#segments.at(index)!;
      const scanned = scan(segment, position, expected, this.#deps.config.indexIntervalBytes);
      const next = this.#segments.at(index + 1);
      const gapAt = next !== undefined && this.#isGap(scanned.nextOffset, next) ? next.baseOffset : null;
      // Where everything was deleted, the log ends where it starts, whatever its last batch was.
      const isShort = next === undefined && Math.max(scanned.nextOffset, logStartOffset) < recoveryPoint;
      const damage = scanned.damage ?? (isShort ? 'the log ends before its recovery point' : null);
      if (damage !== null || gapAt !== null || next === undefined)
        return { index, ...scanned, damage, gapAt };
      segment.seal();
      next.restartIndexes(0);
      position = 0;
      expected = next.baseOffset;
    }
  }

  #isGap(nextOffset: number, next: Segment): boolean {
    const isHole = next.baseOffset > nextOffset && next.baseOffset <= this.#checkpointed.compactedTo;
    return next.baseOffset !== nextOffset && !isHole;
  }

  /**
   * Where in a segment to begin: at the last index entry below the recovery point, if it tells the truth,
   * else at the start. Entries above it are made again. When the power was gone, the indexes of a segment that
   * was not sealed may be anything, each on its own, so all of them are made again.
   */
  #restart(segment: Segment): { position: number; expected: number } {
    const { recoveryPoint, isSameBoot } = this.#checkpointed;
    segment.restartIndexes(isSameBoot ? recoveryPoint : 0);
    const last = segment.index.last();
    if (last !== null) {
      const [batch] = last.position < 0 ? [] : segment.walk(last.position, segment.sizeInBytes);
      if (batch?.lastOffset === last.lastOffset)
        return { position: last.position, expected: batch.baseOffset };
      const { name: partition } = this.#deps;
      const reason = 'it does not fit the log';
      this.#deps.events.emit('indexRebuilt', { partition, file: segment.index.file.path, reason });
    }
    segment.restartIndexes(0);
    return { position: 0, expected: segment.baseOffset };
  }

  #cutTail(index: number, position: number, nextOffset: number, reason: string): void {
    const { fs, directory, events, name: partition } = this.#deps;
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
}

function baseOffsets(fs: FileSystem, directory: string): number[] {
  return fs
    .list(directory)
    .filter((name) => /^\d{20}\.log$/.test(name))
    .map((name) => Number(name.slice(0, -logSuffix.length)));
}
