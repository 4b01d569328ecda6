import { setTimeout as sleep } from 'node:timers/promises';
import {
  BrokerError,
  Client,
  ClientError,
  type AssignedPartition,
  type ClientOptions,
  type Producer,
} from '@rookery/client';
import { afterEach, describe, expect, test } from 'vitest';
import { brokerUnderTest, type BrokerKind } from './broker-under-test.ts';
import { Reader } from './reader.ts';

// One suite over both brokers: what the client does with our sidecar it does with Kafka.

const kinds: BrokerKind[] = ['a sidecar', 'Apache Kafka'];
/** Longer than a broker is away: a member keeps its partitions over a restart. */
const sessionTimeoutMs = 60_000;
let names = 0;
const fresh = (what: string): string => `${what}-${process.pid}-${++names}`;
const text = (value: string): Buffer => Buffer.from(value);
const numbers = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => String(from + i));
const rejection = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => null,
    (error: unknown) => error,
  );

describe.each(kinds)('against %s', (kind) => {
  const broker = brokerUnderTest(kind);
  const clients: Client[] = [];

  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.close()));
  });

  function open(options: Partial<ClientOptions> = {}): Client {
    const client = new Client({ brokers: [broker.address], ...options });
    clients.push(client);
    return client;
  }

  async function topicOf(
    client: Client,
    partitions = 1,
    configs: Record<string, string> = {},
  ): Promise<string> {
    const name = fresh('topic');
    const [created] = await client.admin().createTopics([{ name, partitions, configs }]);
    expect(created!.error).toBe('NONE');
    return name;
  }

  /** Hands in numbered records one after the other; resolves with the offset of each. */
  function publish(
    producer: Producer,
    topic: string,
    values: readonly string[],
    partitions = 1,
  ): Promise<number[]> {
    return Promise.all(
      values.map(async (value, i) => {
        const { offset } = await producer.send(topic, { value: text(value), partition: i % partitions });
        return offset;
      }),
    );
  }

  test.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)(
    'what is sent with %s is read as it was',
    async (codec) => {
      const client = open();
      const topic = await topicOf(client);
      const producer = client.producer({ codec });
      const headers = [
        { key: 'trace', value: text('ä€𝄞') },
        { key: 'none', value: null },
      ];
      const long = text('x'.repeat(100_000));
      await Promise.all([
        producer.send(topic, {
          key: text('k'),
          value: long,
          headers,
          timestamp: 1_700_000_000_123,
          partition: 0,
        }),
        producer.send(topic, { key: text('k'), value: null, timestamp: 1_700_000_000_001, partition: 0 }),
        producer.send(topic, { value: text(''), timestamp: 1_700_000_000_999, partition: 0 }),
      ]);
      const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
      await reader.until(() => reader.read.length === 3);
      expect(reader.read.map(({ record }) => record)).toEqual([
        { offset: 0, timestamp: 1_700_000_000_123, key: text('k'), value: long, headers },
        { offset: 1, timestamp: 1_700_000_000_001, key: text('k'), value: null, headers: [] },
        { offset: 2, timestamp: 1_700_000_000_999, key: null, value: text(''), headers: [] },
      ]);
    },
  );

  test.each(['all', 1, 0] as const)('with acks=%s everything arrives in order', async (acks) => {
    const client = open();
    const topic = await topicOf(client, 3);
    const values = numbers(0, 3_000);
    // Without acknowledgements nobody would tell that a leader had not been ready yet.
    await publish(client.producer(), topic, values.slice(0, 3), 3);
    const offsets = await publish(client.producer({ acks, batchBytesMax: 2_000 }), topic, values.slice(3), 3);
    if (acks === 0) expect(new Set(offsets)).toEqual(new Set([-1]));
    else expect(offsets).toEqual(values.slice(3).map((_, i) => 1 + Math.floor(i / 3)));
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.read.length === values.length);
    for (const partition of [0, 1, 2])
      expect(reader.valuesOf(partition)).toEqual(values.filter((_, i) => i % 3 === partition));
  });

  test('connections that break lose, repeat and reorder nothing', async () => {
    const client = open();
    const topic = await topicOf(client, 2);
    const producer = client.producer({ batchBytesMax: 1_000 });
    const values: string[] = [];
    let cuts = 0;
    const cutting = setInterval(() => {
      broker.proxy.cut();
      cuts++;
    }, 80);
    broker.proxy.delayMs = 2;
    try {
      while (cuts < 15) {
        const more = numbers(values.length, values.length + 300);
        values.push(...more);
        await publish(producer, topic, more, 2);
      }
    } finally {
      clearInterval(cutting);
      broker.proxy.delayMs = 0;
    }
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.read.length >= values.length);
    for (const partition of [0, 1])
      expect(reader.valuesOf(partition)).toEqual(values.filter((_, i) => i % 2 === partition));
  });

  test('answers that never come: the batch is sent again on a new connection, and is in the log once', async () => {
    const client = open({ requestTimeoutMs: 500 });
    const topic = await topicOf(client);
    const producer = client.producer();
    await publish(producer, topic, ['before']);
    broker.proxy.isDeaf = true;
    const sending = publish(producer, topic, ['while deaf']);
    await sleep(800);
    broker.proxy.isDeaf = false;
    broker.proxy.cut();
    await sending;
    await publish(producer, topic, ['after']);
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.values.includes('after'));
    expect(reader.values).toEqual(['before', 'while deaf', 'after']);
  });

  test('a broker that is killed while records come and go: what was acknowledged is read, in order', async () => {
    const client = open();
    const topic = await topicOf(client);
    const reader = new Reader(client, { group: fresh('group'), topics: [topic], sessionTimeoutMs });
    const producer = client.producer({ batchBytesMax: 1_000 });
    const first = publish(producer, topic, numbers(0, 500));
    await reader.until(() => reader.read.length > 0);
    await broker.restart();
    await first;
    await publish(producer, topic, numbers(500, 1_000));
    await reader.until(() => reader.values.at(-1) === '999');
    expect(reader.values).toEqual(numbers(0, 1_000));
  });

  test('a commit outlives the broker, and one made while it is away arrives when it is back', async () => {
    const client = open();
    const topic = await topicOf(client);
    const group = fresh('group');
    await publish(client.producer(), topic, numbers(0, 10));
    const reader = new Reader(client, { group, topics: [topic], sessionTimeoutMs });
    await reader.until(() => reader.read.length === 10);
    await reader.consumer.commit(reader.partitions[0]!, 3);
    await broker.stop();
    const committing = reader.consumer.commit(reader.partitions[0]!, 7);
    await broker.start();
    await committing;
    await reader.consumer.close();
    const next = new Reader(open(), { group, topics: [topic] });
    await next.until(() => next.read.length === 3);
    expect(next.values).toEqual(['7', '8', '9']);
  });

  test('a position past the end of its leader epoch: reading goes back to where the logs part', async () => {
    const client = open();
    const topic = await topicOf(client);
    const group = fresh('group');
    await publish(client.producer(), topic, numbers(0, 3));
    const reader = new Reader(client, { group, topics: [topic], sessionTimeoutMs });
    await reader.until(() => reader.read.length === 3);
    // As if a leader had given it two more, which went with that leader.
    await reader.consumer.commit(reader.partitions[0]!, 5);
    await reader.consumer.close();
    const next = new Reader(open(), { group, topics: [topic] });
    await eventually(() => next.errors.length > 0);
    expect(next.errors.map(({ message }) => message).join()).toMatch(/lost what was read from offset 3 to 5/);
    await publish(client.producer(), topic, numbers(3, 6));
    await next.until(() => next.read.length === 3);
    expect(next.values).toEqual(numbers(3, 6));
  });

  test.runIf(kind === 'Apache Kafka')(
    'a position that the log of its leader epoch never reached: reading goes back to where the logs part',
    async () => {
      const client = open();
      const topic = await topicOf(client);
      const group = fresh('group');
      await publish(client.producer(), topic, numbers(0, 3));
      const reader = new Reader(client, { group, topics: [topic], sessionTimeoutMs }, 3, {
        records: (_, records) =>
          void reader.read.push(...records.map((record) => ({ topic, partition: 0, record }))),
      });
      await eventually(() => reader.read.length === 3);
      // The next leader epoch begins at offset 3, so whoever saw offset 4 in this one read what is not there any more.
      await broker.restart();
      await publish(client.producer(), topic, numbers(3, 6));
      await reader.consumer.commit(reader.partitions[0]!, 5);
      await reader.consumer.close();
      const next = new Reader(open(), { group, topics: [topic] });
      await next.until(() => next.read.length === 3);
      expect(next.values).toEqual(numbers(3, 6));
      expect(next.errors.map(({ message }) => message).join()).toMatch(
        /lost what was read from offset 3 to 5/,
      );
    },
  );

  test('a client that is there before its broker waits for it', async () => {
    await broker.stop();
    const client = open();
    expect(client.status).toBe('connecting');
    const topic = fresh('topic');
    const sending = client.producer().send(topic, { value: text('early') });
    await sleep(300);
    await broker.start();
    expect((await sending).offset).toBe(0);
    expect(client.status).toBe('ready');
  });

  test('two members share the partitions; when one leaves, the other goes on where it stopped', async () => {
    const setup = open();
    const topic = await topicOf(setup, 4);
    const group = fresh('group');
    const handled: string[] = [];
    const owners = new Map<number, string>();
    const violations: string[] = [];
    const member = (name: string): Reader => {
      const done = new Map<AssignedPartition, number>();
      const reader: Reader = new Reader(open(), { group, topics: [topic] }, 100, {
        assigned(partitions) {
          reader.partitions = partitions;
          for (const partition of partitions) {
            const owner = owners.get(partition.partition);
            if (owner !== undefined) violations.push(`${name} has ${partition.partition} of ${owner}`);
            owners.set(partition.partition, name);
            reader.consumer.request(partition, 100);
          }
        },
        records(partition, records) {
          for (const record of records) {
            handled.push(record.value!.toString());
            done.set(partition, record.offset + 1);
          }
          reader.consumer.request(partition, records.length);
        },
        async revoking(partitions) {
          // The group must wait for this: whoever gets the partitions next begins where we say.
          await sleep(300);
          for (const partition of partitions) {
            const next = done.get(partition);
            if (next !== undefined) await reader.consumer.commit(partition, next);
            owners.delete(partition.partition);
          }
          reader.partitions = [];
        },
      });
      return reader;
    };
    const a = member('a');
    await eventually(() => a.partitions.length === 4);
    const producer = setup.producer();
    await publish(producer, topic, numbers(0, 400), 4);
    const b = member('b');
    await eventually(() => a.partitions.length === 2 && b.partitions.length === 2);
    await publish(producer, topic, numbers(400, 800), 4);
    await eventually(() => handled.length === 800);
    await b.consumer.close();
    await eventually(() => a.partitions.length === 4);
    await publish(producer, topic, numbers(800, 1_200), 4);
    await eventually(() => handled.length >= 1_200);
    expect(handled.toSorted((x, y) => Number(x) - Number(y))).toEqual(numbers(0, 1_200));
    expect(violations).toEqual([]);
  });

  test('a partition without credits gives nothing and holds up no other', async () => {
    const client = open();
    const topic = await topicOf(client, 2);
    // Far more than is fetched ahead.
    const big = text('x'.repeat(20_000));
    const producer = client.producer();
    const reader: Reader = new Reader(
      client,
      { group: fresh('group'), topics: [topic], prefetchBytes: 50_000 },
      0,
    );
    await reader.until(() => reader.partitions.length === 2);
    const [paused, running] = reader.partitions as [AssignedPartition, AssignedPartition];
    for (let i = 0; i < 20; i++) await producer.send(topic, { value: big, partition: 0 });
    for (let round = 0; round < 5; round++) {
      await producer.send(topic, { value: text(String(round)), partition: 1 });
      reader.consumer.request(running, 1);
      await reader.until(() => reader.read.length === round + 1);
    }
    expect(reader.valuesOf(1)).toEqual(numbers(0, 5));
    expect(reader.valuesOf(0)).toEqual([]);
    reader.consumer.request(paused, 3);
    await reader.until(() => reader.valuesOf(0).length === 3);
    await sleep(50);
    expect(reader.valuesOf(0)).toHaveLength(3);
    reader.consumer.request(paused, 17);
    await reader.until(() => reader.valuesOf(0).length === 20);
  });

  test('a pause takes back what was requested; the next request goes on where it stopped', async () => {
    const client = open();
    const topic = await topicOf(client);
    const producer = client.producer();
    await publish(producer, topic, numbers(0, 5));
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] }, 0, {
      records(partition, records) {
        for (const record of records)
          reader.read.push({ topic: partition.topic, partition: partition.partition, record });
        if (reader.read.length === 5) reader.consumer.pause(partition);
      },
    });
    await reader.until(() => reader.partitions.length === 1);
    const [partition] = reader.partitions as [AssignedPartition];
    reader.consumer.request(partition, 100);
    await eventually(() => reader.read.length === 5);
    await publish(producer, topic, numbers(5, 10));
    await sleep(100);
    expect(reader.values).toEqual(numbers(0, 5));
    reader.consumer.request(partition, 100);
    await eventually(() => reader.read.length === 10);
    expect(reader.values).toEqual(numbers(0, 10));
  });

  test('seek goes back, into the middle of a batch, and to where `from` says', async () => {
    const client = open();
    const topic = await topicOf(client);
    await publish(client.producer(), topic, numbers(0, 20));
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] }, 0);
    await reader.until(() => reader.partitions.length === 1);
    const [partition] = reader.partitions as [AssignedPartition];
    const take = async (count: number): Promise<string[]> => {
      reader.read.length = 0;
      reader.consumer.request(partition, count);
      await reader.until(() => reader.read.length === count);
      return reader.values;
    };
    expect(await take(3)).toEqual(numbers(0, 3));
    reader.consumer.seek(partition, 12);
    expect(await take(4)).toEqual(numbers(12, 16));
    reader.consumer.seek(partition, 5);
    expect(await take(2)).toEqual(numbers(5, 7));
    reader.consumer.seek(partition, -1);
    expect(await take(2)).toEqual(numbers(0, 2));
    // Past the end the log has nothing to give: the broker says so, and reading begins anew.
    reader.consumer.seek(partition, 1_000);
    expect(await take(1)).toEqual(['0']);
    expect(reader.errors.map(({ message }) => message).join()).toMatch(/OFFSET_OUT_OF_RANGE/);
  });

  test('a static member that comes back keeps its partitions, and its twin is told to go', async () => {
    const setup = open();
    const topic = await topicOf(setup, 2);
    const group = fresh('group');
    const first = new Reader(open(), { group, topics: [topic], instanceId: 'one' });
    await first.until(() => first.partitions.length === 2);
    const generation = first.partitions[0]!.generation;
    await first.consumer.close();
    const second = new Reader(open(), { group, topics: [topic], instanceId: 'one' });
    await second.until(() => second.partitions.length === 2);
    expect(second.partitions[0]!.generation).toBe(generation);
    const twin = new Reader(open(), { group, topics: [topic], instanceId: 'one' });
    await twin.until(() => twin.partitions.length === 2);
    await second.until(() => second.failures.length === 1);
    expect(second.failures[0]!.message).toMatch(/FENCED_INSTANCE_ID/);
    expect(twin.failures).toEqual([]);
  });

  test('a commit for partitions that have gone is refused', async () => {
    const client = open();
    const topic = await topicOf(client);
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.partitions.length === 1);
    const [partition] = reader.partitions as [AssignedPartition];
    await reader.consumer.close();
    expect(await rejection(reader.consumer.commit(partition, 1))).toMatchObject({ code: 'RK9210' });
  });

  test('a topic that comes to be later is read from its beginning', async () => {
    const client = open();
    const topic = fresh('topic');
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await client.producer().send(topic, { value: text('first') });
    await reader.until(() => reader.read.length === 1);
    expect(reader.values).toEqual(['first']);
  });

  test('more than the topic takes at once is split; a record that is too large is refused, the others go', async () => {
    const client = open();
    const topic = await topicOf(client, 1, { 'max.message.bytes': '2000' });
    const producer = client.producer();
    const values = numbers(0, 500);
    const large = rejection(producer.send(topic, { value: text('x'.repeat(5_000)), partition: 0 }));
    const offsets = await publish(producer, topic, values);
    expect(await large).toBeInstanceOf(BrokerError);
    expect(await large).toMatchObject({ error: 'MESSAGE_TOO_LARGE', outcomeUnknown: false });
    expect(offsets).toEqual(values.map((_, i) => i));
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.read.length === values.length);
    expect(reader.values).toEqual(values);
  });

  test('bad input is refused with a code, and the rest goes on', async () => {
    expect(() => new Client({ brokers: [] })).toThrow(/RK9207/);
    expect(() => new Client({ brokers: ['nowhere'] })).toThrow(/RK9207/);
    const client = open();
    const topic = await topicOf(client);
    expect(() => client.producer({ acks: 1, idempotent: true })).toThrow(/RK9207/);
    expect(() => client.producer({ batchBytesMax: 0 })).toThrow(/RK9207/);
    const producer = client.producer({ bufferBytesMax: 10_000 });
    const bad = [
      { value: 'no bytes' as unknown as Uint8Array, partition: 0 },
      { value: text('v'), timestamp: Number.NaN, partition: 0 },
      { value: text('v'), partition: 7 },
      { value: text('v'), headers: [{ key: 1 as unknown as string, value: null }], partition: 0 },
    ];
    for (const record of bad)
      expect(await rejection(producer.send(topic, record))).toMatchObject({ code: 'RK9207' });
    expect(await rejection(producer.send('no/such topic', { value: text('v') }))).toMatchObject({
      error: 'INVALID_TOPIC_EXCEPTION',
    });
    const flood = await Promise.all(
      numbers(0, 200).map((value) =>
        rejection(producer.send(topic, { value: text(value.repeat(50)), partition: 0 })),
      ),
    );
    const refused = flood.filter((error) => error !== null);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThan(200);
    for (const error of refused) expect(error).toMatchObject({ code: 'RK9206' });
    await publish(producer, topic, ['good']);
    expect(await client.admin().listOffsets(topic, 'latest')).toEqual(new Map([[0, 201 - refused.length]]));
    expect(() => new Reader(client, { group: '', topics: [topic] })).toThrow(/RK9207/);
    expect(() => new Reader(client, { group: fresh('group'), topics: [] })).toThrow(/RK9207/);
  });

  test('the admin creates, describes, lists and deletes', async () => {
    const client = open();
    const admin = client.admin();
    const topic = await topicOf(client, 3, { 'retention.ms': '12345' });
    expect(await admin.listTopics()).toContainEqual({ name: topic, partitions: 3, isInternal: false });
    expect((await admin.describeConfigs('topic', topic)).get('retention.ms')).toBe('12345');
    const [again] = await admin.createTopics([{ name: topic, partitions: 3 }]);
    expect(again!.error).toBe('TOPIC_ALREADY_EXISTS');
    const cluster = await admin.describeCluster();
    expect(cluster.brokers.map(({ host, port }) => `${host}:${port}`)).toEqual([broker.address]);
    await publish(client.producer(), topic, numbers(0, 9), 3);
    expect(await admin.listOffsets(topic, 'latest')).toEqual(
      new Map([
        [0, 3],
        [1, 3],
        [2, 3],
      ]),
    );
    expect(await admin.listOffsets(topic, 'earliest')).toEqual(
      new Map([
        [0, 0],
        [1, 0],
        [2, 0],
      ]),
    );
    expect((await admin.deleteTopics([topic]))[0]!.error).toBe('NONE');
    expect((await admin.deleteTopics([topic]))[0]!.error).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(await rejection(admin.describeConfigs('topic', topic))).toMatchObject({ code: 'RK9208' });
  });

  test('records that cannot be delivered in their time fail then, and say whether they may be in the log', async () => {
    const client = open({ requestTimeoutMs: 5_000 });
    const topic = await topicOf(client);
    const producer = client.producer({ deliveryTimeoutMs: 700 });
    await publish(producer, topic, ['before']);
    broker.proxy.isDeaf = true;
    const asked = rejection(publish(producer, topic, ['asked']));
    await sleep(50);
    expect(await asked).toMatchObject({ code: 'RK9209', outcomeUnknown: true });
    await broker.stop();
    broker.proxy.isDeaf = false;
    await sleep(50);
    expect(await rejection(publish(producer, topic, ['never asked']))).toMatchObject({
      code: 'RK9209',
      outcomeUnknown: false,
    });
    await broker.start();
    const late = client.producer();
    await publish(late, topic, ['after']);
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.values.includes('after'));
    expect(reader.values.filter((value) => value !== 'asked')).toEqual(['before', 'after']);
  });

  test('closing does not wait for a broker that is gone', async () => {
    const client = open();
    const topic = await topicOf(client);
    const reader = new Reader(client, { group: fresh('group'), topics: [topic] });
    await reader.until(() => reader.partitions.length === 1);
    await broker.stop();
    const sending = rejection(client.producer().send(topic, { value: text('v') }));
    await client.close(200);
    expect(await sending).toBeInstanceOf(ClientError);
    expect(client.status).toBe('closed');
    expect(await rejection(client.producer().send(topic, { value: text('v'), partition: 0 }))).toMatchObject({
      code: 'RK9205',
    });
    await broker.start();
  });
});

async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(20);
}
