/**
 * The commit rule: readers may read below the lowest log end among the in-sync replicas, and the high
 * watermark never goes back.
 *
 * @param current the high watermark so far
 * @param inSyncEnds each in-sync replica's durable end offset, the leader's own among them
 */
export function advanceWatermark(current: number, inSyncEnds: readonly number[]): number {
  let lowest = Infinity;
  for (const end of inSyncEnds) lowest = Math.min(lowest, end);
  return lowest === Infinity ? current : Math.max(current, lowest);
}
