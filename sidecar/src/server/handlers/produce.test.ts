import {
  crc32c,
  createTopics,
  decodeRecords,
  encodeBatch,
  errorName,
  fetch,
  incrementalAlterConfigs,
  produce,
  recompressBatch,
  RecordBatch,
  zeroUuid,
  type CompressionCodec,
} from '@rookery/wire';
import { afterEach, describe, expect, test } from 'vitest';
import { BrokerInMemory } from '../../broker-in-memory.ts';
import { systemClock } from '../../clock.ts';
import { PreparationThreads } from '../../log/preparation-thread.ts';
import { prepare, type Prepare } from '../../log/preparation.ts';
import type { RawConnection } from '../raw-connection.ts';

// Topics that want their records in another codec, or looked at. What a header tells is in produce-and-fetch.test.ts.

const threads = new PreparationThreads(systemClock, 2);
let under: BrokerInMemory;
let client: RawConnection;

async function start(preparing: Prepare = threads.prepare): Promise<void> {
  under = await BrokerInMemory.startPreparing(preparing, 'num.partitions=2');
  client = await under.connect();
}

afterEach(async () => {
  await under.stop();
  threads.close();
  expect(under.failures).toEqual([]);
});

const now = Date.now();
const values = (from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, i) => `${from + i}`);
const batch = (of: readonly string[], codec: CompressionCodec = 'none', key: string | null = 'k'): Buffer =>
  encodeBatch(
    of.map((value) => ({
      key: key === null ? null : Buffer.from(key),
      value: Buffer.from(value),
      timestamp: now,
    })),
    { codec },
  );

async function createTopic(name: string, configs: Record<string, string>): Promise<void> {
  const { topics } = await client.request(createTopics, 7, {
    topics: [
      {
        name,
        numPartitions: -1,
        replicationFactor: -1,
        assignments: [],
        configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })),
      },
    ],
    timeoutMs: 1_000,
    validateOnly: false,
  });
  expect(errorName(topics[0]!.errorCode)).toBe('NONE');
}

interface Part {
  readonly topic?: string;
  readonly partition?: number;
  readonly records: Buffer;
}

const requestOf = (parts: readonly Part[], acks: number, timeoutMs: number) => ({
  transactionalId: null,
  acks,
  timeoutMs,
  topicData: parts.map(({ topic = 't', partition = 0, records }) => ({
    name: topic,
    topicId: zeroUuid,
    partitionData: [{ index: partition, records: [records] }],
  })),
});

async function send(parts: readonly Part[], acks = -1, timeoutMs = 10_000, by: RawConnection = client) {
  const { responses } = await by.request(produce, 9, requestOf(parts, acks, timeoutMs));
  return responses.map(({ partitionResponses: [answer] }) => ({
    ...answer!,
    error: errorName(answer!.errorCode),
  }));
}

const outcome = async (records: Buffer): Promise<string> => (await send([{ records }]))[0]!.error;

async function read(topic = 't', partition = 0, by: RawConnection = client): Promise<RecordBatch[]> {
  const { responses } = await by.request(fetch, 12, {
    maxWaitMs: 0,
    minBytes: 1,
    maxBytes: 10_000_000,
    isolationLevel: 0,
    sessionId: 0,
    sessionEpoch: -1,
    topics: [
      {
        topic,
        topicId: zeroUuid,
        partitions: [{ partition, fetchOffset: 0, partitionMaxBytes: 10_000_000 }],
      },
    ],
    forgottenTopicsData: [],
    rackId: '',
  });
  return RecordBatch.split(responses![0]!.partitions[0]!.records ?? []);
}

const valuesIn = (batches: readonly RecordBatch[]): string[] =>
  batches.flatMap((each) => decodeRecords(each).map(({ value }) => String(value)));

/** Changed behind its producer's back, with a right CRC. */
function changed(bytes: Buffer, change: (bytes: Buffer) => void): Buffer {
  change(bytes);
  bytes.writeUInt32BE(crc32c([bytes.subarray(21)]), 17);
  return bytes;
}

describe('a topic with a codec of its own', () => {
  test.each([
    ['uncompressed', 'none'],
    ['gzip', 'gzip'],
    ['snappy', 'snappy'],
    ['lz4', 'lz4'],
    ['zstd', 'zstd'],
  ])('%s: whatever comes, in whichever way, is stored in it and in order', async (type, codec) => {
    await start();
    await createTopic('t', { 'compression.type': type });
    const codecs = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const;
    const records = (i: number): Buffer => batch(values(i * 10, i * 10 + 10), codecs[i % 5]);
    // Nobody answers acks=0, so these have a connection and a partition of their own.
    const unanswered = await under.connect();
    for (let i = 0; i < 20; i++) {
      const request = requestOf([{ partition: 1, records: records(i) }], 0, 1);
      void unanswered.request(produce, 9, request).catch(() => {});
    }
    const answers = Array.from({ length: 20 }, (_, i) =>
      send([{ records: records(i) }], i % 2 === 0 ? 1 : -1),
    );
    const told = (await Promise.all(answers)).flat();
    expect(told.map(({ error }) => error)).toEqual(told.map(() => 'NONE'));
    expect(told.map(({ baseOffset }) => baseOffset)).toEqual(told.map((_, i) => i * 10));
    await expect.poll(async () => (await read('t', 1)).length).toBe(20);
    for (const partition of [0, 1]) {
      const batches = await read('t', partition);
      expect(new Set(batches.map((each) => each.codec))).toEqual(new Set([codec]));
      expect(valuesIn(batches)).toEqual(values(0, 200));
    }
  });

  test('what cannot be had out of a batch is its partition’s trouble alone', async () => {
    await start();
    await createTopic('t', { 'compression.type': 'gzip' });
    const broken = changed(batch(['x'.repeat(1_000)], 'zstd'), (bytes) => bytes.fill(0, 70, 80));
    const answers = await send([
      { partition: 0, records: broken },
      { partition: 1, records: batch(['good']) },
    ]);
    expect(answers.map(({ error }) => error)).toEqual(['INVALID_RECORD', 'NONE']);
    expect(await outcome(batch(['next']))).toBe('NONE');
    expect(valuesIn(await read())).toEqual(['next']);
  });

  test('every kind of bad record has its error, and nothing of it is appended', async () => {
    await start();
    await createTopic('t', { 'compression.type': 'uncompressed', 'max.message.bytes': '10000' });
    const plain = (change: (bytes: Buffer) => void): Buffer => changed(batch(['a', 'b']), change);
    const gzipped = (bytes: Buffer): Buffer => recompressBatch(RecordBatch.split([bytes])[0]!, 'gzip');
    const cases: [string, Buffer, string][] = [
      ['a bomb', batch(['x'.repeat(5_000_000)], 'zstd'), 'MESSAGE_TOO_LARGE'],
      ['too large once it is decompressed', batch(['x'.repeat(10_000 - 30)], 'zstd'), 'MESSAGE_TOO_LARGE'],
      [
        'fewer records than the header says',
        gzipped(plain((bytes) => (bytes.writeInt32BE(3, 57), bytes.writeInt32BE(2, 23)))),
        'INVALID_RECORD',
      ],
      [
        'more records than the header says',
        gzipped(plain((bytes) => (bytes.writeInt32BE(1, 57), bytes.writeInt32BE(0, 23)))),
        'INVALID_RECORD',
      ],
      ['deltas out of order', gzipped(plain((bytes) => bytes.writeInt8(2, 64))), 'INVALID_RECORD'],
      ['a record longer than it is', gzipped(plain((bytes) => bytes.writeInt8(60, 61))), 'INVALID_RECORD'],
    ];
    for (const [what, records, expected] of cases) expect(await outcome(records), what).toBe(expected);
    expect(await read()).toEqual([]);
    expect(await outcome(batch(['x'.repeat(5_000)], 'zstd'))).toBe('NONE');
  });

  test('acks=0 closes the connection when the batch turns out to be none', async () => {
    await start();
    await createTopic('t', { 'compression.type': 'gzip' });
    const broken = changed(batch(['x'.repeat(1_000)], 'zstd'), (bytes) => bytes.fill(0, 70, 80));
    // The second part is refused at once, while the first one is still looked into.
    const parts = [{ records: broken }, { topic: 'none', records: batch(['x']) }];
    for (const sent of [parts, parts.slice(0, 1)]) {
      const own = await under.connect();
      void own.request(produce, 9, requestOf(sent, 0, 1)).catch(() => {});
      await own.closed;
    }
    expect(await outcome(batch(['next']))).toBe('NONE');
  });

  test('a change of the setting holds from one batch to the next', async () => {
    await start();
    await createTopic('t', { 'compression.type': 'gzip' });
    const answers: Promise<string>[] = [];
    for (let i = 0; i < 40; i++) {
      answers.push(outcome(batch([`${i}`], 'lz4')));
      if (i % 10 !== 5) continue;
      const value = ['zstd', 'producer', 'uncompressed', 'snappy'][(i - 5) / 10]!;
      void client.request(incrementalAlterConfigs, 1, {
        resources: [
          {
            resourceType: 2,
            resourceName: 't',
            configs: [{ name: 'compression.type', configOperation: 0, value }],
          },
        ],
        validateOnly: false,
      });
    }
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['NONE']));
    const batches = await read();
    expect(valuesIn(batches)).toEqual(values(0, 40));
    expect(batches.at(-1)!.codec).toBe('snappy');
  });
});

describe('a compacted topic', () => {
  test('large batches are looked at elsewhere, with the same answers', async () => {
    await start();
    await createTopic('t', { 'cleanup.policy': 'compact' });
    const many = values(0, 5_000);
    for (const codec of ['none', 'zstd'] as const) {
      const [answer] = await send([{ records: batch(many, codec, null) }]);
      expect(answer!.error).toBe('INVALID_RECORD');
      expect(answer!.recordErrors).toHaveLength(100);
      expect(await outcome(batch(many, codec))).toBe('NONE');
    }
    // 130 MB of nothing, in some kilobytes.
    expect(await outcome(batch(['\0'.repeat(130 * 1024 * 1024)], 'zstd'))).toBe('MESSAGE_TOO_LARGE');
    expect(valuesIn(await read())).toHaveLength(10_000);
  });
});

describe('while a batch is looked into', () => {
  /** Nothing is prepared before the test says so. */
  function held() {
    const asked = Promise.withResolvers<void>();
    const gone = Promise.withResolvers<void>();
    const preparing: Prepare = async (of, demand) => {
      asked.resolve();
      await gone.promise;
      return prepare(of, demand);
    };
    return { preparing, asked: asked.promise, letGo: gone.resolve };
  }

  test('the request runs out of time, and the batch is appended nevertheless', async () => {
    const { preparing, letGo } = held();
    await start(preparing);
    await createTopic('t', { 'compression.type': 'gzip' });
    expect((await send([{ records: batch(['late']) }], -1, 10))[0]!.error).toBe('REQUEST_TIMED_OUT');
    letGo();
    expect((await send([{ records: batch(['next']) }]))[0]).toMatchObject({ error: 'NONE', baseOffset: 1 });
    expect(valuesIn(await read())).toEqual(['late', 'next']);
  });

  test('other partitions and other topics go on', async () => {
    const { preparing, asked, letGo } = held();
    await start(preparing);
    await createTopic('t', { 'compression.type': 'gzip' });
    await createTopic('free', {});
    const waiting = send([{ records: batch(['a']) }]);
    await asked;
    const other = await under.connect();
    const [free, gzip] = await send(
      [
        { topic: 'free', records: batch(['b']) },
        { partition: 1, records: batch(['c'], 'gzip') },
      ],
      -1,
      10_000,
      other,
    );
    expect([free!.error, gzip!.error]).toEqual(['NONE', 'NONE']);
    letGo();
    expect((await waiting)[0]!.error).toBe('NONE');
  });

  test('its connection may close', async () => {
    const { preparing, asked, letGo } = held();
    await start(preparing);
    await createTopic('t', { 'compression.type': 'gzip' });
    const own = await under.connect();
    void send([{ records: batch(['gone']) }], -1, 10_000, own).catch(() => {});
    await asked;
    await own.close();
    letGo();
    await expect.poll(async () => valuesIn(await read())).toEqual(['gone']);
  });
});
