import type { LogConfig } from '../log-config.ts';

/** What is looked at in a segment before it is compacted. */
export interface CleanableSegment {
  readonly baseOffset: number;
  readonly sizeInBytes: number;
  /** When its first record was appended, and the time of its youngest one; milliseconds since the epoch. */
  readonly beganMs: number;
  readonly youngestMs: number;
}

export interface CleanableLog {
  /** All but the active one. */
  readonly segments: readonly CleanableSegment[];
  /** Where the active one begins. */
  readonly activeOffset: number;
  /** Where what is undecided, not agreed on or not on the platter begins. */
  readonly uncleanableOffset: number;
  /** Where the last compaction ended; null when there was none, or nobody remembers. */
  readonly compactedTo: number | null;
}

export interface CompactionChoice {
  /** Base offsets of the segments to read, from the first of the log on. */
  readonly segments: readonly number[];
  readonly firstDirtyOffset: number;
  readonly endOffset: number;
  /** Share of the bytes that was never compacted. */
  readonly dirtyRatio: number;
  /** The ratio, or the age of what is dirty, has reached its limit. */
  readonly isDue: boolean;
}

type Limits = Pick<LogConfig, 'minCompactionLagMs' | 'maxCompactionLagMs' | 'minCleanableDirtyRatio'>;

/** What to compact of a log; null when nothing can be. */
export function chooseCompaction(log: CleanableLog, limits: Limits, nowMs: number): CompactionChoice | null {
  const { segments, activeOffset, uncleanableOffset } = log;
  const firstOffset = segments[0]?.baseOffset ?? activeOffset;
  // A start that has moved past it, or a log that was cut before it, makes the note worthless.
  const isKnown =
    log.compactedTo !== null && log.compactedTo >= firstOffset && log.compactedTo <= activeOffset;
  const firstDirtyOffset = isKnown ? log.compactedTo! : firstOffset;
  const nextOf = (i: number): number => segments[i + 1]?.baseOffset ?? activeOffset;
  let count = 0;
  while (count < segments.length) {
    const { youngestMs } = segments[count]!;
    const isDirty = nextOf(count) > firstDirtyOffset;
    if (nextOf(count) > uncleanableOffset || (isDirty && nowMs - youngestMs < limits.minCompactionLagMs))
      break;
    count++;
  }
  const chosen = segments.slice(0, count);
  const dirty = chosen.filter((_, i) => nextOf(i) > firstDirtyOffset);
  if (dirty.length === 0) return null;
  const dirtyBytes = sizeOf(dirty);
  const dirtyRatio = dirtyBytes / Math.max(1, sizeOf(chosen));
  const isOverdue = nowMs - dirty[0]!.beganMs > limits.maxCompactionLagMs;
  return {
    segments: chosen.map(({ baseOffset }) => baseOffset),
    firstDirtyOffset,
    endOffset: nextOf(count - 1),
    dirtyRatio,
    isDue: isOverdue || (dirtyBytes > 0 && dirtyRatio >= limits.minCleanableDirtyRatio),
  };
}

const sizeOf = (segments: readonly CleanableSegment[]): number =>
  segments.reduce((sum, { sizeInBytes }) => sum + sizeInBytes, 0);
