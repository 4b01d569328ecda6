import {
  apiOf,
  batchHeaderSize,
  ByteReader,
  decodeRequestHeader,
  decodeResponseHeader,
  decoderOf,
  fetch,
  FrameCutter,
  produce,
  RecordBatch,
  skipRequestHeaderTags,
  type Api,
} from '@rookery/wire';
import { Admin, Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka';
import kafkajs from 'kafkajs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { output } from '../support/finished-process.ts';
import { kafkaTool, startKafka } from '../support/kafka-process.ts';
import { kcat } from '../support/kcat.ts';
import { writeGoldenFrames, type GoldenFrame } from './golden-frames.ts';

/**
 * Records the golden frames: other people's clients do what they do with a real Kafka, through a proxy that
 * keeps one request and one response for each API, version and compression codec. Tests read what it wrote;
 * it is run by hand, when a client or Kafka has moved on:
 *
 *   scripts/peers.sh install && npm run build && node test/dist/protocol/capture-frames.js [NAME PROGRAM]
 *
 * NAME and PROGRAM add a client that this repository does not carry: PROGRAM is a shell command that finds
 * the broker in $BROKER. `franz-go` was recorded with a loop that produced 20 records in every codec to
 * the topic golden-franz-go, read them back and ended.
 */

/**
 * Each client's topic and group, so that tests know what they must find. None reads another's records: kafkajs
 * has no codec but gzip, and a group goes on where it ended.
 */
const nameOf = (client: string): string => `golden-${client}`;
const key = 'golden-key';
/** Long and dull enough that every client sends it compressed. */
const value = 'golden value '.repeat(20).trim();
const headers = { source: 'golden-header' };

/** What is larger tells no more. */
const frameBytesMax = 6000;

class Recorder {
  client = '';
  readonly #frames = new Map<string, GoldenFrame>();

  /** Between several frames of one kind the largest is kept: it says the most. */
  keep(api: Api, version: number, direction: GoldenFrame['direction'], bytes: Buffer): void {
    if (bytes.length > frameBytesMax) return;
    const codec = codecIn(api, version, direction, bytes);
    const id = [this.client, api.key, version, direction, codec].join();
    if (bytes.length <= (this.#frames.get(id)?.bytes.length ?? 0)) return;
    this.#frames.set(id, { client: this.client, api: api.name, version, direction, codec, bytes });
  }

  write(): void {
    const clients = Map.groupBy(this.#frames.values(), ({ client }) => client);
    for (const [client, frames] of clients) {
      const sorted = frames.toSorted(
        (a, b) =>
          a.api.localeCompare(b.api) ||
          a.version - b.version ||
          a.direction.localeCompare(b.direction) ||
          a.codec.localeCompare(b.codec),
      );
      writeGoldenFrames(client, sorted);
      console.log(`${client}: ${sorted.length} frames`);
    }
  }
}

function codecIn(api: Api, version: number, direction: string, bytes: Buffer): string {
  const reader = new ByteReader(bytes);
  let chunks: (readonly Buffer[] | null)[] = [];
  if (api.key === produce.key && direction === 'request') {
    decodeRequestHeader(reader);
    skipRequestHeaderTags(api, version, reader);
    const request = decoderOf(produce.request, version)(reader);
    chunks = request.topicData.flatMap((of) => of.partitionData.map(({ records }) => records));
  } else if (api.key === fetch.key && direction === 'response') {
    decodeResponseHeader(api, version, reader);
    const response = decoderOf(fetch.response, version)(reader);
    chunks = response.responses.flatMap((of) => of.partitions.map(({ records }) => records));
  }
  const first = Buffer.concat(chunks.flatMap((records) => records ?? []));
  return first.length < batchHeaderSize ? '-' : RecordBatch.header(first).codec;
}

/** Passes bytes on between a client and the broker, and shows the recorder every frame of an API that we know. */
function relay(client: Socket, broker: Socket, recorder: Recorder): void {
  const requests = new FrameCutter(100_000_000);
  const responses = new FrameCutter(100_000_000);
  const asked = new Map<number, { api: Api; version: number }>();
  client.on('data', (chunk: Buffer) => {
    broker.write(chunk);
    requests.push(chunk);
    for (let frame = requests.next(); frame !== null; frame = requests.next()) {
      const bytes = Buffer.concat(frame);
      const { apiKey, apiVersion: version, correlationId } = decodeRequestHeader(new ByteReader(bytes));
      const api = apiOf(apiKey);
      if (api === undefined || version < api.versions[0] || version > api.versions[1]) continue;
      asked.set(correlationId, { api, version });
      recorder.keep(api, version, 'request', bytes);
    }
  });
  broker.on('data', (chunk: Buffer) => {
    client.write(chunk);
    responses.push(chunk);
    for (let frame = responses.next(); frame !== null; frame = responses.next()) {
      const bytes = Buffer.concat(frame);
      const request = asked.get(bytes.readInt32BE(0));
      if (request !== undefined) recorder.keep(request.api, request.version, 'response', bytes);
    }
  });
  for (const [one, other] of [
    [client, broker],
    [broker, client],
  ] as const) {
    one.on('close', () => other.destroy());
    one.on('error', () => other.destroy());
  }
}

async function useKcat(address: string): Promise<void> {
  const topic = nameOf('kcat');
  const group = topic;
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const args = ['-P', '-b', address, '-t', topic, '-z', codec, '-K', '|', '-H', `source=${headers.source}`];
    await kcat([...args, '-X', 'linger.ms=50'], `${key}|${value}\n${key}|${value}\n`);
  }
  await kcat(['-L', '-b', address]);
  await kcat(['-Q', '-b', address, '-t', `${topic}:0:-1`]);
  await kcat(['-G', group, '-b', address, '-X', 'auto.offset.reset=earliest', '-c', '4', topic]);
}

async function useKafkajs(address: string): Promise<void> {
  const topic = nameOf('kafkajs');
  const group = topic;
  const client = new kafkajs.Kafka({
    brokers: [address],
    clientId: 'golden',
    logLevel: kafkajs.logLevel.NOTHING,
  });
  const producer = client.producer({ idempotent: true });
  await producer.connect();
  for (const compression of [kafkajs.CompressionTypes.None, kafkajs.CompressionTypes.GZIP]) {
    await producer.send({ topic, compression, messages: [{ key, value, headers }] });
  }
  await producer.disconnect();
  const consumer = client.consumer({ groupId: group });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await new Promise<void>((resolve, reject) => {
    let left = 2;
    consumer
      .run({
        // oxlint-disable-next-line typescript/require-await -- kafkajs takes nothing else
        async eachMessage() {
          if (--left === 0) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  const admin = client.admin();
  await admin.connect();
  const other = `${topic}-other`;
  const { TOPIC } = kafkajs.ConfigResourceTypes;
  await admin.createTopics({
    topics: [{ topic: other, numPartitions: 2, configEntries: [{ name: 'retention.ms', value: '60000' }] }],
  });
  await admin.createPartitions({ topicPartitions: [{ topic: other, count: 3 }] });
  await admin.describeConfigs({
    resources: [{ type: TOPIC, name: other, configNames: ['retention.ms'] }],
    includeSynonyms: true,
  });
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ type: TOPIC, name: other, configEntries: [{ name: 'retention.ms', value: '70000' }] }],
  });
  await admin.fetchTopicOffsets(topic);
  await admin.fetchTopicOffsetsByTimestamp(topic, 1_700_000_000_000);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] });
  await admin.fetchOffsets({ groupId: group, topics: [topic] });
  await admin.listGroups();
  await admin.describeGroups([group]);
  await admin.describeCluster();
  await admin.deleteGroups([group]);
  await admin.deleteTopics({ topics: [other] });
  await admin.disconnect();
}

async function usePlatformatic(address: string): Promise<void> {
  const topic = nameOf('platformatic');
  const group = topic;
  const base = { clientId: 'golden', bootstrapBrokers: [address] };
  const admin = new Admin(base);
  await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 });
  const producer = new Producer({ ...base, serializers: stringSerializers, idempotent: true });
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const) {
    await producer.send({ messages: [{ topic, key, value, headers }], compression });
  }
  await producer.close();
  const consumer = new Consumer({ ...base, groupId: group, deserializers: stringDeserializers });
  const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false });
  let left = 3;
  for await (const message of stream) {
    await message.commit();
    if (--left === 0) break;
  }
  await consumer.close(true);
  const other = `${topic}-other`;
  const topicResource = { resourceType: 2, resourceName: other } as const;
  await admin.createTopics({ topics: [other], partitions: 2, replicas: 1 });
  await admin.createPartitions({ topics: [{ name: other, count: 3, assignments: null as never }] });
  await admin.describeConfigs({ resources: [{ ...topicResource, configurationKeys: ['retention.ms'] }] });
  await admin.alterConfigs({
    resources: [{ ...topicResource, configs: [{ name: 'retention.ms', value: '70000' }] }],
  });
  await admin.incrementalAlterConfigs({
    resources: [
      { ...topicResource, configs: [{ name: 'retention.ms', configOperation: 0, value: '80000' }] },
    ],
  });
  await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: -1n }] }] });
  await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 1n }] }] });
  await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] });
  await admin.listConsumerGroupOffsets({ groups: [group] });
  await admin.listGroups();
  await admin.describeGroups({ groups: [group], includeAuthorizedOperations: true });
  await admin.deleteConsumerGroupOffsets({
    groupId: group,
    topics: [{ name: topic, partitionIndexes: [0] }],
  });
  await admin.deleteGroups({ groups: [group] });
  await admin.deleteTopics({ topics: [other] });
  await admin.close();
}

async function useJava(address: string): Promise<void> {
  const topic = nameOf('java');
  const group = topic;
  const tools = 'org.apache.kafka.tools';
  const at = ['--bootstrap-server', address];
  const other = `${topic}-other`;
  const lines = `source:${headers.source}\t${key}\t${value}\n`;
  for (const codec of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    const parsed = ['--reader-property', 'parse.key=true', '--reader-property', 'parse.headers=true'];
    const args = [...at, '--topic', topic, '--compression-codec', codec, ...parsed];
    await kafkaTool(`${tools}.ConsoleProducer`, args, { stdin: lines });
  }
  const read = [...at, '--topic', topic, '--from-beginning', '--max-messages', '3', '--group', group];
  await kafkaTool(`${tools}.consumer.ConsoleConsumer`, read);
  await kafkaTool(`${tools}.TopicCommand`, [...at, '--create', '--topic', other, '--partitions', '2']);
  await kafkaTool(`${tools}.TopicCommand`, [...at, '--alter', '--topic', other, '--partitions', '3']);
  const configured = ['--entity-type', 'topics', '--entity-name', other];
  const config = ['--alter', '--add-config', 'retention.ms=70000'];
  await kafkaTool('kafka.admin.ConfigCommand', [...at, ...configured, ...config]);
  await kafkaTool('kafka.admin.ConfigCommand', [...at, ...configured, '--describe']);
  await kafkaTool(`${tools}.GetOffsetShell`, [...at, '--topic', topic]);
  await kafkaTool(`${tools}.LogDirsCommand`, [...at, '--describe', '--topic-list', topic]);
  const producers = ['describe-producers', '--topic', topic, '--partition', '0'];
  await kafkaTool(`${tools}.TransactionsCommand`, [...at, ...producers]);
  const groups = `${tools}.consumer.group.ConsumerGroupCommand`;
  await kafkaTool(groups, [...at, '--list', '--state']);
  await kafkaTool(groups, [...at, '--describe', '--group', group]);
  await kafkaTool(groups, [...at, '--delete-offsets', '--group', group, '--topic', topic]);
  await kafkaTool(groups, [...at, '--delete', '--group', group]);
  await kafkaTool(`${tools}.TopicCommand`, [...at, '--delete', '--topic', other]);
}

/** A client that hangs must not keep a broker running. */
const clientMs = 60_000;

function within<T>(milliseconds: number, who: string, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`${who} was not done after ${milliseconds} ms`)),
      milliseconds,
    );
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

async function main(): Promise<void> {
  const recorder = new Recorder();
  let broker: { host: string; port: number } | null = null;
  const proxy = createServer((client) => {
    if (broker === null) client.destroy();
    else relay(client, connect(broker), recorder);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const kafka = await startKafka({ settings: { 'advertised.listeners': `PLAINTEXT://${address}` } });
  const [host, port] = kafka.address.split(':') as [string, string];
  broker = { host, port: Number(port) };
  const clients: [string, (address: string) => Promise<unknown>][] = [
    ['kcat', useKcat],
    ['kafkajs', useKafkajs],
    ['platformatic', usePlatformatic],
    ['java', useJava],
  ];
  const [name, program] = process.argv.slice(2);
  if (name !== undefined && program !== undefined) {
    clients.push([name, () => output('sh', ['-c', program], { environment: { BROKER: address } })]);
  }
  try {
    for (const [client, use] of clients) {
      recorder.client = client;
      console.log(client);
      await within(clientMs, client, use(address));
    }
    recorder.write();
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  } finally {
    await kafka.stop();
    proxy.close();
  }
}

await main();
process.exit();
