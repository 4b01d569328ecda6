/** What retention looks at in a segment. */
export interface RetainedSegment {
  readonly sizeInBytes: number;
  /** Milliseconds since the epoch: its youngest record, or when it was last written if its records have no times. */
  readonly youngest: number;
  /** Where the next segment begins. */
  readonly nextOffset: number;
}

export interface RetentionLimits {
  readonly now: number;
  /** Infinity for no limit. */
  readonly retentionMs: number;
  /** Infinity for no limit. */
  readonly retentionBytes: number;
  readonly logStartOffset: number;
  /** Nothing at or past it is deleted: it might yet be what a follower lacks. */
  readonly highWatermark: number;
}

export type RetentionReason = 'start' | 'time' | 'size';

/**
 * How many of a log's segments, oldest first, have outlived its limits. A segment goes whole or stays, and the
 * first one that stays keeps all behind it, so that the log has no hole.
 *
 * @param segments all of them, the active one last; that one may be counted too
 */
export function outlived(
  segments: readonly RetainedSegment[],
  limits: RetentionLimits,
): { count: number; reason: RetentionReason | null } {
  const { now, retentionMs, retentionBytes, logStartOffset, highWatermark } = limits;
  let excess = segments.reduce((sum, { sizeInBytes }) => sum + sizeInBytes, 0) - retentionBytes;
  let count = 0;
  let reason: RetentionReason | null = null;
  for (const segment of segments) {
    const { sizeInBytes, youngest, nextOffset } = segment;
    const isEmptyActive = sizeInBytes === 0 && segment === segments.at(-1);
    if (nextOffset > highWatermark || isEmptyActive) break;
    const isBeforeStart = nextOffset <= logStartOffset;
    const isOld = now - youngest > retentionMs;
    const isInExcess = excess >= sizeInBytes;
    if (!isBeforeStart && !isOld && !isInExcess) break;
    reason = isBeforeStart ? 'start' : isOld ? 'time' : 'size';
    excess -= sizeInBytes;
    count++;
  }
  return { count, reason };
}
