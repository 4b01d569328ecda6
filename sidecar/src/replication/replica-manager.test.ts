import {
  createTopics,
  deleteTopics,
  describeLogDirs,
  encodeBatch,
  errorName,
  metadata,
  produce,
  zeroUuid,
} from '@rookery/wire';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BrokerInMemory } from '../broker-in-memory.ts';
import { changeFile } from '../log/memory-logs.ts';
import type { RawConnection } from '../server/raw-connection.ts';

let under: BrokerInMemory;
let client: RawConnection;

beforeEach(async () => {
  under = await BrokerInMemory.start();
  client = await under.connect();
});

afterEach(() => under.stop());

async function create(name: string, numPartitions: number): Promise<string> {
  const { topics } = await client.request(createTopics, 7, {
    topics: [{ name, numPartitions, replicationFactor: 1, assignments: [], configs: [] }],
    timeoutMs: 1_000,
    validateOnly: false,
  });
  return errorName(topics[0]!.errorCode);
}

async function write(topic: string, index: number): Promise<string> {
  const records = [encodeBatch([{ key: null, value: Buffer.from('x'), timestamp: Date.now() }])];
  const { responses } = await client.request(produce, 9, {
    transactionalId: null,
    acks: -1,
    timeoutMs: 1_000,
    topicData: [{ name: topic, topicId: zeroUuid, partitionData: [{ index, records }] }],
  });
  return errorName(responses[0]!.partitionResponses[0]!.errorCode);
}

/** Partitions of a topic; those that were deleted have another name until they go. */
const onDisk = (topic: string): number =>
  under.fs.list('/data').filter((name) => name.startsWith(`${topic}-`) && /-\d+$/.test(name)).length;

test('a topic of many partitions is answered before they are all there, and any of them can be written', async () => {
  expect(await create('wide', 500)).toBe('NONE');
  expect(onDisk('wide')).toBeLessThan(500);
  client = await under.connect();
  expect(await write('wide', 499)).toBe('NONE');
  expect(await write('wide', 250)).toBe('NONE');
  await expect.poll(() => onDisk('wide')).toBe(500);
  const { results } = await client.request(describeLogDirs, 4, { topics: null });
  expect(results[0]!.topics[0]!.partitions.length).toBe(500);
  expect(under.failures).toEqual([]);
});

test('a topic that is deleted while its partitions are being made leaves none', async () => {
  expect(await create('wide', 500)).toBe('NONE');
  await client.request(deleteTopics, 5, { topicNames: ['wide'], timeoutMs: 1_000 });
  await expect.poll(() => onDisk('wide')).toBe(0);
  expect(await create('wide', 2)).toBe('NONE');
  expect(onDisk('wide')).toBe(2);
  expect(under.failures).toEqual([]);
});

test('partitions that a stop came before are made by the next start, which does not wait for that', async () => {
  expect(await create('wide', 500)).toBe('NONE');
  await under.restart();
  expect(onDisk('wide')).toBeLessThan(500);
  client = await under.connect();
  expect(await write('wide', 499)).toBe('NONE');
  await expect.poll(() => onDisk('wide')).toBe(500);
  expect(under.failures).toEqual([]);
});

test('a partition that the disk does not give leaves the others alone, and is there when the disk gives it', async () => {
  expect(await create('other', 1)).toBe('NONE');
  under.fs.failWhen(({ name, path }) =>
    name === 'makeDirectory' && path.endsWith('/t-1') ? 'ENOSPC' : null,
  );
  expect(await create('t', 3)).toBe('NONE');
  expect(await write('t', 0)).toBe('NONE');
  expect(await write('t', 2)).toBe('NONE');
  expect(await write('t', 1)).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  expect(await write('other', 0)).toBe('NONE');
  expect(under.failures.length).toBeGreaterThan(0);
  under.fs.failWhen(null);
  expect(await write('t', 1)).toBe('NONE');
});

test('of internal topics only what is used is on disk', async () => {
  await client.request(metadata, 12, {
    topics: [{ topicId: zeroUuid, name: '__consumer_offsets' }],
    allowAutoTopicCreation: true,
    includeTopicAuthorizedOperations: false,
  });
  expect(onDisk('__consumer_offsets')).toBe(0);
});

/** Stops the broker, has something happen to its disk, and starts it again. */
async function around(happening: () => void): Promise<void> {
  await under.stop();
  happening();
  await under.restart();
  client = await under.connect();
}

test('a directory of which a bit of the topic id has turned is put aside with its records, and says so', async () => {
  const told: unknown[] = [];
  under.events.on('logSetAside', (info) => told.push(info));
  await create('t', 1);
  expect(await write('t', 0)).toBe('NONE');
  const size = under.fs.size('/data/t-0/00000000000000000000.log');
  await around(() => changeFile(under.fs, '/data/t-0/partition.metadata', (bytes) => (bytes[30]! ^= 1)));
  expect(told).toMatchObject([{ partition: 't-0', logEndOffset: 1 }]);
  const [stray] = under.fs.list('/data').filter((name) => name.endsWith('-stray'));
  expect(under.fs.size(`/data/${stray}/00000000000000000000.log`)).toBe(size);
  expect(await write('t', 0)).toBe('NONE');
  // It is nobody's any more, however often the broker starts.
  await around(() => {});
  expect(told).toHaveLength(1);
  expect(under.fs.exists(`/data/${stray}/00000000000000000000.log`)).toBe(true);
});

test('a partition whose files are gone begins anew, and says that it had records', async () => {
  const told: unknown[] = [];
  under.events.on('recordsMissing', (info) => told.push(info));
  await create('t', 2);
  expect(await write('t', 0)).toBe('NONE');
  await around(() => under.fs.remove('/data/t-0'));
  expect(told).toEqual([{ partition: 't-0', recoveryPoint: 1 }]);
  expect(await write('t', 0)).toBe('NONE');
  await around(() => {});
  // A topic that is deleted and made again had records too, but nobody misses them.
  await client.request(deleteTopics, 5, { topicNames: ['t'], timeoutMs: 1_000 });
  await create('t', 2);
  await around(() => {});
  expect(told).toHaveLength(1);
});

test('a checkpoint that cannot be read is named', async () => {
  const told: unknown[] = [];
  under.events.on('checkpointDamaged', (info) => told.push(info));
  await create('t', 1);
  await write('t', 0);
  await around(() =>
    changeFile(under.fs, '/data/recovery-point-offset-checkpoint', (bytes) => void bytes.fill(0xa5)),
  );
  expect(told).toEqual([{ file: '/data/recovery-point-offset-checkpoint' }]);
});
