import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, ClientError } from '@rookery/client';
import {
  encodeBatch,
  fetch,
  heartbeat,
  joinGroup,
  listOffsets,
  metadata,
  produce,
  type NewRecord,
} from '@rookery/wire';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  ScriptedBroker,
  theTopic,
  topicAnswer,
  topicId,
  type Answers,
  type Mischief,
} from './scripted-broker.ts';
import { Reader } from './reader.ts';

// A broker that lies, stammers or is silent: the client answers its callers with a code, in time, and neither
// hangs, nor grows, nor asks in a tight loop.

interface Meeting {
  readonly client: Client;
  readonly broker: ScriptedBroker;
}

async function meet(answers: Answers, greeting: ((socket: Socket) => void) | null = null): Promise<Meeting> {
  const broker = await ScriptedBroker.open(answers, greeting);
  const client = new Client({ brokers: [broker.address], connectTimeoutMs: 200, requestTimeoutMs: 300 });
  onTestFinished(async () => {
    await client.close(100);
    await broker.close();
  });
  return { client, broker };
}

const rejection = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => null,
    (error: unknown) => error,
  );
const deliveryTimeoutMs = 1_000;
/** Far more than a client needs in a second that waits longer each time, far less than one that does not wait. */
const attemptsMax = 60;

describe('a connection that is no use', () => {
  const int32 = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value);
    return bytes;
  };
  const greetings: Record<string, (socket: Socket) => void> = {
    'is closed at once': (socket) => socket.destroy(),
    'stays silent': () => {},
    'talks HTTP': (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    'announces a frame of 2 GiB': (socket) => socket.write(int32(0x7fff_ffff)),
    'announces a frame of less than nothing': (socket) => socket.write(int32(-1)),
    'answers with a frame of nothing': (socket) => socket.write(int32(0)),
    'talks without being asked, and never stops': (socket) => {
      const noise = Buffer.alloc(64 * 1024, 1);
      noise.writeInt32BE(64 * 1024 * 1024);
      const talk = (): void => {
        if (!socket.destroyed && socket.write(noise)) setImmediate(talk);
      };
      socket.on('drain', talk);
      talk();
    },
  };

  test.each(Object.keys(greetings))('%s', async (name) => {
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    const { client, broker } = await meet({}, greetings[name]!);
    const producer = client.producer({ deliveryTimeoutMs });
    const sent = await Promise.all([
      rejection(producer.send(theTopic, { value: Buffer.from('v') })),
      rejection(producer.send(theTopic, { value: Buffer.from('v'), partition: 0 })),
    ]);
    for (const error of sent) expect(error).toMatchObject({ code: 'RK9209', outcomeUnknown: false });
    expect(broker.connections).toBeGreaterThan(1);
    expect(broker.connections).toBeLessThan(attemptsMax);
    const after = process.memoryUsage();
    expect(after.heapUsed + after.arrayBuffers - heapUsed - arrayBuffers).toBeLessThan(200 * 1024 * 1024);
  });
});

describe.concurrent('answers that make no sense', () => {
  test.each([
    ['another correlation id', { correlationId: 12345 }],
    [
      'bytes that are no answer',
      { bytes: Buffer.concat([Buffer.from([0, 0, 0, 9]), Buffer.alloc(9, 0xff)]) },
    ],
    ['nothing, and the connection is closed', 'close'],
    ['nothing at all', 'silence'],
  ] as const)('to Metadata: %s', async (_, mischief) => {
    const { client, broker } = await meet({ Metadata: () => mischief });
    const producer = client.producer({ deliveryTimeoutMs });
    expect(await rejection(producer.send(theTopic, { value: Buffer.from('v') }))).toMatchObject({
      code: 'RK9209',
    });
    expect(broker.timesAsked(metadata)).toBeLessThan(attemptsMax);
  });

  test.each([
    ['a partition number out of all bounds', [0x7fff_fffe]],
    ['a partition twice', [0, 0]],
    ['a partition below 0', [-1, 0]],
  ])('to Metadata: %s', async (_, partitions) => {
    const answers: Answers = {
      Metadata: () => ({
        brokers: [],
        errorCode: 0,
        topics: [topicAnswer(theTopic, partitions)],
      }),
    };
    const { client, broker } = await meet(answers);
    const producer = client.producer({ deliveryTimeoutMs });
    expect(await rejection(producer.send(theTopic, { value: Buffer.from('v') }))).toMatchObject({
      code: 'RK9209',
    });
    expect(broker.timesAsked(metadata)).toBeLessThan(attemptsMax);
  });

  test.each<[string, () => object | Mischief, boolean]>([
    ['another correlation id', () => ({ correlationId: 12345 }), true],
    ['silence', () => 'silence', true],
    ['the connection closed', () => 'close', true],
    ['another partition', () => produced(1, 0), true],
    ['an error that nobody knows', () => produced(0, 9_999), false],
    ['out of order, always', () => produced(0, 45), false],
    ['an epoch that is too old', () => produced(0, 47), false],
    ['not the leader, always', () => produced(0, 6), false],
    ['not there any more, always', () => produced(0, 3), false],
  ])('to Produce: %s', async (_, answer, outcomeUnknown) => {
    const { client, broker } = await meet({ Produce: answer });
    const producer = client.producer({ deliveryTimeoutMs });
    const error = await rejection(producer.send(theTopic, { value: Buffer.from('v'), partition: 0 }));
    expect(error).toBeInstanceOf(ClientError);
    expect(error).toMatchObject({ outcomeUnknown });
    expect(broker.timesAsked(produce)).toBeLessThan(attemptsMax);
    expect(broker.timesAsked(metadata)).toBeLessThan(attemptsMax);
  });
});

function produced(partition: number, errorCode: number): object {
  const answer = { index: partition, errorCode, baseOffset: 0 };
  return { responses: [{ name: theTopic, partitionResponses: [answer] }] };
}

describe.concurrent('records that are no records', () => {
  const batch = (values: readonly string[], change: (bytes: Buffer) => void = () => {}): Buffer => {
    const bytes = encodeBatch(
      values.map((value): NewRecord => ({ value: Buffer.from(value), timestamp: 1 })),
    );
    change(bytes);
    return bytes;
  };
  const fetched = (records: Buffer, errorCode = 0): object => ({
    errorCode: 0,
    sessionId: 0,
    responses: [
      {
        topic: theTopic,
        topicId,
        partitions: [
          {
            partitionIndex: 0,
            errorCode,
            highWatermark: 1_000,
            abortedTransactions: null,
            records: [records],
          },
        ],
      },
    ],
  });
  const bomb = encodeBatch([{ value: Buffer.alloc(140 * 1024 * 1024), timestamp: 1 }], { codec: 'gzip' });

  test.each<[string, Buffer, RegExp]>([
    [
      'a batch that fails its CRC',
      batch(['v'], (bytes) => bytes.writeUInt8(0xff, bytes.length - 1)),
      /RK9102/,
    ],
    ['a batch length below a header', batch(['v'], (bytes) => bytes.writeInt32BE(3, 8)), /RK9101/],
    ['noise', Buffer.alloc(1_000, 0xee), /RK9211/],
    ['half a batch', batch(['v']).subarray(0, 30), /no batch that reaches past/],
    ['a batch that was read long ago', batch(['v'], (bytes) => bytes.writeInt32BE(-2, 0)), /RK9211/],
    ['another format', batch(['v'], (bytes) => bytes.writeInt8(1, 16)), /RK9204/],
    [
      'a base offset beyond all numbers',
      batch(['v'], (bytes) => bytes.writeInt32BE(0x7fff_ffff, 0)),
      /RK9004/,
    ],
    ['140 MiB in a thousandth of it', bomb, /RK9105/],
  ])('%s', async (_, bytes, pattern) => {
    const { client, broker } = await meet({ Fetch: () => fetched(bytes) });
    const reader = new Reader(client, {
      group: 'group',
      topics: [theTopic],
    });
    await reader.until(() => reader.partitions.length === 1);
    await sleep(1_000);
    expect(reader.errors.map(({ message }) => message).join('\n')).toMatch(pattern);
    for (const error of reader.errors) expect(error).toBeInstanceOf(ClientError);
    expect(reader.read).toEqual([]);
    expect(broker.timesAsked(fetch)).toBeLessThan(attemptsMax);
  });

  test.each<[string, () => object]>([
    ['nothing, at once', () => fetched(Buffer.alloc(0))],
    ['no partition', () => ({ errorCode: 0, sessionId: 0, responses: [] })],
    ['an offset out of range, always', () => fetched(Buffer.alloc(0), 1)],
    ['a leader that has moved, always', () => fetched(Buffer.alloc(0), 6)],
    ['an older leader epoch, always', () => fetched(Buffer.alloc(0), 74)],
  ])('%s: no tight loop', async (_, answer) => {
    const { client, broker } = await meet({ Fetch: answer });
    const reader = new Reader(client, { group: 'group', topics: [theTopic] });
    await reader.until(() => reader.partitions.length === 1);
    await sleep(1_000);
    expect(broker.timesAsked(fetch)).toBeGreaterThan(1);
    expect(broker.timesAsked(fetch)).toBeLessThan(attemptsMax);
    expect(broker.timesAsked(listOffsets)).toBeLessThan(attemptsMax);
    expect(broker.timesAsked(metadata)).toBeLessThan(attemptsMax);
  });

  test('a log that has lost what was read: reading goes on where the logs part, and says so', async () => {
    const parted = (fetchedOffset: number): object => {
      const answer = fetched(Buffer.alloc(0)) as { responses: { partitions: object[] }[] };
      Object.assign(answer.responses[0]!.partitions[0]!, {
        divergingEpoch: { epoch: 0, endOffset: fetchedOffset },
      });
      return answer;
    };
    const asked: number[] = [];
    const answers: Answers = {
      Fetch: (request: { topics: { partitions: { fetchOffset: number }[] }[] }, times: number) => {
        asked.push(request.topics[0]!.partitions[0]!.fetchOffset);
        if (times === 1) return fetched(batch(['a', 'b', 'c']));
        if (times === 2) return parted(1);
        return times === 3
          ? fetched(batch(['B', 'C'], (bytes) => bytes.writeInt32BE(1, 4)))
          : fetched(Buffer.alloc(0));
      },
    };
    const { client } = await meet(answers);
    const reader = new Reader(client, { group: 'group', topics: [theTopic] });
    await reader.until(() => reader.read.length === 5);
    expect(reader.values).toEqual(['a', 'b', 'c', 'B', 'C']);
    expect(asked.slice(0, 3)).toEqual([0, 3, 1]);
    expect(reader.errors.map(({ message }) => message).join()).toMatch(
      /lost what was read from offset 1 to 3/,
    );
  });
});

describe.concurrent('a group that makes no sense', () => {
  const joined = (errorCode: number): object => ({
    errorCode,
    generationId: -1,
    protocolName: null,
    leader: '',
    memberId: 'again',
    skipAssignment: false,
    members: [],
  });

  test.each<[string, Answers]>([
    ['another member id is always asked for', { JoinGroup: () => joined(79) }],
    ['it rebalances for ever', { JoinGroup: () => joined(27) }],
    ['it never knows the member', { JoinGroup: () => joined(25) }],
    ['its coordinator is always elsewhere', { JoinGroup: () => joined(16) }],
    ['its assignment cannot be read', { SyncGroup: () => ({ errorCode: 0, assignment: Buffer.from([1]) }) }],
    ['no coordinator is named', { FindCoordinator: () => ({ coordinators: [] }) }],
    ['offsets are left out', { OffsetFetch: () => ({ errorCode: 0, groups: [] }) }],
  ])('%s: no tight loop, and the member can go', async (_, answers) => {
    const { client, broker } = await meet(answers);
    const reader = new Reader(client, { group: 'group', topics: [theTopic] });
    await sleep(1_000);
    for (const times of broker.asked.values()) expect(times).toBeLessThan(attemptsMax);
    for (const error of [...reader.errors, ...reader.failures]) expect(error).toBeInstanceOf(Error);
    expect(reader.read).toEqual([]);
    await reader.consumer.close();
  });

  test('a member that is refused for good ends, and says so', async () => {
    const { client, broker } = await meet({ JoinGroup: () => joined(30) });
    const reader = new Reader(client, {
      group: 'group',
      topics: [theTopic],
    });
    await reader.until(() => reader.failures.length === 1);
    expect(reader.failures[0]).toMatchObject({ error: 'GROUP_AUTHORIZATION_FAILED' });
    expect(broker.timesAsked(joinGroup)).toBe(1);
  });

  test('a member that hears nothing for its session has lost its partitions, and comes back', async () => {
    let isSilent = true;
    const answers: Answers = { Heartbeat: () => (isSilent ? 'silence' : { errorCode: 0 }) };
    const { client, broker } = await meet(answers);
    const reader = new Reader(client, {
      group: 'group',
      topics: [theTopic],
      sessionTimeoutMs: 800,
    });
    await reader.until(() => reader.lost === 1);
    isSilent = false;
    await reader.until(() => reader.partitions.length === 1);
    expect(broker.timesAsked(heartbeat)).toBeLessThan(attemptsMax);
  });

  test('closing does not wait for a join that is never answered', async () => {
    const answers: Answers = { JoinGroup: () => 'silence' };
    const { client, broker } = await meet(answers);
    const reader = new Reader(client, { group: 'group', topics: [theTopic] });
    while (broker.timesAsked(joinGroup) === 0) await sleep(10);
    await reader.consumer.close();
  });
});
