import { afterEach, describe, expect, test, vi } from 'vitest';
import { RecordBatch } from '@rookery/wire';
import { batchOf, openMemoryLogs, type MemoryLogs } from '../../log/memory-logs.ts';
import { Partition } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { systemClock } from '../../clock.ts';
import type { FileRegion } from '../../vfs/file-region.ts';
import { fetchHandler } from './fetch.ts';

afterEach(() => vi.restoreAllMocks());

type Wanted = Readonly<Record<string, { readonly offset?: number; readonly maxBytes?: number }>>;
interface Options {
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly maxWaitMs?: number;
}
type Told = Map<string, { errorCode: number; bytes: Buffer }>;

/** Partitions on a disk in memory, and a Fetch handler in front of them. */
class Served {
  readonly logs: MemoryLogs = openMemoryLogs({
    config: { maxMessageBytes: 100_000, segmentBytes: 1_000_000 },
  });
  readonly #partitions = new Map<string, Partition>();
  /** Reads of partitions since it was last set to 0. */
  reads = 0;
  #close: (() => void) | null = null;

  constructor() {
    const read = Partition.prototype.read;
    vi.spyOn(Partition.prototype, 'read').mockImplementation((...of) => {
      this.reads++;
      return read.apply(vi.mocked(Partition.prototype.read).mock.contexts.at(-1) as Partition, of);
    });
  }

  partition(topic: string): Partition {
    const role = { isLeader: true, leader: 1, leaderEpoch: 0, inSyncReplicas: 1 };
    const partition = this.#partitions.get(topic) ?? new Partition(this.logs.log(topic), role, 1);
    this.#partitions.set(topic, partition);
    return partition;
  }

  append(topic: string, value: string): RecordBatch {
    const batch = batchOf([value]);
    this.partition(topic).appendAsLeader([batch], -1);
    return batch;
  }

  /** Asks for partition 0 of each topic, in this order. */
  fetch(wanted: Wanted, { minBytes = 1, maxBytes = 1_000_000, maxWaitMs = 500 }: Options = {}) {
    const replicas = { find: (topic: string) => this.#partitions.get(topic) ?? null };
    const { clock } = this.logs;
    const handler = fetchHandler({ replicas: replicas as unknown as ReplicaManager, clock, bytesMax: 1e9 });
    const topics = Object.entries(wanted).map(([topic, { offset = 0, maxBytes: own = 1_000_000 }]) => ({
      topic,
      partitions: [{ partition: 0, currentLeaderEpoch: -1, fetchOffset: offset, partitionMaxBytes: own }],
    }));
    const request = { sessionId: 0, isolationLevel: 0, minBytes, maxBytes, maxWaitMs, topics };
    const call = {
      version: 11,
      clientId: null,
      remoteAddress: '',
      whenClosed: (release: () => void) => {
        this.#close = release;
        return () => void (this.#close = null);
      },
    };
    const answer = handler.handle(request as never, call);
    const waiting = { isAnswered: false, told: Promise.resolve(answer).then((body) => toldIn(body)) };
    void waiting.told.then(() => (waiting.isAnswered = true));
    return waiting;
  }

  /** The connection of the request that waits closes. */
  close(): void {
    this.#close!();
  }
}

function toldIn(body: unknown): Told {
  const { responses } = body as {
    responses: { topic: string; partitions: { errorCode: number; records: FileRegion[] }[] }[];
  };
  const told: Told = new Map();
  for (const { topic, partitions } of responses) {
    const { errorCode, records } = partitions[0]!;
    told.set(topic, { errorCode, bytes: Buffer.concat(records.map((region) => region.readNow())) });
    for (const region of records) region.release();
  }
  return told;
}

const macrotask = (): Promise<void> => new Promise((resolve) => systemClock.nextTurn(resolve));
const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `topic${i}`);
const all = (topics: readonly string[]): Wanted => Object.fromEntries(topics.map((topic) => [topic, {}]));
const sizes = (told: Told): number[] => [...told.values()].map(({ bytes }) => bytes.length);

describe('a fetch that waits', () => {
  test('for hundreds of partitions reads only the one that moved, and answers for all in their order', async () => {
    const served = new Served();
    const topics = names(300);
    for (const topic of topics) served.partition(topic);
    const waiting = served.fetch(all(topics));
    expect(served.reads).toBe(300);
    served.reads = 0;
    const batch = served.append('topic170', 'news');
    await served.logs.settle();
    const told = await waiting.told;
    expect([...told.keys()]).toEqual(topics);
    expect(served.reads).toBe(1);
    expect(told.get('topic170')!.bytes.equals(Buffer.concat(batch.chunks))).toBe(true);
    expect(sizes(told).filter((size) => size > 0).length).toBe(1);
  });

  test('looks once a turn, however many partitions move in it and however often', async () => {
    const served = new Served();
    const topics = names(50);
    for (const topic of topics) served.partition(topic);
    const waiting = served.fetch(all(topics), { minBytes: 1_000_000 });
    const move = async (topic: string): Promise<void> => {
      served.partition(topic).become(served.partition(topic).role);
      await macrotask();
    };
    served.reads = 0;
    await move('topic0');
    expect(served.reads).toBe(1);
    for (const topic of topics) await move(topic);
    expect(served.reads).toBe(1);
    served.logs.clock.turn();
    expect(served.reads).toBe(51);
    served.logs.clock.turn();
    expect([served.reads, waiting.isAnswered]).toEqual([51, false]);
    served.close();
    await waiting.told;
  });

  test('adds up what comes to several partitions, and leaves with all of it', async () => {
    const served = new Served();
    const topics = names(3);
    for (const topic of topics) served.partition(topic);
    const waiting = served.fetch(all(topics), { minBytes: 300 });
    served.append('topic2', 'x'.repeat(100));
    await served.logs.settle();
    expect(waiting.isAnswered).toBe(false);
    served.append('topic0', 'x'.repeat(100));
    await served.logs.settle();
    expect(sizes(await waiting.told).map((size) => size > 100)).toEqual([true, false, true]);
  });

  test('brings what there is when its time is over', async () => {
    const served = new Served();
    served.partition('orders');
    const waiting = served.fetch({ orders: {} }, { minBytes: 1_000 });
    served.append('orders', 'little');
    await served.logs.settle();
    expect(waiting.isAnswered).toBe(false);
    served.logs.clock.advance(500);
    expect(sizes(await waiting.told)[0]).toBeGreaterThan(60);
  });

  test('for more than may leave at once leaves when that much is there', async () => {
    const served = new Served();
    served.append('orders', 'x'.repeat(2_000));
    await served.logs.settle();
    const told = await served.fetch({ orders: {} }, { minBytes: 1_000_000, maxBytes: 1_000 }).told;
    expect(sizes(told)[0]).toBeGreaterThan(2_000);
  });

  test('leaves with an error as soon as one of its partitions has one', async () => {
    const served = new Served();
    served.partition('orders');
    const waiting = served.fetch({ orders: {} });
    served.partition('orders').become({ isLeader: false, leader: 2, leaderEpoch: 1, inSyncReplicas: 1 });
    const told = await waiting.told;
    expect(told.get('orders')!.errorCode).toBe(6);
  });
});

describe('when max bytes is short', () => {
  test('partitions are served in the order in which the client named them', async () => {
    const served = new Served();
    for (const topic of names(3)) served.append(topic, 'x'.repeat(1_000));
    await served.logs.settle();
    const asked = (order: string[]): Wanted => Object.fromEntries(order.map((topic) => [topic, {}]));
    const bytes = async (order: string[]) =>
      [...(await served.fetch(asked(order), { maxBytes: 1_500 }).told)].map(([topic, told]) => [
        topic,
        told.bytes.length > 1_000,
      ]);
    expect(await bytes(['topic0', 'topic1', 'topic2'])).toEqual([
      ['topic0', true],
      ['topic1', false],
      ['topic2', false],
    ]);
    expect(await bytes(['topic2', 'topic0', 'topic1'])).toEqual([
      ['topic2', true],
      ['topic0', false],
      ['topic1', false],
    ]);
  });

  test('the first batch comes whole also when it arrives while the request waits', async () => {
    const served = new Served();
    for (const topic of names(2)) served.partition(topic);
    const waiting = served.fetch(all(names(2)), { maxBytes: 100 });
    served.append('topic1', 'x'.repeat(5_000));
    await served.logs.settle();
    expect(sizes(await waiting.told)[1]).toBeGreaterThan(5_000);
  });
});

test('a file that cannot be read is the trouble of its partition alone', async () => {
  const served = new Served();
  for (const topic of names(2)) served.append(topic, 'value');
  await served.logs.settle();
  served.logs.fs.failWhen(({ name, path }) => (name === 'read' && path.includes('topic0') ? 'EIO' : null));
  const told = served.fetch(all(names(2))).told;
  served.logs.fs.failWhen(null);
  expect([...(await told).values()].map(({ errorCode, bytes }) => [errorCode, bytes.length > 0])).toEqual([
    [56, false],
    [0, true],
  ]);
});
