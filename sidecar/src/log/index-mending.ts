import type { FileSystem } from '../vfs/file-system.ts';
import { AbortedReplay } from './aborted-replay.ts';
import type { Rot } from './rot.ts';
import { scan } from './segment-scan.ts';
import { Segment } from './segment.ts';

/** Behind the names of indexes that are being made: a start that finds such a file removes it. */
const madeSuffix = '.tmp';

export interface MendedLog {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly indexIntervalBytes: number;
  readonly holesUpTo: number;
}

/**
 * Makes the indexes of a closed segment again from its batches, which are read on the pool, and puts them in the
 * place of the old ones: each of them whole and on disk before it gets its name, so that a crash leaves old or new.
 *
 * @param segments the log's, from its first to the one behind that which is mended
 * @param pause before the next piece is read; the work is given up where it says false
 * @returns where the batches themselves are damaged; null when all is well
 */
export async function mendIndexes(
  segments: readonly Segment[],
  { fs, directory, indexIntervalBytes, holesUpTo }: MendedLog,
  pause: (bytes: number) => Promise<boolean>,
): Promise<Rot | null> {
  const mended = segments.at(-2)!;
  let at = segments.length - 2;
  let replay = new AbortedReplay(fs, directory, mended.baseOffset);
  while (!replay.isComplete && at > 0) replay = new AbortedReplay(fs, directory, segments[--at]!.baseOffset);
  const made = new Segment(fs, directory, mended.baseOffset, madeSuffix);
  made.restartIndexes(0);
  try {
    for (; segments[at + 1] !== undefined; at++) {
      const segment = segments[at]!;
      const { baseOffset: expected, sizeInBytes: until } = segment;
      replay.nextSegment();
      if (segment.isClosed) return null;
      const scanned = await scan(
        segment.log,
        {
          ...{ from: 0, expected, until, holesUpTo, limit: segments[at + 1]!.baseOffset },
          note: (batch, position) => {
            replay.note(batch);
            if (segment === mended) made.note(batch, position, indexIntervalBytes);
          },
        },
        pause,
      );
      if (scanned === null || segment.isClosed) return null;
      const { damage, position, nextOffset } = scanned;
      if (damage !== null) return { segment: expected, position, offset: nextOffset, reason: damage };
    }
    for (const aborted of replay.aborted) made.transactions.append(aborted);
    made.seal();
    await made.syncIndexes();
    // Meanwhile it may have been deleted, or compacted into another one of that name.
    if (!mended.isClosed) mended.takeIndexes(made);
    await fs.syncDirectory(directory);
    return null;
  } finally {
    made.remove();
  }
}
