import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join as joinPath } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { joinWithKcat, kcat, kcatRecords, type KcatMember } from '../support/kcat.ts';
import { requirePeer, sidecar } from '../support/peers.ts';
import { batchesOnDisk, recordsOnDisk } from '../support/segments.ts';

requirePeer('kcat');
const broker = sidecar({ settings: { 'num.partitions': 4 } });

const within = { timeout: 30_000, interval: 50 };

/** Long enough that every codec makes them smaller: librdkafka sends what it cannot shrink as it is. */
const lines = (count: number, word = 'swallow'): string[] =>
  Array.from({ length: count }, (_, i) => `${word} ${i} `.padEnd(200, word));
const text = (values: readonly string[]): string => values.map((value) => `${value}\n`).join('');

test('a topic is there, with its partitions, as soon as kcat asks for it', async () => {
  const printed = await kcat(['-L', '-b', broker.address, '-t', 'asked-for']);
  expect(printed).toContain('topic "asked-for" with 4 partitions');
  expect(printed).not.toContain('Leader not available');
});

test('brokers are named by an address, so that no client tries IPv6 first', async () => {
  expect(await kcat(['-L', '-b', broker.address])).toContain(`broker 1 at ${broker.address}`);
});

describe.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'])('with %s', (codec) => {
  test('what kcat produces lies on disk in its codec, and kcat and our reader get it back', async () => {
    const topic = `codec-${codec}`;
    const values = lines(500);
    await kcat(['-P', '-b', broker.address, '-t', topic, '-p', '0', '-z', codec], text(values));

    const batches = await batchesOnDisk(broker.process.dataDir, topic);
    expect(new Set(batches.map((batch) => batch.codec))).toEqual(new Set([codec]));
    const stored = await recordsOnDisk(broker.process.dataDir, topic);
    expect(stored.map(({ value }) => value!.toString())).toEqual(values);

    const records = await kcatRecords(broker.address, topic);
    expect(records.map(({ payload }) => payload)).toEqual(values);
    expect(records.map(({ offset }) => offset)).toEqual(values.map((_, i) => i));
  });
});

test.each([
  ['0', 'acks-0'],
  ['1', 'acks-1'],
  ['all', 'acks-all'],
])('kcat produces with acks=%s', async (acks, topic) => {
  await kcat(['-P', '-b', broker.address, '-t', topic, '-X', `acks=${acks}`], text(['a', 'b', 'c']));
  // With acks=0 kcat may be gone before the broker has read its records.
  await vi.waitFor(async () => {
    const records = await kcatRecords(broker.address, topic);
    expect(records.map(({ payload }) => payload).sort()).toEqual(['a', 'b', 'c']);
  }, within);
});

test('an idempotent kcat gets its producer id and produces', async () => {
  const values = lines(50);
  const args = ['-P', '-b', broker.address, '-t', 'idempotent', '-p', '1'];
  await kcat([...args, '-X', 'enable.idempotence=true'], text(values));
  const batches = await batchesOnDisk(broker.process.dataDir, 'idempotent', 1);
  expect(batches.every(({ producerId }) => producerId >= 0)).toBe(true);
  expect((await kcatRecords(broker.address, 'idempotent')).length).toBe(50);
});

test('keys, headers and null values come back as they were', async () => {
  const args = ['-P', '-b', broker.address, '-t', 'whole', '-p', '2', '-K', ':', '-Z'];
  await kcat([...args, '-H', 'origin=ORD', '-H', 'empty='], 'k1:v1\nk2:\n:v3\n');
  const records = await kcatRecords(broker.address, 'whole');
  expect(records.map(({ key, payload }) => [key, payload])).toEqual([
    ['k1', 'v1'],
    ['k2', null],
    [null, 'v3'],
  ]);
  for (const { headers } of records) expect(headers).toEqual(['origin', 'ORD', 'empty', '']);
  for (const { partition } of records) expect(partition).toBe(2);
});

test('a record of the largest size that is allowed goes through, a larger one is refused to kcat', async () => {
  const args = ['-P', '-b', broker.address, '-t', 'large', '-X', 'message.max.bytes=4000000'];
  await kcat(args, 'x'.repeat(1_000_000));
  expect((await kcatRecords(broker.address, 'large'))[0]!.payload!.length).toBe(1_000_000);
  await expect(kcat(args, 'x'.repeat(2_000_000))).rejects.toThrow(/Message size too large/);
});

describe('where reading begins', () => {
  const partition = ['-p', '0'];
  // kcat reads its input faster than it lingers only on a quiet machine: told to wait, it makes one batch of it.
  const oneBatch = ['-X', 'linger.ms=2000'];
  const produceAt = (topic: string, values: string[]): Promise<string> =>
    kcat(['-P', '-b', broker.address, '-t', topic, ...partition, ...oneBatch], text(values));
  const read = async (topic: string, from: string): Promise<(string | null)[]> =>
    (await kcatRecords(broker.address, topic, [...partition, '-o', from])).map(({ payload }) => payload);

  test('at an offset, also in the middle of a batch', async () => {
    const values = lines(100);
    await produceAt('middle', values);
    const [first] = await batchesOnDisk(broker.process.dataDir, 'middle');
    expect(first!.recordCount).toBe(values.length);
    for (const offset of [1, 50, 99]) expect(await read('middle', `${offset}`)).toEqual(values.slice(offset));
  });

  test('so many records before the end', async () => {
    const values = lines(10);
    await produceAt('tail', values);
    expect(await read('tail', '-3')).toEqual(values.slice(-3));
  });

  test('at a time', async () => {
    await produceAt('timed', ['a', 'b']);
    // Past the millisecond of the first two, by the broker's own record of it.
    const before = (await kcatRecords(broker.address, 'timed', partition)).at(-1)!.ts;
    await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(before + 1), within);
    await produceAt('timed', ['c', 'd']);
    const records = await kcatRecords(broker.address, 'timed', partition);
    const time = records[2]!.ts;
    expect(await read('timed', `s@${time}`)).toEqual(['c', 'd']);
    expect(await kcat(['-Q', '-b', broker.address, '-t', `timed:0:${time}`])).toContain('offset 2');
    expect(await kcat(['-Q', '-b', broker.address, '-t', `timed:0:${time + 3_600_000}`])).toContain(
      'offset -1',
    );
  });
});

describe('as members of a group', () => {
  const members: KcatMember[] = [];
  const join = (...args: Parameters<typeof joinWithKcat>): KcatMember => {
    const member = joinWithKcat(...args);
    members.push(member);
    return member;
  };
  afterEach(async () => {
    await Promise.all(members.splice(0).map((member) => member.stop()));
  });
  const earliest = ['-X', 'auto.offset.reset=earliest', '-X', 'auto.commit.interval.ms=200'];

  test('two split the partitions, and when one leaves the other goes on without a loss', async () => {
    const produce = (word: string): Promise<string> =>
      kcat(
        ['-P', '-b', broker.address, '-t', 'shared', '-K', ':'],
        text(lines(200, word).map((line, i) => `${i}:${line}`)),
      );
    await produce('first');
    const stays = join(broker.address, 'pair', 'shared', earliest);
    await vi.waitFor(() => expect(stays.partitions()).toEqual([0, 1, 2, 3]), within);
    const leaves = join(broker.address, 'pair', 'shared', earliest);
    await vi.waitFor(() => {
      expect(stays.partitions()).toHaveLength(2);
      expect(leaves.partitions()).toHaveLength(2);
    }, within);
    expect([...stays.partitions(), ...leaves.partitions()].sort()).toEqual([0, 1, 2, 3]);

    await produce('second');
    await vi.waitFor(() => expect(stays.records().length + leaves.records().length).toBe(400), within);
    await leaves.stop();
    await vi.waitFor(() => expect(stays.partitions()).toEqual([0, 1, 2, 3]), within);
    await produce('third');
    await vi.waitFor(() => expect(stays.records().length + leaves.records().length).toBe(600), within);
    const seen = [...stays.records(), ...leaves.records()].map(
      ({ partition, offset }) => `${partition}@${offset}`,
    );
    expect(new Set(seen).size).toBe(600);
  });

  test('a group goes on where it was after the broker has restarted', async () => {
    const dataDir = await mkdtemp(joinPath(tmpdir(), 'rookery-kcat-'));
    try {
      const before = await startSidecar({ dataDir });
      const listen = before.kafka;
      const values = lines(20);
      await kcat(['-P', '-b', listen, '-t', 'kept'], text(values));
      const first = join(listen, 'keeper', 'kept', earliest);
      await vi.waitFor(() => expect(first.records().length).toBe(20), within);
      await first.stop();
      await before.stop();

      const after = await startSidecar({ dataDir, listen });
      try {
        await kcat(['-P', '-b', listen, '-t', 'kept'], text(['after']));
        const second = join(listen, 'keeper', 'kept', earliest);
        await vi.waitFor(
          () => expect(second.records().map(({ payload }) => payload)).toEqual(['after']),
          within,
        );
        const all = await kcatRecords(listen, 'kept');
        expect(all.map(({ payload }) => payload)).toEqual([...values, 'after']);
      } finally {
        await after.stop();
      }
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  });
});
