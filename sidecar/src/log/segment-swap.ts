import type { FileSystem } from '../vfs/file-system.ts';
import { cleanedSuffix, swapSuffix, type Replacement } from './compaction.ts';
import { snapshotPath } from './producer-snapshot.ts';
import type { SegmentList } from './segment-list.ts';
import { Segment } from './segment.ts';

/** The log in which segments are swapped. */
export interface SwappedLog {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly segments: SegmentList;
  /** Whether the log is there, with all segments of these base offsets. */
  readonly hasSegments: (bases: readonly number[]) => boolean;
  /** Puts the recovery point on disk. */
  readonly keepRecoveryPoint: () => Promise<void>;
  /** Segments are the log's no more; their files may go, but for the ones to keep. */
  readonly replaced: (segments: readonly Segment[], keep: readonly string[]) => void;
}

/**
 * Puts compacted segments in the place of those that they were made from. The new ones take over under a name
 * that a start recognises as complete (`unfinished-swaps.ts`), so that at every moment either they or the old
 * ones are the log's.
 *
 * @returns false when the log has changed meanwhile: then the new segments are dropped
 */
export async function swapSegments(replacements: readonly Replacement[], log: SwappedLog): Promise<boolean> {
  const { fs, directory, segments } = log;
  const cleanedOf = ({ baseOffset }: Replacement): Segment =>
    new Segment(fs, directory, baseOffset, cleanedSuffix);
  // Compacted segments have holes between them. Recovery takes a hole for the end of the log, so it must not
  // begin before them: what is compacted is below the recovery point, and that must be on disk first.
  await log.keepRecoveryPoint();
  for (const [i, replacement] of replacements.entries()) {
    const { baseOffset, replaces } = replacement;
    const cleaned = cleanedOf(replacement);
    const giveUp = (): boolean => {
      cleaned.remove();
      for (const later of replacements.slice(i + 1)) cleanedOf(later).remove();
      return false;
    };
    if (!log.hasSegments(replaces)) return giveUp();
    cleaned.rename(swapSuffix);
    await fs.syncDirectory(directory);
    if (!log.hasSegments(replaces)) return giveUp();
    log.replaced(segments.replace(replaces, cleaned), [snapshotPath(directory, baseOffset)]);
    await fs.syncDirectory(directory);
    if (cleaned.isClosed) continue;
    cleaned.rename('');
    await fs.syncDirectory(directory);
  }
  return true;
}
