export interface GroupMember {
  readonly id: string;
  readonly instanceId: string | null;
  readonly topics: readonly string[];
}

export interface TopicPartitions {
  readonly topic: string;
  readonly partitions: readonly number[];
}

/**
 * Kafka's range assignor: of each topic every member gets a stretch of neighbouring partitions, the first
 * ones one more when it does not come out even. Members stand in the order of their instance ids, those without
 * one behind, in the order of their member ids, so that every client computes the same.
 *
 * @param partitionCounts of each topic; topics that do not exist are left out
 */
export function assignRanges(
  members: readonly GroupMember[],
  partitionCounts: ReadonlyMap<string, number>,
): Map<string, TopicPartitions[]> {
  const assigned = new Map<string, TopicPartitions[]>(members.map(({ id }) => [id, []]));
  const inOrder = members.toSorted(byInstanceThenId);
  const topics = [...new Set(members.flatMap((member) => member.topics))].sort();
  for (const topic of topics) {
    const count = partitionCounts.get(topic) ?? 0;
    const takers = inOrder.filter((member) => member.topics.includes(topic));
    const each = Math.floor(count / takers.length);
    const withOneMore = count % takers.length;
    let next = 0;
    for (const [i, { id }] of takers.entries()) {
      const size = each + (i < withOneMore ? 1 : 0);
      if (size === 0) continue;
      const start = next;
      assigned.get(id)!.push({ topic, partitions: Array.from({ length: size }, (_, k) => start + k) });
      next += size;
    }
  }
  return assigned;
}

function byInstanceThenId(a: GroupMember, b: GroupMember): number {
  if (a.instanceId !== null && b.instanceId !== null) return compare(a.instanceId, b.instanceId);
  if (a.instanceId !== null) return -1;
  if (b.instanceId !== null) return 1;
  return compare(a.id, b.id);
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
