import {
  crc32c,
  createTopics,
  decodeRecords,
  deleteTopics,
  encodeBatch,
  ErrorCode,
  errorName,
  fetch,
  legacyProduce,
  listOffsets,
  metadata,
  offsetForLeaderEpoch,
  produce,
  RecordBatch,
  zeroUuid,
  type BatchOptions,
  type Request,
} from '@rookery/wire';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BrokerInMemory } from '../../broker-in-memory.ts';
import type { RawConnection } from '../raw-connection.ts';

let under: BrokerInMemory;
let client: RawConnection;

async function start(...sets: string[]): Promise<void> {
  under = await BrokerInMemory.start('num.partitions=3', ...sets);
  client = await under.connect();
}

beforeEach(() => start());

afterEach(async () => {
  await under.stop();
  expect(under.failures).toEqual([]);
});

const now = Date.now();

function batch(
  values: readonly (string | null)[],
  options: BatchOptions & { timestamps?: number[]; key?: string | null } = {},
) {
  const { timestamps = [], key = 'k', ...batchOptions } = options;
  return encodeBatch(
    values.map((value, i) => ({
      key: key === null ? null : Buffer.from(key),
      value: value === null ? null : Buffer.from(value),
      timestamp: timestamps[i] ?? now,
    })),
    batchOptions,
  );
}

interface Part {
  topic?: string;
  partition?: number;
  records: Buffer | Buffer[] | null;
}

async function send(
  parts: readonly Part[],
  options: { acks?: number; version?: number; transactionalId?: string; topicId?: string } = {},
) {
  const { acks = -1, version = 9, transactionalId = null, topicId = zeroUuid } = options;
  const { responses } = await client.request(produce, version, {
    transactionalId,
    acks,
    timeoutMs: 10_000,
    topicData: parts.map(({ topic = 't', partition = 0, records }) => ({
      name: topic,
      topicId,
      partitionData: [
        {
          index: partition,
          records: records === null ? null : Buffer.isBuffer(records) ? [records] : records,
        },
      ],
    })),
  });
  return responses.map(({ partitionResponses: [answer] }) => ({
    ...answer!,
    error: errorName(answer!.errorCode),
  }));
}

const sendOne = async (records: Buffer | Buffer[] | null, options?: Parameters<typeof send>[1]) =>
  (await send([{ records }], options))[0]!;

async function createTopic(name = 't', configs: Record<string, string> = {}): Promise<string> {
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
  return topics[0]!.topicId;
}

type FetchOptions = Partial<Request<typeof fetch>> & {
  offset?: number;
  partitionMaxBytes?: number;
  partition?: number;
  topic?: string;
  topicId?: string;
  version?: number;
  currentLeaderEpoch?: number;
};

async function read(options: FetchOptions = {}, by: RawConnection = client) {
  const {
    offset = 0,
    partitionMaxBytes = 1_048_576,
    partition = 0,
    topic = 't',
    topicId = zeroUuid,
    version = 12,
    currentLeaderEpoch = -1,
    ...rest
  } = options;
  const answer = await by.request(fetch, version, {
    maxWaitMs: 0,
    minBytes: 1,
    maxBytes: 10_000_000,
    isolationLevel: 0,
    sessionId: 0,
    sessionEpoch: -1,
    topics: [
      {
        topic,
        topicId,
        partitions: [{ partition, fetchOffset: offset, partitionMaxBytes, currentLeaderEpoch }],
      },
    ],
    forgottenTopicsData: [],
    rackId: '',
    ...rest,
  });
  const first = answer.responses[0]?.partitions[0];
  return {
    ...answer,
    ...first,
    error: errorName(first?.errorCode ?? answer.errorCode),
    bytes: Buffer.concat((first?.records ?? []) as Buffer[]),
  };
}

function batchesIn(bytes: Buffer): RecordBatch[] {
  const batches: RecordBatch[] = [];
  for (let at = 0; at < bytes.length; at += batches.at(-1)!.sizeInBytes) {
    const next = RecordBatch.read(bytes, at);
    if (next === null) break;
    batches.push(next);
  }
  return batches;
}

const valuesIn = (bytes: Buffer): string[] =>
  batchesIn(bytes).flatMap((each) => decodeRecords(each).map(({ value }) => String(value)));

describe('Produce', () => {
  test('acknowledges each of several partitions with its offsets, in every version', async () => {
    const topicId = await createTopic();
    for (let version = 3; version <= 13; version++) {
      const answers = await send(
        [0, 1, 2].map((partition) => ({ partition, records: batch(['a', 'b']) })),
        { version, topicId: version >= 13 ? topicId : zeroUuid, acks: version % 2 === 0 ? 1 : -1 },
      );
      expect(answers.map(({ error }) => error)).toEqual(['NONE', 'NONE', 'NONE']);
      expect(answers.map(({ baseOffset }) => baseOffset)).toEqual([0, 1, 2].map(() => (version - 3) * 2));
    }
    expect(valuesIn((await read()).bytes).length).toBe(22);
  });

  test('one bad partition does not hold up the others', async () => {
    await createTopic();
    const broken = batch(['x']);
    broken[broken.length - 1]! ^= 1;
    const answers = await send([
      { partition: 0, records: batch(['good']) },
      { partition: 1, records: broken },
      { partition: 9, records: batch(['nowhere']) },
      { topic: 'none', records: batch(['nowhere']) },
    ]);
    expect(answers.map(({ error }) => error)).toEqual([
      'NONE',
      'CORRUPT_MESSAGE',
      'UNKNOWN_TOPIC_OR_PARTITION',
      'UNKNOWN_TOPIC_OR_PARTITION',
    ]);
  });

  test('every kind of bad batch has its error, and nothing of it is appended', async () => {
    await createTopic('t', {
      'max.message.bytes': '1000',
      'message.timestamp.after.max.ms': '1000',
      'message.timestamp.before.max.ms': '3600000',
    });
    const changed = (change: (bytes: Buffer) => void): Buffer => {
      const bytes = batch(['a', 'b']);
      change(bytes);
      // Behind a wrong CRC nothing else would be looked at.
      bytes.writeUInt32BE(crc32c([bytes.subarray(21)]), 17);
      return bytes;
    };
    /** A 64-bit number that no double can hold. */
    const huge = (position: number) => (bytes: Buffer) =>
      bytes.fill(0x7f, position, position + 1).fill(0xff, position + 1, position + 8);
    const cases: [string, Buffer | Buffer[] | null, string][] = [
      ['no records', null, 'INVALID_RECORD'],
      ['no bytes', Buffer.alloc(0), 'INVALID_RECORD'],
      ['two batches', Buffer.concat([batch(['a']), batch(['b'])]), 'INVALID_RECORD'],
      ['half a batch', batch(['a']).subarray(0, 40), 'CORRUPT_MESSAGE'],
      ['a batch and a half', Buffer.concat([batch(['a']), batch(['b']).subarray(0, 20)]), 'CORRUPT_MESSAGE'],
      ['too large', batch(['x'.repeat(1_001)]), 'MESSAGE_TOO_LARGE'],
      ['an old format', changed((bytes) => bytes.writeInt8(1, 16)), 'INVALID_RECORD'],
      ['a format from nowhere', changed((bytes) => bytes.writeInt8(3, 16)), 'CORRUPT_MESSAGE'],
      ['no codec', changed((bytes) => bytes.writeInt16BE(7, 21)), 'UNSUPPORTED_COMPRESSION_TYPE'],
      [
        'more records than bytes',
        changed((bytes) => (bytes.writeInt32BE(99, 57), bytes.writeInt32BE(98, 23))),
        'INVALID_RECORD',
      ],
      [
        'no records by count',
        changed((bytes) => (bytes.writeInt32BE(0, 57), bytes.writeInt32BE(-1, 23))),
        'INVALID_RECORD',
      ],
      ['deltas that do not count', changed((bytes) => bytes.writeInt32BE(5, 23)), 'INVALID_RECORD'],
      ['a base offset', changed((bytes) => bytes.writeInt32BE(7, 4)), 'INVALID_RECORD'],
      ['a base offset past 2^53', changed(huge(0)), 'INVALID_RECORD'],
      ['a delete horizon', changed((bytes) => bytes.writeInt16BE(0x40, 21)), 'INVALID_RECORD'],
      [
        'a producer without an epoch',
        changed((bytes) => (bytes.writeInt32BE(0, 43), bytes.writeInt32BE(5, 47))),
        'INVALID_RECORD',
      ],
      ['a producer past 2^53', changed(huge(43)), 'INVALID_RECORD'],
      ['a producer below none', changed((bytes) => bytes.writeInt32BE(-3, 47)), 'INVALID_RECORD'],
      ['the broker’s own time', changed((bytes) => bytes.writeInt16BE(0x08, 21)), 'INVALID_TIMESTAMP'],
      ['a latest time past 2^53', changed(huge(35)), 'INVALID_TIMESTAMP'],
      ['a first time past 2^53', changed(huge(27)), 'INVALID_TIMESTAMP'],
      ['a control batch', changed((bytes) => bytes.writeInt16BE(0x20, 21)), 'INVALID_RECORD'],
      ['the future', batch(['a'], { timestamps: [now + 3_600_000] }), 'INVALID_TIMESTAMP'],
      ['the past', batch(['a'], { timestamps: [now - 7_200_000] }), 'INVALID_TIMESTAMP'],
      [
        'the past in one of its records',
        batch(['a', 'b'], { timestamps: [now - 7_200_000] }),
        'INVALID_TIMESTAMP',
      ],
      ['deltas out of order', changed((bytes) => bytes.writeInt8(2, 64)), 'INVALID_RECORD'],
    ];
    for (const [what, records, expected] of cases)
      expect((await sendOne(records)).error, what).toBe(expected);
    expect((await read()).highWatermark).toBe(0);
  });

  test('acks that do not exist and transactions are refused', async () => {
    await createTopic();
    expect((await sendOne(batch(['a']), { acks: 2 })).error).toBe('INVALID_REQUIRED_ACKS');
    expect((await sendOne(batch(['a']), { transactionalId: 'x' })).error).toBe('INVALID_TXN_STATE');
  });

  test('zstd needs version 7, as clients before it could not read it', async () => {
    await createTopic();
    const records = batch(['a'.repeat(100)], { codec: 'zstd' });
    expect((await sendOne(records, { version: 6 })).error).toBe('UNSUPPORTED_COMPRESSION_TYPE');
    expect((await sendOne(records, { version: 7 })).error).toBe('NONE');
  });

  test('large requests on many connections are stored as they came, with a reader at the tail and without', async () => {
    await under.stop();
    await start('num.partitions=4', 'flush.mode=sync');
    await createTopic();
    const batches = [0, 1, 2, 3].map((partition) =>
      Array.from({ length: 24 }, (_, i) => batch([`${partition} ${i} `.repeat(4_000 + 3_000 * (i % 7))])),
    );
    const produceAll = async (part: number, count: number): Promise<void> => {
      const connections = await Promise.all(batches.map(() => under.connect()));
      await Promise.all(
        batches.map(async (of, partition) => {
          const topicData = (records: Buffer) => [
            { name: 't', topicId: zeroUuid, partitionData: [{ index: partition, records: [records] }] },
          ];
          const answers = of.slice(part, part + count).map((records) =>
            connections[partition]!.request(produce, 9, {
              transactionalId: null,
              acks: -1,
              timeoutMs: 30_000,
              topicData: topicData(Buffer.from(records)),
            }),
          );
          for (const { responses } of await Promise.all(answers))
            expect(errorName(responses[0]!.partitionResponses[0]!.errorCode)).toBe('NONE');
        }),
      );
    };
    await produceAll(0, 12);
    // A reader that has seen the end: what comes from now on is kept for it.
    for (let partition = 0; partition < 4; partition++) await read({ partition, offset: 12 });
    await produceAll(12, 12);
    for (const [partition, of] of batches.entries()) {
      for (const [offset, sent] of of.entries()) {
        const { bytes } = await read({ partition, offset, partitionMaxBytes: 1 });
        const [stored] = RecordBatch.split([bytes]);
        expect(stored!.baseOffset).toBe(offset);
        expect(stored!.checkCrc()).toBe(true);
        expect(bytes.subarray(21).equals(sent.subarray(21))).toBe(true);
      }
    }
  });

  test('an append that the disk does not finish in time is answered so, and the broker goes on', async () => {
    await createTopic();
    await sendOne(batch(['before']));
    const stuck: (() => void)[] = [];
    under.fs.untilSynced = () => new Promise((resolve) => stuck.push(resolve));
    // Two partitions at once: one alone might be synced on the loop.
    const late = client.request(produce, 9, {
      transactionalId: null,
      acks: -1,
      timeoutMs: 1,
      topicData: [0, 1].map((index) => ({
        name: 't',
        topicId: zeroUuid,
        partitionData: [{ index, records: [batch(['late'])] }],
      })),
    });
    const { responses } = await late;
    for (const { partitionResponses } of responses)
      expect(errorName(partitionResponses[0]!.errorCode)).toBe('REQUEST_TIMED_OUT');
    under.fs.untilSynced = () => Promise.resolve();
    for (const go of stuck) go();
    expect((await sendOne(batch(['after']))).baseOffset).toBe(2);
    expect(valuesIn((await read()).bytes)).toEqual(['before', 'late', 'after']);
  });

  test('a compacted topic names the records that have no key', async () => {
    await createTopic('t', { 'cleanup.policy': 'compact' });
    const answer = await sendOne(batch(['a', 'b'], { key: null }));
    expect(answer.error).toBe('INVALID_RECORD');
    expect(answer.recordErrors.map(({ batchIndex }) => batchIndex)).toEqual([0, 1]);
    expect((await sendOne(batch(['a', null]))).error).toBe('NONE');
  });

  test('acks=0 is answered by nobody, appended in order, and closes the connection when it fails', async () => {
    await createTopic();
    const unacknowledged = (topic: string, value: string) => ({
      transactionalId: null,
      acks: 0,
      timeoutMs: 1,
      topicData: [
        { name: topic, topicId: zeroUuid, partitionData: [{ index: 0, records: [batch([value])] }] },
      ],
    });
    for (let i = 0; i < 10; i++) void client.request(produce, 9, unacknowledged('t', `${i}`)).catch(() => {});
    const reader = await under.connect();
    await expect.poll(async () => (await read({}, reader)).highWatermark).toBe(10);
    expect(valuesIn((await read({}, reader)).bytes)).toEqual([...'0123456789']);
    void client.request(produce, 9, unacknowledged('none', 'x')).catch(() => {});
    await client.closed;
  });

  test('versions 0 to 2 are offered for old clients, and refused with an answer', async () => {
    const { responses } = await client.request(legacyProduce as never, 1, {
      acks: 1,
      timeoutMs: 1,
      topicData: [{ name: 't', partitionData: [{ index: 0, records: null }] }],
    } as never);
    const [topic] = responses as { partitionResponses: { errorCode: number }[] }[];
    expect(topic!.partitionResponses[0]!.errorCode).toBe(ErrorCode.UNSUPPORTED_VERSION);
  });

  test('nobody writes into what the broker keeps for itself', async () => {
    await client.request(metadata, 9, {
      topics: [{ topicId: zeroUuid, name: '__consumer_offsets' }],
      allowAutoTopicCreation: true,
      includeTopicAuthorizedOperations: false,
    });
    const [answer] = await send([{ topic: '__consumer_offsets', records: batch(['x']) }]);
    expect(answer!.error).toBe('INVALID_TOPIC_EXCEPTION');
  });

  test('topics that are not known by their id have their own error, partitions theirs', async () => {
    const topicId = await createTopic();
    const ask = async (id: string, partition: number) =>
      (await send([{ partition, records: batch(['a']) }], { version: 13, topicId: id }))[0]!.error;
    expect(await ask(topicId, 9)).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(await ask('AAAAAAAAAAAAAAAAAAAAAQ', 0)).toBe('UNKNOWN_TOPIC_ID');
  });

  test('log append time is the broker’s, and is told', async () => {
    await createTopic('t', { 'message.timestamp.type': 'LogAppendTime' });
    const { logAppendTimeMs } = await sendOne(batch(['a'], { timestamps: [5] }));
    expect(logAppendTimeMs).toBeGreaterThanOrEqual(now);
    expect(batchesIn((await read()).bytes)[0]!.maxTimestamp).toBe(logAppendTimeMs);
  });

  test('too few replicas in sync refuse acks=all, and take acks=1', async () => {
    await createTopic('t', { 'min.insync.replicas': '2' });
    expect((await sendOne(batch(['a']))).error).toBe('NOT_ENOUGH_REPLICAS');
    expect((await sendOne(batch(['a']), { acks: 1 })).error).toBe('NONE');
  });
});

describe('Fetch', () => {
  test('an offset inside a batch gets that batch whole', async () => {
    await createTopic();
    await sendOne(batch(['a', 'b', 'c']));
    await sendOne(batch(['d', 'e']));
    const { bytes, highWatermark } = await read({ offset: 1 });
    expect(highWatermark).toBe(5);
    expect(batchesIn(bytes).map(({ baseOffset }) => baseOffset)).toEqual([0, 3]);
    expect(batchesIn((await read({ offset: 4 })).bytes)[0]!.baseOffset).toBe(3);
  });

  test('the first batch comes whole however large, what follows keeps to the limits', async () => {
    await createTopic();
    const size = 100_000;
    for (let i = 0; i < 4; i++) await sendOne(batch([`${i}`.repeat(size)]));
    const one = (await read({ partitionMaxBytes: 10 })).bytes.length;
    expect(one).toBeGreaterThan(size);
    expect(one).toBeLessThan(size + 200);
    expect((await read({ maxBytes: 10 })).bytes.length).toBe(one);
    expect(batchesIn((await read({ partitionMaxBytes: 2 * one + 50 })).bytes).length).toBeGreaterThanOrEqual(
      2,
    );
    expect((await read({ partitionMaxBytes: 2 * one + 50 })).bytes.length).toBeLessThanOrEqual(2 * one + 50);
  });

  test('of several partitions those after the limit come empty', async () => {
    await createTopic();
    for (const partition of [0, 1, 2]) await send([{ partition, records: batch(['x'.repeat(50_000)]) }]);
    const { responses } = await client.request(fetch, 12, {
      maxWaitMs: 0,
      minBytes: 1,
      maxBytes: 60_000,
      isolationLevel: 0,
      sessionId: 0,
      sessionEpoch: -1,
      topics: [
        {
          topic: 't',
          topicId: zeroUuid,
          partitions: [2, 0, 1].map((partition) => ({
            partition,
            fetchOffset: 0,
            partitionMaxBytes: 1_000_000,
          })),
        },
      ],
      forgottenTopicsData: [],
      rackId: '',
    });
    const sizes = responses[0]!.partitions.map(({ records }) => Buffer.concat(records as Buffer[]).length);
    expect(sizes[0]).toBeGreaterThan(50_000);
    expect(sizes.reduce((a, b) => a + b)).toBeLessThanOrEqual(60_000);
  });

  test('too little data waits until there is enough', async () => {
    await createTopic();
    const writer = await under.connect();
    const waiting = read({ maxWaitMs: 60_000, minBytes: 300 });
    let isAnswered = false;
    void waiting.then(() => (isAnswered = true));
    const reader = client;
    client = writer;
    for (let sent = 1; sent <= 3; sent++) {
      await sendOne(batch(['x'.repeat(50)]));
      if (sent < 3) expect(isAnswered).toBe(false);
    }
    client = reader;
    expect(batchesIn((await waiting).bytes).length).toBe(3);
  });

  test('without enough data the time runs out and what there is comes', async () => {
    await createTopic();
    await sendOne(batch(['a']));
    const { bytes, error } = await read({ maxWaitMs: 50, minBytes: 1_000_000 });
    expect([valuesIn(bytes), error]).toEqual([['a'], 'NONE']);
    expect((await read({ offset: 1, maxWaitMs: 50 })).bytes.length).toBe(0);
  });

  test('a parked request lets go when its connection closes, and when its topic is deleted', async () => {
    await createTopic();
    const parked = await under.connect();
    void read({ maxWaitMs: 60_000 }, parked).catch(() => {});
    await read();
    await parked.close();
    const other = await under.connect();
    const waiting = read({ maxWaitMs: 60_000 }, other);
    await read({ maxWaitMs: 10 });
    await client.request(deleteTopics, 5, { topicNames: ['t'], timeoutMs: 1_000 });
    expect((await waiting).error).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  });

  test('offsets outside the log say where the log is', async () => {
    await createTopic();
    await sendOne(batch(['a', 'b']));
    for (const offset of [3, -1, 1_000])
      expect(await read({ offset })).toMatchObject({
        error: 'OFFSET_OUT_OF_RANGE',
        highWatermark: 2,
        logStartOffset: 0,
      });
    expect((await read({ offset: 2 })).error).toBe('NONE');
  });

  test('sessions are declined without harm', async () => {
    await createTopic();
    await sendOne(batch(['a']));
    const full = await read({ sessionId: 0, sessionEpoch: 0 });
    expect([full.sessionId, valuesIn(full.bytes)]).toEqual([0, ['a']]);
    expect((await read({ sessionId: 5, sessionEpoch: 1 })).error).toBe('FETCH_SESSION_ID_NOT_FOUND');
  });

  test('wrong epochs, topics and partitions each have their error, without waiting', async () => {
    const topicId = await createTopic();
    const long = { maxWaitMs: 60_000 };
    expect((await read({ currentLeaderEpoch: 5, ...long })).error).toBe('UNKNOWN_LEADER_EPOCH');
    expect((await read({ topic: 'none', ...long })).error).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect((await read({ partition: 9, ...long })).error).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect((await read({ version: 17, topicId, partition: 9, ...long })).error).toBe(
      'UNKNOWN_TOPIC_OR_PARTITION',
    );
    expect((await read({ version: 17, topicId: 'AAAAAAAAAAAAAAAAAAAAAQ', ...long })).error).toBe(
      'UNKNOWN_TOPIC_ID',
    );
    expect((await read({ topics: [], ...long })).error).toBe('NONE');
  });

  test('every version answers the same records', async () => {
    const topicId = await createTopic();
    await sendOne(batch(['a', 'b']));
    for (let version = 4; version <= 18; version++)
      expect(
        valuesIn((await read({ version, topicId: version >= 13 ? topicId : zeroUuid })).bytes),
        `v${version}`,
      ).toEqual(['a', 'b']);
  });

  test('records survive a restart', async () => {
    await createTopic();
    await sendOne(batch(['a', 'b']));
    await under.restart();
    client = await under.connect();
    expect(valuesIn((await read()).bytes)).toEqual(['a', 'b']);
    expect((await sendOne(batch(['c']))).baseOffset).toBe(2);
  });
});

describe('ListOffsets and OffsetForLeaderEpoch', () => {
  const offsetAt = async (timestamp: number, version = 8, partitionIndex = 0) => {
    const { topics } = await client.request(listOffsets, version, {
      replicaId: -1,
      isolationLevel: 0,
      topics: [{ name: 't', partitions: [{ partitionIndex, timestamp }] }],
    });
    const { offset, timestamp: at, errorCode } = topics[0]!.partitions[0]!;
    return errorCode === 0 ? [offset, at] : errorName(errorCode);
  };

  test('the beginning, the end, a time, and the latest time', async () => {
    await createTopic();
    expect(await offsetAt(-1)).toEqual([0, -1]);
    expect(await offsetAt(-3)).toEqual([-1, -1]);
    await sendOne(batch(['a', 'b', 'c'], { timestamps: [now - 300, now - 100, now - 200] }));
    await sendOne(batch(['d'], { timestamps: [now - 50] }));
    await sendOne(batch(['e'], { timestamps: [now - 80] }));
    expect(await offsetAt(-2)).toEqual([0, -1]);
    expect(await offsetAt(-4)).toEqual([0, -1]);
    expect(await offsetAt(-1)).toEqual([5, -1]);
    expect(await offsetAt(-3)).toEqual([3, now - 50]);
    expect(await offsetAt(now - 1_000)).toEqual([0, now - 300]);
    expect(await offsetAt(now - 250)).toEqual([1, now - 100]);
    expect(await offsetAt(now - 60)).toEqual([3, now - 50]);
    expect(await offsetAt(now)).toEqual([-1, -1]);
    for (let version = 1; version <= 11; version++) expect(await offsetAt(-1, version)).toEqual([5, -1]);
    expect(await offsetAt(-1, 8, 9)).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  });

  test('an epoch ends where the next begins', async () => {
    await createTopic();
    await sendOne(batch(['a', 'b']));
    const endOf = async (leaderEpoch: number, version = 4) => {
      const { topics } = await client.request(offsetForLeaderEpoch, version, {
        replicaId: -1,
        topics: [{ topic: 't', partitions: [{ partition: 0, currentLeaderEpoch: -1, leaderEpoch }] }],
      });
      const { errorCode, endOffset, leaderEpoch: epoch } = topics[0]!.partitions[0]!;
      return errorCode === 0 ? [epoch, endOffset] : errorName(errorCode);
    };
    for (const version of [2, 3, 4]) expect(await endOf(0, version)).toEqual([0, 2]);
    expect(await endOf(7)).toEqual([-1, -1]);
  });
});
