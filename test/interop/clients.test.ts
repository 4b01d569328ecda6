import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { kafka, sidecar } from '../support/peers.ts';
import { batchesOnDisk } from '../support/segments.ts';
import type { ForeignClient, ForeignMember, ForeignSession, SentRecord } from './foreign-client.ts';
import { kafkajs } from './kafkajs-client.ts';
import { platformatic } from './platformatic-client.ts';

// What a client may expect of a broker, the same claims for each client: of the sidecar, and of a real Kafka, which
// shows that the claims are Kafka's and not ours.

const clients: ForeignClient[] = [kafkajs, platformatic];
const within = { timeout: 45_000, interval: 50 };

describe.each([
  ['the sidecar', sidecar],
  ['a real Kafka', kafka],
])('with %s', (name, start) => {
  const broker = start();
  // On a busy machine kafkajs may wait for ever for the first group of a Kafka that has only just started. That is
  // between the two of them: no claim about us is tried twice.
  const retry = name === 'a real Kafka' ? 1 : 0;

  describe.each(clients.map((client) => [client.name, client] as const))('%s', { retry }, (_, client) => {
    let session: ForeignSession;
    const members: ForeignMember[] = [];
    const joinGroup = async (group: string, topic: string): Promise<ForeignMember> => {
      const member = await session.join(group, topic);
      members.push(member);
      return member;
    };
    const leave = async (member: ForeignMember): Promise<void> => {
      members.splice(members.indexOf(member), 1);
      await member.leave();
    };
    beforeAll(() => {
      session = client.open(broker.address);
    });
    afterEach(async () => {
      await Promise.all(members.splice(0).map((member) => member.leave()));
    });
    afterAll(async () => {
      await session?.close();
    });

    let topics = 0;
    const freshTopic = (): string => `${client.name.replace(/\W/g, '')}-${topics++}`;
    const created = async (partitions: number): Promise<string> => {
      const topic = freshTopic();
      await session.createTopic(topic, partitions, {});
      // Kafka answers before every partition has its leader; a client that then sends a part of its records twice
      // is within its rights, but not what is looked at here.
      await vi.waitFor(() => session.boundsOf(topic), within);
      return topic;
    };

    test.each(client.codecs)(
      'produces with %s, which is how it lies on disk, and reads it back',
      async (codec) => {
        const topic = await created(1);
        const records = Array.from({ length: 100 }, (_, i) => ({ value: `${i} ${'heron '.repeat(20)}` }));
        await session.send(topic, records, { codec });

        const batches = await batchesOnDisk(broker.process.dataDir, topic);
        expect(new Set(batches.map((batch) => batch.codec))).toEqual(new Set([codec]));
        const read = await session.readFrom(topic, 0, 0, records.length);
        expect(read.map(({ value }) => value)).toEqual(records.map(({ value }) => value));
        expect(read.map(({ offset }) => offset)).toEqual(records.map((_, i) => i));
      },
    );

    test('keys, headers, null keys and null values come back as they were', async () => {
      const topic = await created(2);
      const records: SentRecord[] = [
        { key: 'k', value: 'v', headers: { origin: 'ORD', kind: 'departure' }, partition: 1 },
        { key: null, value: 'no key', partition: 1 },
        { key: 'gone', value: null, partition: 1 },
        { key: 'ключ', value: 'значение', headers: { empty: '' }, partition: 1 },
      ];
      await session.send(topic, records);
      const read = await session.readFrom(topic, 1, 0, records.length);
      expect(read.map(({ key, value, headers, partition }) => ({ key, value, headers, partition }))).toEqual(
        records.map((record) => ({ headers: {}, ...record })),
      );
    });

    test.each([0, 1, -1] as const)('produces with acks=%i', async (acks) => {
      const topic = await created(1);
      await session.send(topic, [{ value: 'told' }], { acks });
      const [record] = await session.readFrom(topic, 0, 0, 1);
      expect(record!.value).toBe('told');
    });

    test('produces idempotently, several times in a row', async () => {
      const topic = await created(1);
      for (const value of ['a', 'b', 'c'])
        await session.send(topic, [{ value, partition: 0 }], { idempotent: true });
      const read = await session.readFrom(topic, 0, 0, 3);
      expect(read.map(({ value }) => value)).toEqual(['a', 'b', 'c']);
    });

    test('a topic is created by the first record that is sent to it', async () => {
      const topic = freshTopic();
      await session.send(topic, [{ value: 'first' }]);
      expect(await session.topics()).toContain(topic);
      expect((await session.readFrom(topic, 0, 0, 1))[0]!.value).toBe('first');
    });

    test('seeks to any offset, also in the middle of a batch', async () => {
      const topic = await created(1);
      await session.send(
        topic,
        Array.from({ length: 50 }, (_, i) => ({ value: `${i}` })),
      );
      for (const offset of [49, 1, 25]) {
        const [record] = await session.readFrom(topic, 0, offset, 1);
        expect(record).toMatchObject({ offset, value: `${offset}` });
      }
    });

    test('finds the offset of a time, and the bounds of a topic', async () => {
      const topic = await created(2);
      await session.send(topic, [{ value: 'early', partition: 0 }]);
      const [early] = await session.readFrom(topic, 0, 0, 1);
      await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(early!.timestamp + 1), within);
      await session.send(topic, [
        { value: 'late', partition: 0 },
        { value: 'later', partition: 0 },
      ]);
      const [late] = await session.readFrom(topic, 0, 1, 1);
      expect(late!.timestamp).toBeGreaterThan(early!.timestamp);

      expect((await session.offsetsAt(topic, late!.timestamp))[0]).toBe(1);
      expect((await session.offsetsAt(topic, early!.timestamp))[0]).toBe(0);
      expect(await session.boundsOf(topic)).toEqual([
        { start: 0, end: 3 },
        { start: 0, end: 0 },
      ]);
    });

    test('creates a topic with settings, sees them and all others, and deletes it', async () => {
      const topic = freshTopic();
      await session.createTopic(topic, 3, { 'max.message.bytes': '12345', 'cleanup.policy': 'compact' });
      const configs = await session.configsOf(topic);
      expect(configs.get('max.message.bytes')).toBe('12345');
      expect(configs.get('cleanup.policy')).toBe('compact');
      expect([...configs.keys()]).toEqual(
        expect.arrayContaining(['retention.ms', 'segment.bytes', 'min.insync.replicas']),
      );
      expect(await session.boundsOf(topic)).toHaveLength(3);

      await session.deleteTopic(topic);
      await vi.waitFor(async () => expect(await session.topics()).not.toContain(topic), within);
    });

    test('refusals arrive as errors: a topic that exists, a record that is too large, an unkeyed one to compact', async () => {
      const topic = await created(1);
      await expect(session.createTopic(topic, 1, {})).rejects.toThrow();

      const small = freshTopic();
      await session.createTopic(small, 1, { 'max.message.bytes': '1000' });
      await session.send(small, [{ value: 'x'.repeat(500) }]);
      await expect(session.send(small, [{ value: 'x'.repeat(2_000) }])).rejects.toThrow();

      const compacted = freshTopic();
      await session.createTopic(compacted, 1, { 'cleanup.policy': 'compact' });
      await expect(session.send(compacted, [{ key: null, value: 'x' }])).rejects.toThrow();
      expect(await session.boundsOf(small)).toEqual([{ start: 0, end: 1 }]);
      expect(await session.boundsOf(compacted)).toEqual([{ start: 0, end: 0 }]);
    });

    test('the cluster is known by its id and by an address that can be reached', async () => {
      const { id, brokers } = await session.cluster();
      expect(id).toMatch(/^[\w-]{22}$/);
      expect(brokers).toEqual([broker.address]);
    });

    test('two members split the partitions; when one leaves the other goes on, and nothing is lost', async () => {
      const topic = await created(4);
      const group = `pair-of-${topic}`;
      const send = (round: string): Promise<void> =>
        session.send(
          topic,
          Array.from({ length: 40 }, (_, i) => ({ value: `${round}-${i}`, partition: i % 4 })),
        );
      await send('first');
      const stays = await joinGroup(group, topic);
      await vi.waitFor(() => expect(stays.partitions()).toEqual([0, 1, 2, 3]), within);
      const leaves = await joinGroup(group, topic);
      await vi.waitFor(() => {
        expect(stays.partitions()).toHaveLength(2);
        expect(leaves.partitions()).toHaveLength(2);
      }, within);
      expect([...stays.partitions(), ...leaves.partitions()].sort()).toEqual([0, 1, 2, 3]);

      // At least once: what was read, but not committed before a rebalance, comes again.
      const seen = (): number =>
        new Set([...stays.records(), ...leaves.records()].map(({ value }) => value)).size;
      await send('second');
      await vi.waitFor(() => expect(seen()).toBe(80), within);
      await leave(leaves);
      await vi.waitFor(() => expect(stays.partitions()).toEqual([0, 1, 2, 3]), within);
      await send('third');
      await vi.waitFor(() => expect(seen()).toBe(120), within);

      await leave(stays);
      const ends = (await session.boundsOf(topic)).map(({ end }, partition) => [partition, end] as const);
      expect(await session.committed(group, topic)).toEqual(new Map(ends));
    });
  });
});

describe.each(clients.map((client) => [client.name, client] as const))(
  '%s, when the sidecar restarts',
  (_, client) => {
    test('a group goes on where it was, and every record is still there', async () => {
      const dataDir = await mkdtemp(join(tmpdir(), 'rookery-clients-'));
      try {
        const before = await startSidecar({ dataDir });
        const listen = before.kafka;
        const early = client.open(listen);
        await early.send('kept', [{ value: 'one' }, { value: 'two' }]);
        const member = await early.join('keeper', 'kept');
        await vi.waitFor(() => expect(member.records()).toHaveLength(2), within);
        await member.leave();
        await early.close();
        await before.stop();

        const after = await startSidecar({ dataDir, listen });
        const late = client.open(listen);
        expect(await late.committed('keeper', 'kept')).toEqual(new Map([[0, 2]]));
        await late.send('kept', [{ value: 'three' }]);
        const again = await late.join('keeper', 'kept');
        await vi.waitFor(() => expect(again.records().map(({ value }) => value)).toEqual(['three']), within);
        expect((await late.readFrom('kept', 0, 0, 3)).map(({ value }) => value)).toEqual([
          'one',
          'two',
          'three',
        ]);
        await again.leave();
        await late.close();
        await after.stop();
      } finally {
        await rm(dataDir, { recursive: true, force: true });
      }
    });
  },
);
