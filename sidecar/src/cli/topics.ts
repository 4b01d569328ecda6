import { BrokerError, type Client, type TopicResult } from '@rookery/client';
import { systemClock } from '../clock.ts';
import { formatAddress, parseAddress } from '../listener-address.ts';
import { print, unknown } from './columns.ts';
import { assignments, wholeNumber } from './given.ts';
import { inTime, withClient, type BrokerFlags } from './with-client.ts';

// `rookery topics …`: the topics of a broker, a sidecar or any other that speaks the protocol.

export const listTopics = (flags: BrokerFlags): Promise<void> =>
  withClient(flags, (client) =>
    inTime(async (signal) => {
      const topics = await client.admin().listTopics(signal);
      topics.sort((a, b) => (a.name < b.name ? -1 : 1));
      print(
        ['TOPIC', 'PARTITIONS', 'INTERNAL'],
        topics.map(({ name, partitions, isInternal }) => [name, partitions, isInternal ? 'yes' : 'no']),
      );
    }),
  );

export interface CreateTopicFlags extends BrokerFlags {
  readonly partitions?: string;
  readonly replicationFactor?: string;
  readonly set: readonly string[];
}

export async function createTopic(name: string, flags: CreateTopicFlags): Promise<void> {
  const partitions = leftToBroker('--partitions', flags.partitions);
  const replicationFactor = leftToBroker('--replication-factor', flags.replicationFactor);
  const configs = Object.fromEntries(assignments(flags.set));
  await withClient(flags, (client) =>
    inTime(async (signal) => {
      const topic = { name, partitions, replicationFactor, configs };
      for (const result of await client.admin().createTopics([topic], signal)) checkResult(result);
    }),
  );
}

export const deleteTopics = (names: readonly string[], flags: BrokerFlags): Promise<void> =>
  withClient(flags, (client) =>
    inTime(async (signal) => {
      for (const result of await client.admin().deleteTopics(names, signal)) checkResult(result);
    }),
  );

/** −1 where nothing is said. */
const leftToBroker = (option: string, text: string | undefined): number =>
  text === undefined ? -1 : wholeNumber(option, text);

function checkResult({ name, error, message }: TopicResult): void {
  if (error === 'NONE') return;
  throw new BrokerError(error, `topic '${name}'${message === null ? '' : `: ${message}`}`);
}

export interface DescribeTopicFlags extends BrokerFlags {
  readonly admin: string;
}

export function describeTopic(topic: string, flags: DescribeTopicFlags): Promise<void> {
  const adminAddress = formatAddress(parseAddress(flags.admin, '--admin'));
  return withClient(flags, (client) =>
    inTime(async (signal) => {
      const admin = client.admin();
      // First, because what follows would create a topic that is not there.
      const leaders = await admin.leadersOf(topic, signal);
      const [starts, ends, sizes, oldest, segments] = await Promise.all([
        admin.listOffsets(topic, 'earliest', signal),
        admin.listOffsets(topic, 'latest', signal),
        admin.sizesOf(topic, signal),
        admin.oldestTimestamps(topic, signal),
        segmentsOf(client, topic, adminAddress, signal),
      ]);
      const now = systemClock.now();
      print(
        ['PARTITION', 'LEADER', 'START', 'END', 'BYTES', 'SEGMENTS', 'OLDEST'],
        leaders.map((leader, partition) => [
          partition,
          leader,
          starts.get(partition) ?? unknown,
          ends.get(partition) ?? unknown,
          sizes.get(partition) ?? unknown,
          segments(partition, leader),
          age(now, oldest.get(partition) ?? -1),
        ]),
      );
    }),
  );
}

/** What `/topics/NAME` of a sidecar answers. */
interface TopicOnDisk {
  readonly clusterId: string;
  readonly nodeId: number;
  readonly partitions: readonly { readonly partition: number; readonly segments: number }[];
}

/**
 * The protocol knows no segments: the leader itself is asked, over HTTP. Where nobody answers, or another broker
 * than the one in question, they are not known.
 */
async function segmentsOf(
  client: Client,
  topic: string,
  address: string,
  signal: AbortSignal,
): Promise<(partition: number, leader: number) => number | string> {
  const { clusterId } = await client.admin().describeCluster(signal);
  const found = await askAdmin(`http://${address}/topics/${topic}`, signal);
  if (found === null || found.clusterId !== clusterId) return () => unknown;
  const segments = new Map(found.partitions.map((each) => [each.partition, each.segments]));
  return (partition, leader) => (leader === found.nodeId ? segments.get(partition) : undefined) ?? unknown;
}

async function askAdmin(url: string, signal: AbortSignal): Promise<TopicOnDisk | null> {
  try {
    const response = await fetch(url, { signal: AbortSignal.any([signal, AbortSignal.timeout(adminMs)]) });
    return response.ok ? ((await response.json()) as TopicOnDisk) : null;
  } catch {
    return null;
  }
}

const adminMs = 2_000;

/** In two units at the most: `3d4h`, `12m5s`, `800ms`. */
function age(now: number, timestamp: number): string {
  if (timestamp < 0) return unknown;
  let ms = Math.max(0, now - timestamp);
  if (ms < 1000) return `${ms}ms`;
  const units = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1000],
  ] as const;
  const first = units.findIndex(([, length]) => ms >= length);
  let text = '';
  for (const [unit, length] of units.slice(first, first + 2)) {
    const count = Math.floor(ms / length);
    ms -= count * length;
    if (count > 0) text += `${count}${unit}`;
  }
  return text;
}
