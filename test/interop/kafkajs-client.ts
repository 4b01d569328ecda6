import {
  CompressionTypes,
  ConfigResourceTypes,
  Kafka,
  logLevel,
  Partitioners,
  type Admin,
  type Consumer,
  type KafkaMessage,
  type Producer,
} from 'kafkajs';
import type { ForeignClient, ForeignMember, ForeignSession, ReadRecord } from './foreign-client.ts';

// The client that most Node services have, and that Nest's own Kafka transport sits on.

const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP } as const;

export const kafkajs: ForeignClient = {
  name: 'kafkajs',
  codecs: ['none', 'gzip'],
  open: (broker) => new KafkaJsSession(broker),
};

class KafkaJsSession implements ForeignSession {
  readonly #kafka: Kafka;
  readonly #open: { disconnect(): Promise<void> }[] = [];
  readonly #producers = new Map<boolean, Promise<Producer>>();
  #admin: Promise<Admin> | null = null;

  constructor(broker: string) {
    this.#kafka = new Kafka({ clientId: 'interop', brokers: [broker], logLevel: logLevel.NOTHING });
  }

  async send(...[topic, records, options = {}]: Parameters<ForeignSession['send']>): Promise<void> {
    const { codec = 'none', acks = -1, idempotent = false } = options;
    const producer = await this.#producer(idempotent);
    await producer.send({
      topic,
      acks,
      compression: compression[codec as keyof typeof compression],
      messages: records.map(({ key = null, value, headers = {}, partition }) => ({
        key,
        value,
        headers,
        ...(partition === undefined ? {} : { partition }),
      })),
    });
  }

  #producer(idempotent: boolean): Promise<Producer> {
    let connecting = this.#producers.get(idempotent);
    if (connecting === undefined) {
      const producer = this.#kafka.producer({
        idempotent,
        createPartitioner: Partitioners.DefaultPartitioner,
      });
      this.#open.push(producer);
      connecting = producer.connect().then(() => producer);
      this.#producers.set(idempotent, connecting);
    }
    return connecting;
  }

  async readFrom(topic: string, partition: number, offset: number, count: number): Promise<ReadRecord[]> {
    const consumer = this.#consumer(`reader-${topic}-${partition}-${offset}`);
    await consumer.connect();
    await consumer.subscribe({ topic });
    const records: ReadRecord[] = [];
    await new Promise<void>((resolve, reject) => {
      // kafkajs also calls it a crash when it begins again by itself, as while a coordinator still loads.
      consumer.on(consumer.events.CRASH, ({ payload }) => {
        if (!payload.restart) reject(payload.error);
      });
      const eachMessage = async (each: { partition: number; message: KafkaMessage }): Promise<void> => {
        if (each.partition !== partition || records.length === count) return;
        records.push(recordOf(each.partition, each.message));
        if (records.length === count) resolve();
      };
      consumer.run({ autoCommit: false, eachMessage }).catch(reject);
      consumer.seek({ topic, partition, offset: String(offset) });
    });
    await consumer.disconnect();
    return records;
  }

  async join(group: string, topic: string): Promise<ForeignMember> {
    const consumer = this.#consumer(group);
    let partitions: readonly number[] = [];
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      partitions = payload.memberAssignment[topic] ?? [];
    });
    const records: ReadRecord[] = [];
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await consumer.run({
      autoCommitInterval: 100,
      eachMessage: async ({ partition, message }) => {
        records.push(recordOf(partition, message));
      },
    });
    return {
      records: () => records,
      partitions: () => partitions,
      leave: () => consumer.disconnect(),
    };
  }

  #consumer(groupId: string): Consumer {
    const consumer = this.#kafka.consumer({ groupId, heartbeatInterval: 200, maxWaitTimeInMs: 100 });
    this.#open.push(consumer);
    return consumer;
  }

  async createTopic(
    topic: string,
    numPartitions: number,
    configs: Readonly<Record<string, string>>,
  ): Promise<void> {
    const admin = await this.#connectedAdmin();
    const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }));
    const created = await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }] });
    if (!created) throw new Error(`${topic} was there before`);
  }

  async deleteTopic(topic: string): Promise<void> {
    await (await this.#connectedAdmin()).deleteTopics({ topics: [topic] });
  }

  async topics(): Promise<string[]> {
    return (await this.#connectedAdmin()).listTopics();
  }

  async configsOf(topic: string): Promise<Map<string, string | null>> {
    const { resources } = await (
      await this.#connectedAdmin()
    ).describeConfigs({
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
      includeSynonyms: true,
    });
    return new Map(
      resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue]),
    );
  }

  async boundsOf(topic: string): Promise<{ start: number; end: number }[]> {
    const offsets = await (await this.#connectedAdmin()).fetchTopicOffsets(topic);
    return inOrder(offsets).map(({ low, high }) => ({ start: Number(low), end: Number(high) }));
  }

  async offsetsAt(topic: string, timestamp: number): Promise<number[]> {
    const offsets = await (await this.#connectedAdmin()).fetchTopicOffsetsByTimestamp(topic, timestamp);
    return inOrder(offsets).map(({ offset }) => Number(offset));
  }

  async committed(groupId: string, topic: string): Promise<Map<number, number>> {
    const [answer] = await (await this.#connectedAdmin()).fetchOffsets({ groupId, topics: [topic] });
    return new Map(
      answer!.partitions
        .map(({ partition, offset }): [number, number] => [partition, Number(offset)])
        .filter(([, offset]) => offset >= 0),
    );
  }

  async cluster(): Promise<{ id: string; brokers: string[] }> {
    const { clusterId, brokers } = await (await this.#connectedAdmin()).describeCluster();
    return { id: clusterId, brokers: brokers.map(({ host, port }) => `${host}:${port}`) };
  }

  #connectedAdmin(): Promise<Admin> {
    if (this.#admin === null) {
      const admin = this.#kafka.admin();
      this.#open.push(admin);
      this.#admin = admin.connect().then(() => admin);
    }
    return this.#admin;
  }

  async close(): Promise<void> {
    await Promise.all(this.#open.splice(0).map((each) => each.disconnect()));
  }
}

const inOrder = <T extends { partition: number }>(partitions: readonly T[]): T[] =>
  [...partitions].sort((a, b) => a.partition - b.partition);

function recordOf(partition: number, { key, value, headers, offset, timestamp }: KafkaMessage): ReadRecord {
  return {
    partition,
    offset: Number(offset),
    timestamp: Number(timestamp),
    key: key?.toString() ?? null,
    value: value?.toString() ?? null,
    headers: Object.fromEntries(Object.entries(headers ?? {}).map(([name, text]) => [name, String(text)])),
  };
}
