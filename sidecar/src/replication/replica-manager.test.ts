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

const onDisk = (topic: string): number =>
  under.fs.list('/data').filter((name) => name.startsWith(`${topic}-`)).length;

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
