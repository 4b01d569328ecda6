import type { FileSystem } from '../vfs/file-system.ts';
import { AbortedReplay } from './aborted-replay.ts';
import { IndexAudit } from './index-audit.ts';
import type { Rot } from './rot.ts';
import { scan } from './segment-scan.ts';
import type { Segment } from './segment.ts';

export interface AuditedLog {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly holesUpTo: number;
  readonly mayHaveHoles: boolean;
}

/**
 * Reads a closed segment, on the pool, and holds its batches against their checksums, and its indexes against the
 * batches.
 *
 * @param nextBase where the segment behind it begins
 * @param pause told how much was read; false ends the reading
 */
export async function auditSegment(
  segment: Segment,
  nextBase: number,
  { fs, directory, holesUpTo, mayHaveHoles }: AuditedLog,
  pause: (bytes: number) => Promise<boolean>,
): Promise<{ readonly rot: Rot | null; readonly areIndexesGood: boolean } | 'given up'> {
  const { baseOffset, sizeInBytes } = segment;
  const replay = new AbortedReplay(fs, directory, baseOffset);
  // Compaction takes records of aborted transactions away, and later what tells of them.
  const isTold = replay.isComplete && !mayHaveHoles;
  const audit = new IndexAudit(segment, isTold ? replay : null);
  const scanned = await scan(
    segment.log,
    {
      ...{ from: 0, expected: baseOffset, until: sizeInBytes, holesUpTo, limit: nextBase },
      note: (batch, position) => audit.note(batch, position),
    },
    pause,
  );
  if (scanned === null) return 'given up';
  const { position, nextOffset: offset, damage: reason } = scanned;
  const rot = reason === null ? null : { segment: baseOffset, position, offset, reason };
  return { rot, areIndexesGood: audit.isGood };
}
