import { crc32c, encodeBatch, filterBatch, RecordBatch } from '@rookery/wire';
import { SidecarError } from '../errors.ts';
import { EventBus } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { Checkpoint } from './checkpoint.ts';
import { cleanedSuffix, swapSuffix } from './compaction.ts';
import { lockStopped, releaseStopped } from './data-directory.ts';
import { LeaderEpochs } from './leader-epochs.ts';
import type { Damage, PartitionCheck, Stretch } from './log-check.ts';
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

/**
 * Cuts the log before the batch that holds the offset.
 * @throws SidecarError RK0307 where damage would stay in front of it
 */
export function planTruncation(check: PartitionCheck, offset: number): Repair {
  const damages = check.damages.filter(({ isTornTail }) => !isTornTail);
  const before = damages.find((damage) => damage.offset < offset && damage.endOffset <= offset);
  if (before !== undefined)
    throw new SidecarError(
      'RK0307',
      `the damage at offset ${before.offset} would stay in front of ${offset}`,
    );
  if (offset < check.logStartOffset)
    throw new SidecarError('RK0307', `the log starts at ${check.logStartOffset}, ${offset} is before that`);
  const inside = damages.find((damage) => damage.offset <= offset && offset < damage.endOffset);
  const batch = check.batches.find(({ lastOffset }) => lastOffset >= offset);
  const place = inside === undefined ? batch : { ...inside, baseOffset: inside.offset };
  if (place === undefined) throw new SidecarError('RK0307', `the log ends at ${check.logEndOffset}`);
  const { segment, position, baseOffset: endOffset } = place;
  return { kind: 'truncate', endOffset, segment, position, lost: check.behind(endOffset) };
}

/** Puts a batch of no records in the place of what is damaged: readers pass over it, and every other offset stays. */
export function planSkipping(check: PartitionCheck): Repair {
  return { kind: 'skip', damages: check.damages.filter(({ isTornTail }) => !isTornTail) };
}

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

function truncate(deps: RepairDeps, check: PartitionCheck, to: Repair & { kind: 'truncate' }): void {
  const { fs, config } = deps;
  const { directory } = check;
  const { endOffset, segment: base, position } = to;
  // The offset goes first: a start in between must not take the new end for a loss.
  remember(deps, 'recovery-point-offset-checkpoint', endOffset);
  remember(deps, 'replication-offset-checkpoint', endOffset);
  for (const later of check.baseOffsets.filter((other) => other > base).reverse())
    new Segment(fs, directory, later).remove();
  const cut = new Segment(fs, directory, base);
  cut.truncate(position, endOffset);
  cut.restartIndexes(0);
  const note = (batch: RecordBatch, at: number): void => cut.note(batch, at, config.indexIntervalBytes);
  const { damage } = scanNow(cut.log, { from: 0, expected: base, holesUpTo: Infinity, note });
  if (damage !== null) throw new SidecarError('RK0307', `${cut.path}: ${damage}`);
  cut.seal();
  cut.syncNow();
  cut.close();
  for (const offset of snapshotOffsets(fs.list(directory)))
    if (offset > endOffset) fs.remove(snapshotPath(directory, offset));
  new LeaderEpochs(fs, `${directory}/leader-epoch-checkpoint`).truncateTo(endOffset);
  fs.syncDirectoryNow(directory);
}

/** Writes the damaged segments anew and swaps them in as a compaction does: a kill on the way leaves old or new. */
function skip(deps: RepairDeps, check: PartitionCheck, damages: readonly Damage[]): void {
  const { fs, config, partition } = deps;
  const { directory } = check;
  const headless = damages.find(({ endOffset, segment }) => endOffset === segment);
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
  const delta = endOffset - offset - 1;
  if (delta > 0x7fffffff) throw new SidecarError('RK0307', `${delta + 1} offsets are missing at ${offset}`);
  bytes.writeInt32BE(delta, 23);
  bytes.writeUInt32BE(crc32c([bytes.subarray(21)]), 17);
  return bytes;
}

function remember({ fs, dataDir, partition }: RepairDeps, name: string, offset: number): void {
  const checkpoint = new Checkpoint(fs, `${dataDir}/${name}`);
  const offsets = checkpoint.read();
  // A checkpoint that was lost stays lost: this partition alone would make the others look young.
  if (offsets !== null) checkpoint.writeNow(new Map([...offsets, [partition, offset]]));
}
