import type { GroupDescription } from '@rookery/client';
import { print, unknown } from './columns.ts';
import { inTime, withClient, type BrokerFlags } from './with-client.ts';

// `rookery groups …`: who reads what, and how far they are.

export const listGroups = (flags: BrokerFlags): Promise<void> =>
  withClient(flags, (client) =>
    inTime(async (signal) => {
      const groups = await client.admin().listGroups(signal);
      groups.sort((a, b) => (a.group < b.group ? -1 : 1));
      print(
        ['GROUP', 'STATE', 'PROTOCOL'],
        groups.map(({ group, state, protocolType }) => [group, state || unknown, protocolType || unknown]),
      );
    }),
  );

export const describeGroup = (group: string, flags: BrokerFlags): Promise<void> =>
  withClient(flags, (client) =>
    inTime(async (signal) => {
      const admin = client.admin();
      const described = await admin.describeGroup(group, signal);
      const committed = await admin.committedOffsets(group, signal);
      const { state, members } = described;
      process.stdout.write(`${group}: ${state}, members: ${members.length}\n`);
      const readers = readersOf(described);
      const topics = new Set([...committed.keys(), ...readers.keys()]);
      const existing = new Set((await admin.listTopics(signal)).map(({ name }) => name));
      const rows: (string | number)[][] = [];
      for (const topic of [...topics].sort()) {
        // Of a topic that is gone offsets may still be kept, and to ask where it ends could create it again.
        const watermarks = existing.has(topic)
          ? await admin.listOffsets(topic, 'latest', signal)
          : new Map<number, number>();
        const offsets = committed.get(topic);
        const partitions = new Set([...(offsets?.keys() ?? []), ...(readers.get(topic)?.keys() ?? [])]);
        for (const partition of [...partitions].sort((a, b) => a - b)) {
          const offset = offsets?.get(partition);
          const watermark = watermarks.get(partition);
          const lag =
            offset === undefined || watermark === undefined ? unknown : Math.max(0, watermark - offset);
          const reader = readers.get(topic)?.get(partition) ?? [unknown, unknown];
          rows.push([topic, partition, offset ?? unknown, watermark ?? unknown, lag, ...reader]);
        }
      }
      // Members that have nothing to read are there all the same.
      for (const member of members)
        if (member.assigned.length === 0)
          rows.push([unknown, unknown, unknown, unknown, unknown, ...nameOf(member)]);
      print(['TOPIC', 'PARTITION', 'COMMITTED', 'HIGH-WATERMARK', 'LAG', 'MEMBER', 'HOST'], rows);
    }),
  );

type Member = GroupDescription['members'][number];

const nameOf = ({ id, instanceId, host }: Member): [member: string, host: string] => [instanceId ?? id, host];

function readersOf({ members }: GroupDescription): Map<string, Map<number, [string, string]>> {
  const readers = new Map<string, Map<number, [string, string]>>();
  for (const member of members) {
    for (const { topic, partitions } of member.assigned) {
      const of = readers.get(topic) ?? new Map<number, [string, string]>();
      readers.set(topic, of);
      for (const partition of partitions) of.set(partition, nameOf(member));
    }
  }
  return readers;
}
