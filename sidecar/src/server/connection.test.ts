import {
  apiVersions,
  createTopics,
  encodeBatch,
  fetch,
  joinGroup,
  metadata,
  produce,
  zeroUuid,
  type Api,
  type Encodable,
} from '@rookery/wire';
import { afterEach, describe, expect, test } from 'vitest';
import { BrokerInMemory } from '../broker-in-memory.ts';
import { EventBus } from '../events.ts';
import { ManualClock } from '../manual-clock.ts';
import { BusyPoll } from './busy-poll.ts';
import type { Connection } from './connection.ts';
import { Dispatcher } from './dispatch.ts';
import { handler, type Handler } from './handler.ts';
import { Listener } from './listener.ts';
import { FrameMemory } from './frame-memory.ts';
import { MemoryBudget } from './memory-budget.ts';
import { BufferPool } from './buffer-pool.ts';
import { frameOf, RawConnection } from './raw-connection.ts';
import { TurnBudget } from './turn-budget.ts';

const mebibyte = 1024 * 1024;

interface Under {
  readonly listener: Listener;
  readonly clock: ManualClock;
  readonly budget: MemoryBudget;
  readonly failures: unknown[];
  readonly reasons: (string | null)[];
  readonly refusals: string[];
  connect(): Promise<RawConnection>;
}

const closers: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** A listener with handlers of the test's own, on a clock that stands still. */
async function listening(
  handlers: Handler[],
  options: {
    connectionsMax?: number;
    descriptorsLeft?: number;
    budget?: number;
    inFlightMax?: number;
    frameBytesMax?: number;
  } = {},
): Promise<Under> {
  const clock = new ManualClock();
  const budget = new MemoryBudget(options.budget ?? 64 * mebibyte);
  const failures: unknown[] = [];
  const reasons: (string | null)[] = [];
  const refusals: string[] = [];
  const events = new EventBus();
  events.on('connectionRefused', ({ reason }) => refusals.push(reason));
  const sending = {
    pool: new BufferPool(4, 256 * 1024),
    turns: new TurnBudget(clock, mebibyte),
    sendfile: true,
    sent: { memory: 0, sendfile: 0, copy: 0 },
  };
  const listener = new Listener({
    host: '127.0.0.1',
    port: 0,
    connectionsMax: options.connectionsMax ?? 100,
    descriptorsLeft: () => options.descriptorsLeft ?? Infinity,
    idleMs: 600_000,
    stallMs: 60_000,
    clock,
    opened: () => {},
    refused: (remoteAddress, reason) => events.emit('connectionRefused', { remoteAddress, reason }),
    connection: () => ({
      dispatcher: new Dispatcher(handlers, { now: () => clock.monotonic(), observe: () => {} }),
      budget,
      memory: new FrameMemory(),
      busyPoll: new BusyPoll(0, clock),
      sending,
      limits: {
        frameBytesMax: options.frameBytesMax ?? 100 * mebibyte,
        inFlightMax: options.inFlightMax ?? 100,
        unreadBytesMax: mebibyte,
      },
      traffic: { bytesIn: 0, bytesOut: 0 },
      now: () => clock.monotonic(),
      closed: (_, reason) => void reasons.push(reason),
      failed: (error) => failures.push(error),
    }),
  });
  const bound = await listener.listen();
  closers.push(() => listener.close());
  return {
    listener,
    clock,
    budget,
    failures,
    reasons,
    refusals,
    async connect() {
      const connection = await RawConnection.open(bound);
      closers.push(() => connection.close());
      await expect.poll(() => listener.connections.size).toBeGreaterThan(0);
      return connection;
    },
  };
}

/** ApiVersions, answered when the test says so: the client's software version tells which answer. */
function slowHandler() {
  const waiting = new Map<string, () => void>();
  const started: string[] = [];
  const slow = handler<typeof apiVersions>({
    api: apiVersions,
    handle: ({ clientSoftwareVersion: name }) => {
      started.push(name);
      if (name === 'fast') return { errorCode: 0, apiKeys: [] };
      return new Promise((resolve) => waiting.set(name, () => resolve({ errorCode: 0, apiKeys: [] })));
    },
  });
  return { slow, waiting, started };
}

const ask = (name: string, correlationId: number): Buffer =>
  frameOf(
    apiVersions,
    3,
    { clientSoftwareName: 'x', clientSoftwareVersion: name },
    { correlationId, clientId: 'c' },
  );

const idOf = async (frame: Promise<Buffer[]>): Promise<number> => Buffer.concat(await frame).readInt32BE(0);

/** Answers with as many bytes as it is asked for. */
const echo = handler<typeof joinGroup>({
  api: joinGroup,
  handle: ({ sessionTimeoutMs: size }) => ({
    errorCode: 0,
    protocolName: '',
    leader: '',
    memberId: '',
    members: [{ memberId: '', metadata: Buffer.alloc(size, 7) }],
  }),
});

const echoRequest = (size: number, metadataBytes = 0): Encodable<(typeof joinGroup)['request']> => ({
  groupId: 'g',
  sessionTimeoutMs: size,
  memberId: '',
  protocolType: '',
  protocols: [{ name: 'p', metadata: Buffer.alloc(metadataBytes) }],
});

describe('answers', () => {
  test('leave in the order of the requests, whichever is ready first', async () => {
    const { slow, waiting, started } = slowHandler();
    const { connect } = await listening([slow]);
    const client = await connect();
    const ids = [1, 2, 3, 4].map(() => idOf(client.nextFrame()));
    client.send(Buffer.concat([ask('slow', 1), ask('fast', 2), ask('slower', 3), ask('fast', 4)]));
    await expect.poll(() => started).toEqual(['slow', 'fast', 'slower', 'fast']);
    waiting.get('slower')!();
    waiting.get('slow')!();
    expect(await Promise.all(ids)).toEqual([1, 2, 3, 4]);
  });

  test('of one connection do not wait for those of another', async () => {
    const { slow } = slowHandler();
    const { connect } = await listening([slow]);
    const [stuck, quick] = [await connect(), await connect()];
    stuck.send(ask('never', 1));
    const id = idOf(quick.nextFrame());
    quick.send(ask('fast', 2));
    expect(await id).toBe(2);
  });

  test('too many unanswered requests stop the reading, and answers start it again', async () => {
    const { slow, waiting, started } = slowHandler();
    const { connect } = await listening([slow], { inFlightMax: 3 });
    const client = await connect();
    const ids = Array.from({ length: 6 }, () => idOf(client.nextFrame()));
    client.send(Buffer.concat(['a', 'b', 'c', 'd', 'e', 'f'].map((name, i) => ask(name, i))));
    await expect.poll(() => started.length).toBe(3);
    for (const name of ['b', 'c']) waiting.get(name)!();
    expect(started.length).toBe(3);
    waiting.get('a')!();
    await expect.poll(() => started.length).toBe(6);
    for (const name of ['d', 'e', 'f']) waiting.get(name)!();
    expect(await Promise.all(ids)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('that a peer does not read stop the reading of it, at a bounded number of bytes', async () => {
    let handled = 0;
    const counting: Handler = { ...echo, handle: (request, call) => (handled++, echo.handle(request, call)) };
    const { connect, reasons } = await listening([counting]);
    const client = await connect();
    client.socket.pause();
    const size = 256 * 1024;
    const requests = 400;
    for (let i = 0; i < requests; i++)
      client.send(frameOf(joinGroup, 2, echoRequest(size), { correlationId: i, clientId: null }));
    let before = -1;
    await expect.poll(() => before === (before = handled) && handled > 0, { interval: 100 }).toBe(true);
    // What the sockets' own buffers take, and a mebibyte: far from the hundred that were asked for.
    expect(handled * size).toBeLessThan(30 * mebibyte);
    const frames = Array.from({ length: requests }, () => client.nextFrame());
    client.socket.resume();
    for (let i = 0; i < requests; i++) expect(await idOf(frames[i]!)).toBe(i);
    expect(reasons).toEqual([]);
  });

  test('that wait behind a slow one count against what a peer may leave unread', async () => {
    const { slow, waiting } = slowHandler();
    let handled = 0;
    const counting: Handler = { ...echo, handle: (request, call) => (handled++, echo.handle(request, call)) };
    const { connect } = await listening([slow, counting]);
    const client = await connect();
    const frames = Array.from({ length: 31 }, () => idOf(client.nextFrame()));
    client.send(ask('slow', 0));
    for (let i = 1; i <= 30; i++)
      client.send(frameOf(joinGroup, 2, echoRequest(256 * 1024), { correlationId: i, clientId: null }));
    await expect.poll(() => handled).toBeGreaterThan(3);
    let before = -1;
    await expect.poll(() => before === (before = handled), { interval: 100 }).toBe(true);
    expect(handled).toBeLessThan(8);
    waiting.get('slow')!();
    expect(await Promise.all(frames)).toEqual(Array.from({ length: 31 }, (_, i) => i));
  });
});

describe('connections', () => {
  test('for which there are no descriptors are closed at once', async () => {
    const { slow } = slowHandler();
    const { connect, listener, refusals } = await listening([slow], { descriptorsLeft: 1 });
    await connect();
    await expect.poll(() => listener.connections.size).toBe(1);
    const second = await connect();
    await second.closed;
    expect(refusals).toEqual(['what the limit of open files leaves to connections (1) is reached']);
  });

  test('over the limit are closed at once, and one that ends makes room', async () => {
    const { slow } = slowHandler();
    const { connect, listener, refusals } = await listening([slow], { connectionsMax: 2 });
    const [first] = [await connect(), await connect()];
    await expect.poll(() => listener.connections.size).toBe(2);
    const third = await connect();
    await third.closed;
    expect(refusals).toEqual(['max.connections (2) is reached']);
    await first!.close();
    await expect.poll(() => listener.connections.size).toBe(1);
    const fourth = await connect();
    const id = idOf(fourth.nextFrame());
    fourth.send(ask('fast', 9));
    expect(await id).toBe(9);
  });

  test('on which nothing happens are closed, but not those that wait for an answer', async () => {
    const { slow, waiting } = slowHandler();
    const { connect, clock, listener, reasons } = await listening([slow]);
    const [idle, busy] = [await connect(), await connect()];
    const id = idOf(busy.nextFrame());
    busy.send(ask('long', 5));
    await expect.poll(() => waiting.size).toBe(1);
    await expect.poll(() => listener.connections.size).toBe(2);
    clock.advance(606_000);
    await expect.poll(() => reasons).toEqual(['idle']);
    await idle.closed;
    waiting.get('long')!();
    expect(await id).toBe(5);
  });

  test('that stall inside a request are closed sooner', async () => {
    const { slow } = slowHandler();
    const { connect, clock, listener, reasons } = await listening([slow]);
    const client = await connect();
    client.send(ask('fast', 1).subarray(0, 10));
    await expect.poll(() => [...listener.connections].some(({ isMidFrame }) => isMidFrame)).toBe(true);
    clock.advance(66_000);
    await expect.poll(() => reasons).toEqual(['stalled inside a request']);
    await client.closed;
  });

  test('that trickle a large request are closed, and give back what they held', async () => {
    const { connect, clock, listener, reasons, budget } = await listening([echo]);
    const client = await connect();
    const request = frameOf(joinGroup, 2, echoRequest(1, 10 * mebibyte));
    const of = (): Connection => [...listener.connections][0]!;
    client.send(request.subarray(0, 100));
    await expect.poll(() => budget.held).toBeGreaterThan(10 * mebibyte);
    for (let i = 0; i < 5 && listener.connections.size > 0; i++) {
      clock.advance(30_000);
      if (listener.connections.size === 0) break;
      const { lastActive } = of();
      client.send(request.subarray(100 + i, 101 + i));
      await expect.poll(() => listener.connections.size === 0 || of().lastActive > lastActive).toBe(true);
    }
    await expect.poll(() => reasons).toEqual(['sends a request too slowly']);
    await client.closed;
    expect(budget.held).toBe(0);
  });

  test('that do not read their answers are closed', async () => {
    const { connect, clock, listener, reasons } = await listening([echo]);
    const client = await connect();
    client.socket.pause();
    client.send(frameOf(joinGroup, 2, echoRequest(50 * mebibyte)));
    await expect.poll(() => [...listener.connections].some(({ isUnread }) => isUnread)).toBe(true);
    let before = 0;
    await expect.poll(() => before === (before = client.socket.bytesRead), { interval: 50 }).toBe(true);
    clock.advance(66_000);
    await expect.poll(() => reasons).toEqual(['does not read its answers']);
  });

  test('whose request the broker made wait are not stalled', async () => {
    const { slow, waiting } = slowHandler();
    const { connect, clock, reasons, listener } = await listening([slow], { inFlightMax: 1 });
    const client = await connect();
    const ids = [1, 2].map(() => idOf(client.nextFrame()));
    client.send(Buffer.concat([ask('one', 1), ask('fast', 2).subarray(0, 12)]));
    await expect.poll(() => waiting.size).toBe(1);
    clock.advance(300_000);
    waiting.get('one')!();
    expect(await ids[0]).toBe(1);
    clock.advance(6_000);
    expect(listener.connections.size).toBe(1);
    client.send(ask('fast', 2).subarray(12));
    expect(await ids[1]).toBe(2);
    expect(reasons).toEqual([]);
  });
});

describe('frames', () => {
  test.each([
    ['over the limit', (2 ** 31 - 1) | 0],
    ['of a negative size', -5],
    ['that a browser sends', 'GET / HTTP/1.1\r\n\r\n'],
    ['that a TLS client sends', '\x16\x03\x01\x02\x00\x01\x00'],
  ])('%s close the connection before anything is kept', async (_, start) => {
    const { slow } = slowHandler();
    const { connect, failures, budget } = await listening([slow]);
    const client = await connect();
    const bytes = typeof start === 'string' ? Buffer.from(start, 'latin1') : Buffer.alloc(4);
    if (typeof start === 'number') bytes.writeInt32BE(start);
    client.send(bytes);
    await client.closed;
    expect(failures).toEqual([]);
    expect(budget.held).toBe(0);
  });

  test('that come in single bytes are put together', async () => {
    const { slow } = slowHandler();
    const { connect } = await listening([slow]);
    const client = await connect();
    const id = idOf(client.nextFrame());
    for (const byte of ask('fast', 7)) {
      client.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await id).toBe(7);
  });

  test('that are large wait for room, each whole, and all get through', async () => {
    let most = 0;
    const budgets: MemoryBudget[] = [];
    const watching: Handler = {
      ...echo,
      handle: (request, call) => {
        most = Math.max(most, budgets[0]!.held);
        return echo.handle(request, call);
      },
    };
    const { connect, budget } = await listening([watching], { budget: 5 * mebibyte });
    budgets.push(budget);
    const clients = await Promise.all(Array.from({ length: 6 }, connect));
    const answers = clients.map(async (client) => {
      const { errorCode } = await client.request(joinGroup, 2, echoRequest(1, 2 * mebibyte));
      return errorCode;
    });
    expect(await Promise.all(answers)).toEqual([0, 0, 0, 0, 0, 0]);
    expect(most).toBeLessThanOrEqual(5 * mebibyte);
    expect(budget.held).toBe(0);
  });

  test('of an API or a version that is not served close the connection, others on it are answered first', async () => {
    const { slow } = slowHandler();
    const { connect, failures } = await listening([slow]);
    for (const api of [metadata, produce] as Api[]) {
      const client = await connect();
      const id = idOf(client.nextFrame());
      client.send(ask('fast', 1));
      expect(await id).toBe(1);
      const frame = ask('fast', 2);
      frame.writeInt16BE(api.key, 4);
      client.send(frame);
      await client.closed;
    }
    expect(failures).toEqual([]);
  });

  test('whose handler throws close their connection alone', async () => {
    const broken = handler<typeof joinGroup>({
      api: joinGroup,
      handle: ({ groupId }) => {
        if (groupId === 'now') throw new Error('a bug');
        return Promise.reject(new Error('a bug, later'));
      },
    });
    const { slow } = slowHandler();
    const { connect, failures, budget } = await listening([broken, slow]);
    const bystander = await connect();
    for (const groupId of ['now', 'later']) {
      const client = await connect();
      client.send(frameOf(joinGroup, 2, { ...echoRequest(1, mebibyte), groupId }));
      await client.closed;
    }
    expect(failures.map(String)).toEqual(['Error: a bug', 'Error: a bug, later']);
    const id = idOf(bystander.nextFrame());
    bystander.send(ask('fast', 3));
    expect(await id).toBe(3);
    expect(budget.held).toBe(0);
  });
});

describe('a broker that stops', () => {
  test('answers what it was asked, lets go of what is parked, and closes', async () => {
    const under = await BrokerInMemory.start();
    closers.push(() => under.stop());
    const client = await under.connect();
    const topics = [{ name: 't', numPartitions: 1, replicationFactor: 1, assignments: [], configs: [] }];
    await client.request(createTopics, 7, { topics, timeoutMs: 1_000, validateOnly: false });
    const parked = client.request(fetch, 12, {
      maxWaitMs: 600_000,
      minBytes: 1,
      maxBytes: mebibyte,
      isolationLevel: 0,
      sessionId: 0,
      forgottenTopicsData: [],
      rackId: '',
      topics: [
        {
          topic: 't',
          topicId: zeroUuid,
          partitions: [{ partition: 0, fetchOffset: 0, partitionMaxBytes: mebibyte }],
        },
      ],
    });
    const records = [encodeBatch([{ key: null, value: Buffer.from('last'), timestamp: Date.now() }])];
    const writer = await under.connect();
    const written = writer.request(produce, 9, {
      transactionalId: null,
      acks: -1,
      timeoutMs: 1_000,
      topicData: [{ name: 't', topicId: zeroUuid, partitionData: [{ index: 0, records }] }],
    });
    await written;
    await parked;
    const waiting = client.request(fetch, 12, {
      maxWaitMs: 600_000,
      minBytes: 1,
      maxBytes: mebibyte,
      isolationLevel: 0,
      sessionId: 0,
      forgottenTopicsData: [],
      rackId: '',
      topics: [
        {
          topic: 't',
          topicId: zeroUuid,
          partitions: [{ partition: 0, fetchOffset: 1, partitionMaxBytes: mebibyte }],
        },
      ],
    });
    // What was sent before a round trip on another connection has arrived.
    await writer.request(apiVersions, 0, {});
    await under.broker.close();
    expect((await waiting).responses[0]!.partitions[0]!.errorCode).toBe(0);
    await Promise.all([client.closed, writer.closed]);
    expect(under.fs.exists('/data/.kafka_cleanshutdown')).toBe(true);
  });
});
