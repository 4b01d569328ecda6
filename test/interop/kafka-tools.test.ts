import { existsSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { describe, expect, test } from 'vitest';
import { kafkaTool } from '../support/kafka-process.ts';
import { requirePeer, sidecar } from '../support/peers.ts';
import { batchesOnDisk, segmentFiles } from '../support/segments.ts';

// Kafka's own command-line tools. Behind them are the Java clients, which speak the newest version of everything.

requirePeer('kafka');
const broker = sidecar({ settings: { 'num.partitions': 2, 'log.segment.bytes': 1_048_576 } });

const tools = 'org.apache.kafka.tools';
const tool = (name: string, args: readonly string[], stdin = ''): Promise<string> =>
  kafkaTool(`${tools}.${name}`, ['--bootstrap-server', broker.address, ...args], { stdin });

describe.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'])('with %s', (codec) => {
  test('the console producer and consumer pass keys, headers and null values', async () => {
    const topic = `console-${codec}`;
    const filler = 'starling '.repeat(50);
    await tool(
      'ConsoleProducer',
      [
        ...['--topic', topic, '--compression-codec', codec],
        ...['--reader-property', 'parse.key=true', '--reader-property', 'parse.headers=true'],
        ...['--reader-property', 'null.marker=NULL'],
      ],
      `a:1,b:2\tk\t${filler}\na:3\tk\tNULL\n`,
    );
    const printed = await tool('consumer.ConsoleConsumer', [
      ...['--topic', topic, '--from-beginning', '--max-messages', '2', '--group', `readers-${codec}`],
      ...['print.key', 'print.headers', 'print.offset'].flatMap((name) => [
        '--formatter-property',
        `${name}=true`,
      ]),
    ]);
    expect(printed).toContain(`Offset:0\ta:1,b:2\tk\t${filler}\n`);
    expect(printed).toContain('Offset:1\ta:3\tk\tnull\n');

    const partitions = await Promise.all([0, 1].map((i) => batchesOnDisk(broker.process.dataDir, topic, i)));
    expect(new Set(partitions.flat().map((batch) => batch.codec))).toEqual(new Set([codec]));
  });
});

test('its performance tools write and read through several segments, and its dump tool accepts every file', async () => {
  const records = 30_000;
  const produced = await tool('ProducerPerformance', [
    ...['--topic', 'perf', '--num-records', `${records}`, '--record-size', '200', '--throughput', '-1'],
    ...['--command-property', 'acks=all'],
  ]);
  expect(produced).toContain(`${records} records sent`);
  const consumed = await tool('ConsumerPerformance', ['--topic', 'perf', '--num-records', `${records}`]);
  // Its fifth column is how many records it has read.
  expect(Number(consumed.trim().split('\n').at(-1)!.split(',')[4])).toBe(records);

  const { dataDir } = broker.process;
  const segments = (await Promise.all([0, 1].map((i) => segmentFiles(dataDir, 'perf', i)))).flat();
  expect(segments.length).toBeGreaterThan(4);
  const dumped = await dump(segments, ['--deep-iteration']);
  // `| offset` begins the line of a record, `baseOffset` that of a batch.
  expect(dumped.match(/^\| offset: /gm)).toHaveLength(records);
  const batches = dumped.match(/^baseOffset: .*$/gm)!;
  expect(batches.filter((line) => !line.endsWith('isvalid: true'))).toEqual([]);

  // The index of an active segment is not there before it has an entry.
  const indexes = segments
    .flatMap((log) => ['index', 'timeindex'].map((kind) => log.replace(/log$/, kind)))
    .filter((index) => existsSync(index));
  expect(indexes.length).toBeGreaterThanOrEqual(2 * (segments.length - 2));
  const checked = await dump(indexes, ['--index-sanity-check']);
  expect(checked.match(/passed sanity check/g)).toHaveLength(indexes.length);
  const verified = await dump(indexes, ['--verify-index-only']);
  expect(verified).not.toMatch(/Found|[Mm]ismatch|out of order/);
});

test('offsets can be asked for by position and by time', async () => {
  await tool('ConsoleProducer', ['--topic', 'asked'], 'a\nb\nc\n');
  const ends = (await tool('GetOffsetShell', ['--topic', 'asked'])).trim().split('\n');
  expect(ends.reduce((sum, line) => sum + Number(line.split(':')[2]), 0)).toBe(3);
  expect(await tool('GetOffsetShell', ['--topic', 'asked', '--time', 'earliest'])).toBe(
    'asked:0:0\nasked:1:0\n',
  );
  const future = await tool('GetOffsetShell', ['--topic', 'asked', '--time', `${Date.now() + 3_600_000}`]);
  expect(future.trim()).not.toMatch(/asked:\d:[0-9]/);
});

test('topics are created, described, listed and deleted', async () => {
  const topics = (...args: string[]): Promise<string> => tool('TopicCommand', args);
  await topics('--create', '--topic', 'made', '--partitions', '3', '--config', 'retention.ms=1000');
  const described = await topics('--describe', '--topic', 'made');
  expect(described).toMatch(/PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention\.ms=1000/);
  expect(described).toMatch(/Partition: 2\s+Leader: 1\s+Replicas: 1\s+Isr: 1/);
  expect((await topics('--list')).split('\n')).toContain('made');
  await topics('--delete', '--topic', 'made');
  expect((await topics('--list')).split('\n')).not.toContain('made');
});

test('settings of topics and of the broker are all described', async () => {
  const describeConfigs = (type: string, name: string): Promise<string> =>
    kafkaTool('kafka.admin.ConfigCommand', [
      ...['--bootstrap-server', broker.address, '--describe', '--all'],
      ...['--entity-type', type, '--entity-name', name],
    ]);
  await tool('TopicCommand', ['--create', '--topic', 'set', '--config', 'cleanup.policy=compact']);
  const topic = await describeConfigs('topics', 'set');
  expect(topic).toContain('cleanup.policy=compact sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:');
  expect(topic).toContain('segment.bytes=1048576 sensitive=false synonyms={STATIC_BROKER_CONFIG:');
  expect(topic).toMatch(/retention\.ms=604800000 /);
  const own = await describeConfigs('brokers', '1');
  expect(own).toMatch(/num\.partitions=2 .*STATIC_BROKER_CONFIG/);
});

test('what a group commits reads, in the dump tool, as its own group records', async () => {
  const own = await startSidecar();
  try {
    const at = ['--bootstrap-server', own.kafka, '--topic', 'seen'];
    await kafkaTool(`${tools}.ConsoleProducer`, at, { stdin: 'one\ntwo\n' });
    const reading = [...at, '--from-beginning', '--max-messages', '2', '--group', 'readers'];
    await kafkaTool(`${tools}.consumer.ConsoleConsumer`, reading);
    const logs: string[] = [];
    for (const name of await readdir(own.dataDir)) {
      const log = join(own.dataDir, name, '00000000000000000000.log');
      if (name.startsWith('__consumer_offsets-') && (await stat(log)).size > 0) logs.push(log);
    }
    const dumped = await dump(logs, ['--offsets-decoder']);
    expect(dumped).toContain('key: {"type":"2","data":{"group":"readers"}}');
    expect(dumped).toContain('key: {"type":"1","data":{"group":"readers","topic":"seen","partition":0}}');
    expect(dumped).toMatch(/"offset":2,"leaderEpoch":0/);
    expect(dumped).toMatch(/"protocolType":"consumer".*"topics":\["seen"\].*"partitions":\[0\]/);
  } finally {
    await own.stop();
  }
});

const dump = (files: readonly string[], args: readonly string[]): Promise<string> =>
  kafkaTool(`${tools}.DumpLogSegments`, ['--files', files.join(','), ...args]);
