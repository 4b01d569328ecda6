import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from '@rookery/client';
import { startSidecar } from '@rookery/testing';
import { Kafka, logLevel, Partitioners } from 'kafkajs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { kafkaTool, startKafka } from '../support/kafka-process.ts';
import { kcat } from '../support/kcat.ts';
import { requirePeer } from '../support/peers.ts';

// A partition that one broker has written is read by the other, record for record, and Kafka's dump tool accepts
// every file of it.

requirePeer('kafka', 'kcat');

const seed = Number(process.env['SEED'] ?? 1 + Math.floor(Math.random() * 1e9));
console.log(`seed ${seed}`);

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'rookery-format-'));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const small = { 'internal.segment.bytes': '20000', 'index.interval.bytes': '500' };
const topics: Readonly<Record<string, Record<string, string>>> = {
  kept: small,
  'to-gzip': { ...small, 'compression.type': 'gzip' },
  'to-snappy': { ...small, 'compression.type': 'snappy' },
  'to-lz4': { ...small, 'compression.type': 'lz4' },
  'to-zstd': { ...small, 'compression.type': 'zstd' },
  'to-none': { ...small, 'compression.type': 'uncompressed' },
  latest: { ...small, 'cleanup.policy': 'compact', 'min.cleanable.dirty.ratio': '0.01' },
  recent: { ...small, 'retention.bytes': '60000', 'file.delete.delay.ms': '0' },
};
const settings = { 'log.cleaner.backoff.ms': 200, 'log.retention.check.interval.ms': 200 };

function numbersFrom(start: number): (below: number) => number {
  let state = start >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Several idempotent producers, one a codec, each sending batches of random size to every topic. */
async function produceAtRandom(broker: string): Promise<void> {
  const random = numbersFrom(seed);
  const client = new Client({ brokers: [broker] });
  await client
    .admin()
    .createTopics(Object.entries(topics).map(([name, configs]) => ({ name, partitions: 1, configs })));
  const codecs = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
  const producers = codecs.map((codec) => client.producer({ codec }));
  for (let round = 0; round < 40; round++) {
    const producer = producers[random(producers.length)]!;
    const sent = Object.keys(topics).flatMap((topic) =>
      Array.from({ length: 1 + random(20) }, () => {
        const value =
          random(20) === 0
            ? null
            : Buffer.from(Array.from({ length: 1 + random(60) }, () => random(1e9)).join());
        return producer.send(topic, { key: Buffer.from(`${random(30)}`), value, partition: 0 });
      }),
    );
    await Promise.all(sent);
  }
  await client.close();
}

const filesOf = async (dataDir: string, topic: string): Promise<string[]> =>
  (await readdir(join(dataDir, `${topic}-0`))).map((name) => join(dataDir, `${topic}-0`, name));

const read = (broker: string, topic: string): Promise<string> =>
  kcat([
    ...['-C', '-b', broker, '-t', topic, '-p', '0', '-o', 'beginning', '-e', '-q'],
    ...['-X', 'isolation.level=read_committed', '-X', 'check.crcs=true', '-f', '%o %T %k %S %s\\n'],
  ]);

const readAll = async (broker: string, names: readonly string[]): Promise<Record<string, string>> =>
  Object.fromEntries(await Promise.all(names.map(async (name) => [name, await read(broker, name)] as const)));

/** Puts a partition's files under the topic that another broker has made, and keeps that topic's id. */
async function swapIn(from: string, to: string, topic: string): Promise<void> {
  for (const file of await filesOf(to, topic)) if (!file.endsWith('partition.metadata')) await rm(file);
  await cp(join(from, `${topic}-0`), join(to, `${topic}-0`), {
    recursive: true,
    filter: (file) => !file.endsWith('partition.metadata'),
  });
}

async function accepted(dataDir: string, topic: string): Promise<void> {
  const dump = (files: readonly string[], ...args: string[]): Promise<string> =>
    kafkaTool('org.apache.kafka.tools.DumpLogSegments', ['--files', files.join(','), ...args]);
  const files = await filesOf(dataDir, topic);
  const of = (suffix: string): string[] => files.filter((file) => file.endsWith(suffix));
  const logs = await dump(of('.log'), '--deep-iteration', '--skip-record-metadata');
  const batches = logs.match(/^baseOffset: .*$/gm)!;
  expect(batches.filter((line) => !line.endsWith('isvalid: true'))).toEqual([]);
  const indexes = [...of('.index'), ...of('.timeindex')];
  const checked = await dump(indexes, '--index-sanity-check');
  // Of an offset index without entries it says no more than that.
  expect(checked.match(/passed sanity check|is empty/g), checked).toHaveLength(indexes.length);
  expect(await dump(indexes, '--verify-index-only')).not.toMatch(/Found|[Mm]ismatch|out of order/);
  const rest = [...of('.snapshot'), ...of('.txnindex')];
  if (rest.length > 0) expect(await dump(rest)).not.toMatch(/Exception|corrupt/i);
}

test(
  'what the sidecar has written, compacted and retained, Kafka accepts and serves',
  { timeout: 300_000 },
  async () => {
    const ours = await startSidecar({ dataDir: join(dir, 'ours'), settings });
    await produceAtRandom(ours.kafka);
    const segmentsOf = async (topic: string): Promise<number> =>
      (await filesOf(ours.dataDir, topic)).filter((file) => file.endsWith('.log')).length;
    await expect
      .poll(() => segmentsOf('recent'), { timeout: 20_000 })
      .toBeLessThan(await segmentsOf('to-none'));
    // Thirty keys are left of some hundred records, once the cleaner has been there.
    const linesOf = async (topic: string): Promise<number> =>
      (await read(ours.kafka, topic)).split('\n').length;
    await expect.poll(() => linesOf('latest'), { timeout: 20_000 }).toBeLessThan(200);
    for (const topic of ['kept', 'to-gzip', 'to-zstd']) expect(await segmentsOf(topic)).toBeGreaterThan(1);
    await ours.stop();
    const again = await startSidecar({ dataDir: ours.dataDir, settings: { 'log.cleaner.enable': false } });
    const names = Object.keys(topics);
    const told = await readAll(again.kafka, names);
    await again.stop();
    for (const topic of names) await accepted(ours.dataDir, topic);

    const home = { dir: join(dir, 'kafka'), settings: { 'log.cleaner.enable': false } };
    const made = await startKafka(home);
    const client = new Client({ brokers: [made.address] });
    await client.admin().createTopics(names.map((name) => ({ name, partitions: 1, configs: topics[name]! })));
    await client.close();
    await made.stop();
    for (const topic of names) await swapIn(ours.dataDir, made.dataDir, topic);
    const before = await describedSnapshot(made.dataDir, 'kept');
    const kafka = await startKafka(home);
    expect(await readAll(kafka.address, names)).toEqual(told);
    // One more record, so that Kafka writes down what it has read from our files.
    await kcat(['-P', '-b', kafka.address, '-t', 'kept', '-p', '0'], 'more\n');
    await kafka.stop();
    expect(await describedSnapshot(made.dataDir, 'kept')).toEqual(before);
    // It has begun epochs of its own behind those that it found.
    for (const topic of names)
      expect(await epochsOf(made.dataDir, topic)).toEqual(
        expect.arrayContaining(await epochsOf(ours.dataDir, topic)),
      );
  },
);

async function epochsOf(dataDir: string, topic: string): Promise<string[]> {
  const text = await readFile(join(dataDir, `${topic}-0`, 'leader-epoch-checkpoint'), 'utf8');
  return text.trimEnd().split('\n').slice(2);
}

/** What Kafka's dump tool says of the producers in the newest snapshot of a partition. */
async function describedSnapshot(dataDir: string, topic: string): Promise<string[]> {
  const snapshots = (await filesOf(dataDir, topic)).filter((file) => file.endsWith('.snapshot')).sort();
  const said = await kafkaTool('org.apache.kafka.tools.DumpLogSegments', ['--files', snapshots.at(-1)!]);
  const lines = said.match(/^producerId: .*$/gm) ?? [];
  expect(lines.length, said).toBeGreaterThan(0);
  return lines.sort();
}

test('what Kafka has written, transactions and all, is read here', { timeout: 300_000 }, async () => {
  const home = {
    dir: join(dir, 'kafka'),
    settings: { ...settings, 'transaction.state.log.num.partitions': 1 },
  };
  const kafka = await startKafka(home);
  await produceAtRandom(kafka.address);
  const kafkajs = new Kafka({ brokers: [kafka.address], logLevel: logLevel.NOTHING });
  const producer = kafkajs.producer({
    ...{ transactionalId: 'tx', idempotent: true, maxInFlightRequests: 1 },
    createPartitioner: Partitioners.DefaultPartitioner,
  });
  await producer.connect();
  for (let i = 0; i < 30; i++) {
    const transaction = await producer.transaction();
    const messages = [{ partition: 0, key: `${i}`, value: `${i} `.repeat(300) }];
    for (const topic of ['kept', 'latest']) await transaction.send({ topic, messages });
    await (i % 3 === 1 ? transaction.abort() : transaction.commit());
  }
  await producer.disconnect();
  await kafka.stop();
  const again = await startKafka({ ...home, settings: { 'log.cleaner.enable': false } });
  const names = Object.keys(topics);
  const told = await readAll(again.address, names);
  await again.stop();
  expect(told['kept']).toMatch(/ 29 29 /);
  expect(told['kept']).not.toMatch(/ 28 28 /);

  const dataDir = join(dir, 'ours');
  const made = await startSidecar({ dataDir });
  const client = new Client({ brokers: [made.kafka] });
  await client.admin().createTopics(names.map((name) => ({ name, partitions: 1, configs: topics[name]! })));
  await client.close();
  await made.stop();
  for (const topic of names) await swapIn(again.dataDir, dataDir, topic);
  const ours = await startSidecar({ dataDir, settings: { 'log.cleaner.enable': false } });
  expect(await readAll(ours.kafka, names)).toEqual(told);
  await ours.stop();

  // Compacted here, with the aborted transactions in it, Kafka still accepts it, and its readers see the same.
  const cleaning = await startSidecar({ dataDir, settings });
  const compactedTo = (): Promise<string> => readFile(join(dataDir, 'cleaner-offset-checkpoint'), 'utf8');
  await expect.poll(compactedTo, { timeout: 60_000 }).toMatch(/^latest 0 [1-9]/m);
  await cleaning.stop();
  expect((await filesOf(dataDir, 'latest')).filter((file) => file.endsWith('.txnindex'))).not.toEqual([]);
  await accepted(dataDir, 'latest');
  await swapIn(dataDir, again.dataDir, 'latest');
  const back = await startKafka({ ...home, settings: { 'log.cleaner.enable': false } });
  const asSeenThere = await read(back.address, 'latest');
  await back.stop();
  const kept = await startSidecar({ dataDir, settings: { 'log.cleaner.enable': false } });
  expect(asSeenThere).toBe(await read(kept.kafka, 'latest'));
  await kept.stop();
});
