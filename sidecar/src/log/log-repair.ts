import { crc32c, encodeBatch, filterBatch, RecordBatch } from '@rookery/wire';
import { SidecarError } from '../errors.ts';
import { EventBus } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { Checkpoint } from './checkpoint.ts';
import { cleanedSuffix, swapSuffix } from './compaction.ts';
import { lockStopped, releaseStopped } from './data-directory.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import type { Damage, GoodBatch, PartitionCheck, Stretch } from './log-check.ts';
import { relativeOffsetMax } from './offset-index.ts';
import { snapshotOffsets, snapshotPath } from './producer-snapshot.ts';
import { scanNow } from './segment-scan.ts';
import { Segment, segmentName } from './segment.ts';
import { putInOrder } from './stray-files.ts';

/** What a repair does and what is lost with it: decided first, shown, and then done exactly so. */
export type Repair =
  | {
      readonly kind: 'truncate';
      /** Where the log ends afterwards. */
      readonly endOffset: number;
      readonly segment: number;
      readonly position: number;
      readonly lost: Stretch;
    }
  | { readonly kind: 'skip'; readonly damages: readonly Damage[] };

/** What no start mends by itself. */
export const rotIn = ({ damages }: PartitionCheck): Damage[] =>
  damages.filter(({ isTornTail }) => !isTornTail);

/** The first offset that readers miss: what is before the log start was deleted. */
export const missedFrom = ({ logStartOffset }: PartitionCheck, { offset }: Damage): number =>
  Math.max(offset, logStartOffset);

/**
 * Cuts the log before the batch that holds the offset, but not before the log start, which may be inside that batch.
 * @throws SidecarError RK0307 where damage would stay in front of it
 */
export function planTruncation(check: PartitionCheck, offset: number): Repair {
  const { logStartOffset } = check;
  const damages = rotIn(check);
  const before = damages.find((damage) => missedFrom(check, damage) < offset && damage.endOffset <= offset);
  if (before !== undefined)
    throw new SidecarError(
      'RK0307',
      `the damage at offset ${missedFrom(check, before)} would stay in front of ${offset}`,
    );
  if (offset < logStartOffset)
    throw new SidecarError('RK0307', `the log starts at ${logStartOffset}, ${offset} is before that`);
  // Bytes that take the place of no offset begin where the log is good up to.
  const inside = damages.find(
    (damage) =>
      missedFrom(check, damage) === offset || (damage.offset <= offset && offset < damage.endOffset),
  );
  const batch = check.batches.find(({ lastOffset }) => lastOffset >= offset);
  const place = inside ?? batch;
  if (place === undefined) throw new SidecarError('RK0307', `the log ends at ${check.logEndOffset}`);
  // Not into a hole: where that offset was compacted away the log ends there all the same.
  const cut = inside?.offset ?? Math.min(batch!.baseOffset, offset);
  const endOffset = Math.max(cut, logStartOffset);
  const { segment, position } = place;
  return { kind: 'truncate', endOffset, segment, position, lost: check.behind(endOffset) };
}

/**
 * Puts a batch of no records in the place of what is damaged: readers pass over it, and every other offset stays.
 * @throws SidecarError RK0307 where more offsets are missing than one batch can stand for
 */
export function planSkipping(check: PartitionCheck): Repair {
  const damages = rotIn(check);
  for (const { segment, offset, endOffset } of damages)
    if (offset >= segment && endOffset - 1 - segment > relativeOffsetMax)
      throw new SidecarError('RK0307', `too many offsets are missing from ${offset} to ${endOffset - 1}`);
  return { kind: 'skip', damages };
}

/**
 * Finishes what a kill has left of a compaction or a deletion, as a start does: a repair that is planned before would
 * be one of segments that are no more.
 *
 * @throws SidecarError RK0302 while a broker runs on the directory, RK0306 for a compaction that is damaged itself
 */
export function settle({ fs, dataDir, partition: name, config }: RepairDeps): void {
  const lock = lockStopped(fs, dataDir);
  try {
    const directory = `${dataDir}/${name}`;
    const rot = putInOrder({ fs, directory, name, events: new EventBus() }, config);
    if (rot !== null) throw new SidecarError('RK0306', `${name}: ${rot.reason}`);
  } finally {
    lock.release();
  }
}

type Truncation = Repair & { readonly kind: 'truncate' };

export interface RepairDeps {
  readonly fs: FileSystem;
  readonly dataDir: string;
  /** The directory's name in it. */
  readonly partition: string;
  readonly config: LogConfig;
}

/** @throws SidecarError RK0302 while a broker runs on the directory */
export function repair(deps: RepairDeps, check: PartitionCheck, planned: Repair): void {
  const lock = lockStopped(deps.fs, deps.dataDir);
  try {
    if (planned.kind === 'truncate') truncate(deps, check, planned);
    else skip(deps, check, planned.damages);
    releaseStopped(deps.fs, deps.dataDir, deps.partition);
  } finally {
    lock.release();
  }
}

function truncate(deps: RepairDeps, check: PartitionCheck, to: Truncation): void {
  const { fs } = deps;
  const { directory } = check;
  const { endOffset, segment: base, position } = to;
  // The offset goes first: a start in between must not take the new end for a loss.
  remember(deps, 'recovery-point-offset-checkpoint', endOffset);
  remember(deps, 'replication-offset-checkpoint', endOffset);
  for (const later of check.baseOffsets.filter((other) => other > base || other > endOffset).reverse())
    new Segment(fs, directory, later).remove();
  // No batch may be left that tells where the log ends, so a name tells; before the cut, so that no start misses it.
  if (endOffset !== endBefore(check.batches, base, position)) {
    begin(deps, check, endOffset);
    fs.syncDirectoryNow(directory);
  }
  if (base <= endOffset) cutSegment(deps, check, to);
  for (const offset of snapshotOffsets(fs.list(directory)))
    if (offset > endOffset) fs.remove(snapshotPath(directory, offset));
  new LeaderEpochs(fs, `${directory}/leader-epoch-checkpoint`).truncateTo(endOffset);
  fs.syncDirectoryNow(directory);
}

/** The offset after the last batch before a place. */
function endBefore(batches: readonly GoodBatch[], segment: number, position: number): number {
  const last = batches.findLast((batch) => batch.segment === segment && batch.position < position);
  return last === undefined ? segment : last.lastOffset + 1;
}

/** An empty segment at which the log goes on. */
function begin({ fs }: RepairDeps, { directory }: PartitionCheck, offset: number): void {
  const empty = new Segment(fs, directory, offset);
  // Indexes of a segment that is gone may still stand under this name.
  empty.restartIndexes(0);
  empty.create();
  empty.syncNow();
  empty.close();
}

function cutSegment({ fs, config }: RepairDeps, { directory }: PartitionCheck, to: Truncation): void {
  const { segment: base, position, endOffset } = to;
  const cut = new Segment(fs, directory, base);
  cut.truncate(position, endOffset);
  cut.restartIndexes(0);
  const note = (batch: RecordBatch, at: number): void => cut.note(batch, at, config.indexIntervalBytes);
  const { damage } = scanNow(cut.log, { from: 0, expected: base, holesUpTo: Infinity, note });
  if (damage !== null) throw new SidecarError('RK0307', `${cut.path}: ${damage}`);
  cut.seal();
  cut.syncNow();
  cut.close();
}

/** Writes the damaged segments anew and swaps them in as a compaction does: a kill on the way leaves old or new. */
function skip(deps: RepairDeps, check: PartitionCheck, damages: readonly Damage[]): void {
  const { fs, config, partition } = deps;
  const { directory } = check;
  const headless = damages.find(({ offset, segment }) => offset < segment);
  if (headless !== undefined && headless.segment === check.baseOffsets[0])
    remember(deps, 'log-start-offset-checkpoint', headless.segment);
  const within = damages.filter((damage) => damage !== headless);
  for (const base of new Set(within.map(({ segment }) => segment))) {
    new Segment(fs, directory, base, cleanedSuffix).remove();
    const made = new Segment(fs, directory, base, cleanedSuffix);
    const old = new Segment(fs, directory, base);
    const pieces: { readonly at: number; readonly bytes: () => Buffer }[] = [
      ...check.batches
        .filter(({ segment }) => segment === base)
        .map(({ position, sizeInBytes }) => ({
          at: position,
          bytes: () => old.readNow(position, sizeInBytes).chunks[0]!,
        })),
      ...within
        .filter(({ segment, endOffset, offset }) => segment === base && endOffset > offset)
        .map(({ position, offset, endOffset }) => ({ at: position, bytes: () => filler(offset, endOffset) })),
    ].sort((a, b) => a.at - b.at);
    for (const { bytes } of pieces) {
      const [batch] = RecordBatch.split([bytes()]) as [RecordBatch];
      const position = made.sizeInBytes;
      made.note(batch, position, config.indexIntervalBytes);
      made.log.writeNow(batch.chunks, position);
    }
    made.seal();
    made.syncNow();
    made.rename(swapSuffix);
    made.close();
    old.close();
    fs.syncDirectoryNow(directory);
  }
  putInOrder({ fs, directory, name: partition, events: new EventBus() }, config);
  // Transactions are noted again with the producers, from the batches.
  for (const damage of within) {
    const name = `${directory}/${segmentName(damage.segment)}.txnindex`;
    if (fs.exists(name)) fs.remove(name);
  }
}

/** A batch of no records over a range of offsets. */
function filler(offset: number, endOffset: number): Buffer {
  const one = RecordBatch.split([encodeBatch([{ key: null, value: null, timestamp: 0 }])])[0]!;
  const bytes = filterBatch(one, [], null);
  const [batch] = RecordBatch.split([bytes]) as [RecordBatch];
  batch.setBaseOffset(offset);
  // No leader wrote it, and nobody is to conclude anything from its epoch.
  batch.setPartitionLeaderEpoch(-1);
  bytes.writeInt32BE(endOffset - offset - 1, 23);
  bytes.writeUInt32BE(crc32c([bytes.subarray(21)]), 17);
  return bytes;
}

function remember({ fs, dataDir, partition }: RepairDeps, name: string, offset: number): void {
  const checkpoint = new Checkpoint(fs, `${dataDir}/${name}`);
  const offsets = checkpoint.read();
  // A checkpoint that was lost stays lost: this partition alone would make the others look young.
  if (offsets !== null) checkpoint.writeNow(new Map([...offsets, [partition, offset]]));
}
