import {
  Admin,
  ConfigResourceTypes,
  Consumer,
  MessagesStreamFallbackModes,
  MessagesStreamModes,
  Producer,
  stringDeserializers,
  stringSerializers,
  type Message,
} from '@platformatic/kafka';
import type { ForeignClient, ForeignMember, ForeignSession, ReadRecord } from './foreign-client.ts';

// The liveliest client written for Node: it asks for the newest versions and brings every codec.

export const platformatic: ForeignClient = {
  name: '@platformatic/kafka',
  codecs: ['none', 'gzip', 'snappy', 'lz4', 'zstd'],
  open: (broker) => new PlatformaticSession(broker),
};

type Text = Message<string, string, string, string>;
type TextConsumer = Consumer<string, string, string, string>;

const earliest = -2n;
const latest = -1n;

class PlatformaticSession implements ForeignSession {
  readonly #base: { clientId: string; bootstrapBrokers: string[]; autocreateTopics: boolean };
  readonly #producer: Producer<string, string, string, string>;
  readonly #admin: Admin;
  readonly #consumers: TextConsumer[] = [];

  constructor(broker: string) {
    this.#base = { clientId: 'interop', bootstrapBrokers: [broker], autocreateTopics: true };
    this.#producer = new Producer({ ...this.#base, serializers: stringSerializers });
    this.#admin = new Admin(this.#base);
  }

  async send(...[topic, records, options = {}]: Parameters<ForeignSession['send']>): Promise<void> {
    const { codec = 'none', acks = -1, idempotent = false } = options;
    await this.#producer.send({
      acks,
      idempotent,
      compression: codec,
      messages: records.map(({ key, value, headers = {}, partition }) => ({
        topic,
        headers,
        ...(key === undefined || key === null ? {} : { key }),
        ...(value === null ? {} : { value }),
        ...(partition === undefined ? {} : { partition }),
      })),
    });
  }

  async readFrom(topic: string, partition: number, offset: number, count: number): Promise<ReadRecord[]> {
    const consumer = this.#consumer(`reader-${topic}-${partition}-${offset}`);
    const ends = (await this.boundsOf(topic)).map(({ end }) => end);
    const offsets = ends.map((end, index) => ({
      topic,
      partition: index,
      offset: BigInt(index === partition ? offset : end),
    }));
    const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.MANUAL, offsets });
    const records: ReadRecord[] = [];
    for await (const message of stream) {
      records.push(recordOf(message));
      if (records.length === count) break;
    }
    await consumer.close(true);
    return records;
  }

  async join(group: string, topic: string): Promise<ForeignMember> {
    const consumer = this.#consumer(group);
    const stream = await consumer.consume({
      topics: [topic],
      mode: MessagesStreamModes.COMMITTED,
      fallbackMode: MessagesStreamFallbackModes.EARLIEST,
      autocommit: false,
    });
    const records: ReadRecord[] = [];
    const last = new Map<number, Text>();
    stream.on('data', (message: Text) => {
      records.push(recordOf(message));
      last.set(message.partition, message);
    });
    const partitions = (): number[] => {
      const assigned = consumer.assignments?.find((each) => each.topic === topic);
      return (assigned?.partitions ?? []).toSorted((a, b) => a - b);
    };
    return {
      records: () => records,
      partitions,
      async leave() {
        const mine = new Set(partitions());
        const commits = [...last.values()].filter(({ partition }) => mine.has(partition));
        await Promise.all(commits.map((message) => message.commit()));
        await stream.close();
        await consumer.close(true);
      },
    };
  }

  #consumer(groupId: string): TextConsumer {
    const consumer = new Consumer({
      ...this.#base,
      groupId,
      deserializers: stringDeserializers,
      heartbeatInterval: 200,
      maxWaitTime: 100,
    });
    this.#consumers.push(consumer);
    return consumer;
  }

  async createTopic(
    topic: string,
    partitions: number,
    configs: Readonly<Record<string, string>>,
  ): Promise<void> {
    await this.#admin.createTopics({
      topics: [topic],
      partitions,
      replicas: 1,
      configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
    });
  }

  deleteTopic(topic: string): Promise<void> {
    return this.#admin.deleteTopics({ topics: [topic] });
  }

  topics(): Promise<string[]> {
    return this.#admin.listTopics();
  }

  async configsOf(topic: string): Promise<Map<string, string | null>> {
    const [described] = await this.#admin.describeConfigs({
      resources: [{ resourceType: ConfigResourceTypes.TOPIC, resourceName: topic, configurationKeys: null }],
      includeSynonyms: true,
    });
    return new Map(described!.configs.map(({ name, value }) => [name, value ?? null]));
  }

  async boundsOf(topic: string): Promise<{ start: number; end: number }[]> {
    const [starts, ends] = await Promise.all([
      this.offsetsAt(topic, earliest),
      this.offsetsAt(topic, latest),
    ]);
    return starts.map((start, partition) => ({ start, end: ends[partition]! }));
  }

  async offsetsAt(topic: string, timestamp: number | bigint): Promise<number[]> {
    const { topics } = await this.#admin.metadata({ topics: [topic] });
    const partitions = Array.from({ length: topics.get(topic)!.partitionsCount }, (_, partitionIndex) => ({
      partitionIndex,
      timestamp: BigInt(timestamp),
    }));
    const [listed] = await this.#admin.listOffsets({ topics: [{ name: topic, partitions }] });
    return listed!.partitions
      .toSorted((a, b) => a.partitionIndex - b.partitionIndex)
      .map(({ offset }) => Number(offset));
  }

  async committed(groupId: string, topic: string): Promise<Map<number, number>> {
    const [group] = await this.#admin.listConsumerGroupOffsets({ groups: [groupId] });
    const partitions = group!.topics.find(({ name }) => name === topic)?.partitions ?? [];
    return new Map(
      partitions
        .filter(({ committedOffset }) => committedOffset >= 0n)
        .map(({ partitionIndex, committedOffset }) => [partitionIndex, Number(committedOffset)]),
    );
  }

  async cluster(): Promise<{ id: string; brokers: string[] }> {
    const { id, brokers } = await this.#admin.metadata({});
    return { id, brokers: [...brokers.values()].map(({ host, port }) => `${host}:${port}`) };
  }

  async close(): Promise<void> {
    await Promise.all([
      this.#producer.close(),
      this.#admin.close(),
      ...this.#consumers.splice(0).map((consumer) => consumer.close(true)),
    ]);
  }
}

function recordOf({ partition, offset, timestamp, key, value, headers }: Text): ReadRecord {
  return {
    partition,
    offset: Number(offset),
    timestamp: Number(timestamp),
    key: (key as string | null | undefined) ?? null,
    value: (value as string | null | undefined) ?? null,
    headers: Object.fromEntries(headers),
  };
}
