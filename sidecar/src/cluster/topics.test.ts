import { expect, test } from 'vitest';
import { topicSettingProblem } from '../config.ts';
import { EventBus } from '../events.ts';
import { ManualClock } from '../manual-clock.ts';
import { MemoryFileSystem } from '../vfs/memory.ts';
import { ClusterView } from './cluster-image.ts';
import { FileMetaStore } from './file-meta-store.ts';
import { ProducerIds } from './producer-ids.ts';
import { Topics, type NewTopic } from './topics.ts';

async function cluster(options: { defaultReplicationFactor?: number } = {}) {
  const fs = new MemoryFileSystem();
  fs.makeDirectory('/data');
  const clock = new ManualClock();
  const open = () => FileMetaStore.open(fs, '/data/metadata.journal', clock);
  const store = await open();
  const view = await ClusterView.open(store);
  const topics = new Topics({
    store,
    view,
    clock,
    events: new EventBus(),
    nodeId: 1,
    defaultPartitions: 3,
    defaultReplicationFactor: 1,
    internal: new Map([['__consumer_offsets', { partitions: 50, configs: { 'cleanup.policy': 'compact' } }]]),
    checkConfig: topicSettingProblem,
    checkConfigs: () => null,
    ...options,
  });
  const refusal = async (topic: NewTopic): Promise<string> =>
    topics.create(topic).then(
      () => 'made',
      (error: { error: string }) => error.error,
    );
  return { fs, store, open, view, topics, refusal };
}

test('a topic is made with the defaults, and is there after a restart', async () => {
  const { store, open, topics } = await cluster();
  const made = await topics.create({ name: 'orders', configs: new Map([['retention.ms', '1000']]) });
  expect(made).toMatchObject({ name: 'orders', isInternal: false, configs: { 'retention.ms': '1000' } });
  expect(made.partitions.length).toBe(3);
  expect(made.partitions[0]).toEqual({ leader: 1, leaderEpoch: 0, replicas: [1], inSyncReplicas: [1] });
  await store.close();
  const again = await ClusterView.open(await open());
  expect(again.image.topicById(made.id)).toEqual(made);
});

test('names that Kafka does not allow are refused', async () => {
  const { refusal } = await cluster();
  for (const name of ['', '.', '..', 'a b', 'a/b', 'ä', 'x'.repeat(250), 'a\0'])
    expect(await refusal({ name }), name).toBe('INVALID_TOPIC_EXCEPTION');
  expect(await refusal({ name: 'x'.repeat(249) })).toBe('made');
});

test('names that every object in the language has are names like others', async () => {
  const { topics } = await cluster();
  for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty']) {
    const made = await topics.create({ name });
    expect(made).toMatchObject({ name, isInternal: false, configs: {} });
    expect(made.partitions.length).toBe(3);
  }
});

test('names that differ in dots and underscores alone collide, also when both come at once', async () => {
  const { topics, refusal } = await cluster();
  await topics.create({ name: 'a.b' });
  expect(await refusal({ name: 'a_b' })).toBe('INVALID_TOPIC_EXCEPTION');
  expect(await refusal({ name: 'a.b' })).toBe('TOPIC_ALREADY_EXISTS');
  expect(await Promise.all(['c.d', 'c_d', 'c.d'].map((name) => refusal({ name })))).toEqual([
    'made',
    'INVALID_TOPIC_EXCEPTION',
    'TOPIC_ALREADY_EXISTS',
  ]);
  await topics.delete('a.b');
  expect(await refusal({ name: 'a_b' })).toBe('made');
});

test('partition counts, replication factors, assignments and settings that cannot be are refused', async () => {
  const { refusal } = await cluster();
  const at = (partition: number, ...replicas: number[]) => ({ partition, replicas });
  const name = 't';
  expect(await refusal({ name, partitions: 0 })).toBe('INVALID_PARTITIONS');
  expect(await refusal({ name, partitions: -2 })).toBe('INVALID_PARTITIONS');
  expect(await refusal({ name, partitions: 10_001 })).toBe('INVALID_PARTITIONS');
  expect(await refusal({ name, replicationFactor: 0 })).toBe('INVALID_REPLICATION_FACTOR');
  expect(await refusal({ name, replicationFactor: 2 })).toBe('INVALID_REPLICATION_FACTOR');
  expect(await refusal({ name, partitions: 1, assignments: [at(0, 1)] })).toBe('INVALID_REQUEST');
  expect(await refusal({ name, assignments: [at(0, 2)] })).toBe('INVALID_REPLICA_ASSIGNMENT');
  expect(await refusal({ name, assignments: [at(1, 1)] })).toBe('INVALID_REPLICA_ASSIGNMENT');
  expect(await refusal({ name, assignments: [at(0, 1), at(0, 1)] })).toBe('INVALID_REPLICA_ASSIGNMENT');
  expect(await refusal({ name, configs: new Map([['no.such', '1']]) })).toBe('INVALID_CONFIG');
  expect(await refusal({ name, configs: new Map([['constructor', '1']]) })).toBe('INVALID_CONFIG');
  expect(await refusal({ name, configs: new Map([['retention.ms', 'soon']]) })).toBe('INVALID_CONFIG');
  expect(await refusal({ name, configs: new Map([['retention.ms', null]]) })).toBe('INVALID_CONFIG');
  expect(await refusal({ name, assignments: [at(1, 1), at(0, 1)] })).toBe('made');
});

test('one broker cannot keep a default replication factor of three, but makes its internal topics', async () => {
  const { refusal, topics } = await cluster({ defaultReplicationFactor: 3 });
  expect(await refusal({ name: 'a' })).toBe('INVALID_REPLICATION_FACTOR');
  expect(await refusal({ name: 'a', replicationFactor: 1 })).toBe('made');
  const offsets = await topics.create({ name: '__consumer_offsets' });
  expect(offsets).toMatchObject({ isInternal: true, configs: { 'cleanup.policy': 'compact' } });
  expect(offsets.partitions.length).toBe(50);
});

test('validating makes nothing', async () => {
  const { topics, view, refusal } = await cluster();
  await topics.create({ name: 'a', validateOnly: true });
  expect(view.image.topicByName('a')).toBeUndefined();
  expect(await refusal({ name: 'a', partitions: 0, validateOnly: true })).toBe('INVALID_PARTITIONS');
});

test('a topic is deleted once, an internal one never', async () => {
  const { topics, view } = await cluster();
  await topics.create({ name: 'a' });
  await topics.create({ name: '__consumer_offsets' });
  const outcomes = await Promise.allSettled([topics.delete('a'), topics.delete('a')]);
  expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  expect(view.image.topicByName('a')).toBeUndefined();
  await expect(topics.delete('a')).rejects.toMatchObject({ error: 'UNKNOWN_TOPIC_OR_PARTITION' });
  await expect(topics.delete('__consumer_offsets')).rejects.toMatchObject({ error: 'INVALID_REQUEST' });
});

test('a topic that is made again is another one', async () => {
  const { topics } = await cluster();
  const first = await topics.create({ name: 'a' });
  await topics.delete('a');
  expect((await topics.create({ name: 'a' })).id).not.toBe(first.id);
});

test('a store that fails is an error that clients know', async () => {
  const { topics, fs, refusal } = await cluster();
  await topics.create({ name: 'a' });
  fs.failWhen(({ name }) => (name === 'write' ? 'ENOSPC' : null));
  expect(await refusal({ name: 'b' })).toBe('KAFKA_STORAGE_ERROR');
  await expect(topics.delete('a')).rejects.toMatchObject({ error: 'KAFKA_STORAGE_ERROR' });
});

test('no producer id is given twice, whoever asks, also after a restart', async () => {
  const { store, open } = await cluster();
  const ids = new ProducerIds(store);
  const others = new ProducerIds(store);
  const given = await Promise.all(Array.from({ length: 2_500 }, (_, i) => (i % 2 ? ids : others).next()));
  await store.close();
  const later = new ProducerIds(await open());
  given.push(await later.next(), await later.next());
  expect(new Set(given).size).toBe(2_502);
  expect(Math.min(...given)).toBe(0);
});
