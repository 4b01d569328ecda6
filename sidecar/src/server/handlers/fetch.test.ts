import { afterEach, describe, expect, test, vi } from 'vitest';
import { errorName, RecordBatch } from '@rookery/wire';
import { batchOf, openMemoryLogs, type MemoryLogs } from '../../log/memory-logs.ts';
import { Partition } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { systemClock } from '../../clock.ts';
import type { FileRegion } from '../../vfs/file-region.ts';
import { fetchHandler } from './fetch.ts';

afterEach(() => vi.restoreAllMocks());

interface WantedPartition {
  readonly offset?: number;
  readonly lastFetchedEpoch?: number;
  readonly maxBytes?: number;
}
const unprepared = { now: () => 0, prepare: () => Promise.reject(new Error('nothing here asks for it')) };

type Wanted = Readonly<Record<string, WantedPartition>>;
interface Options {
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly maxWaitMs?: number;
}
interface ToldPartition {
  readonly errorCode: number;
  readonly divergingEpoch: { readonly epoch: number; readonly endOffset: number } | undefined;
  readonly bytes: Buffer;
}
type Told = Map<string, ToldPartition>;

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
    const partition = this.#partitions.get(topic) ?? new Partition(this.logs.log(topic), role, 1, unprepared);
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
    const topics = Object.entries(wanted).map(
      ([
        topic,
        { offset: fetchOffset = 0, lastFetchedEpoch = -1, maxBytes: partitionMaxBytes = 1_000_000 },
      ]) => ({
        topic,
        partitions: [
          { partition: 0, currentLeaderEpoch: -1, fetchOffset, lastFetchedEpoch, partitionMaxBytes },
        ],
      }),
    );
    const request = { sessionId: 0, isolationLevel: 0, minBytes, maxBytes, maxWaitMs, topics };
    const call = {
      version: 11,
      clientId: null,
      remoteAddress: '',
      whenClosed: (release: () => void) => {
        this.#close = release;
        return () => void (this.#close = null);
      },
      bytesSpent: () => {},
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
    responses: { topic: string; partitions: (Omit<ToldPartition, 'bytes'> & { records: FileRegion[] })[] }[];
  };
  const told: Told = new Map();
  for (const { topic, partitions } of responses) {
    const { errorCode, divergingEpoch, records } = partitions[0]!;
    told.set(topic, {
      errorCode,
      divergingEpoch,
      bytes: Buffer.concat(records.map((region) => region.readNow())),
    });
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

describe('a reader that says which epoch it has read last', () => {
  /** Offsets 0 to 2 in epoch 0, 3 to 4 in epoch 2. */
  async function twoEpochs(): Promise<Served> {
    const served = new Served();
    for (let i = 0; i < 3; i++) served.append('t', `${i}`);
    served.partition('t').become({ isLeader: true, leader: 1, leaderEpoch: 2, inSyncReplicas: 1 });
    for (let i = 3; i < 5; i++) served.append('t', `${i}`);
    await served.logs.settle();
    return served;
  }
  const outcome = async (served: Served, offset: number, lastFetchedEpoch: number) => {
    const { errorCode, divergingEpoch, bytes } = (
      await served.fetch({ t: { offset, lastFetchedEpoch } }).told
    ).get('t')!;
    if (errorCode !== 0) return errorName(errorCode);
    return divergingEpoch ?? RecordBatch.header(bytes).baseOffset;
  };

  test('goes on where its log is a prefix of this one', async () => {
    const served = await twoEpochs();
    expect(await outcome(served, 2, 0)).toBe(2);
    expect(await outcome(served, 3, 0)).toBe(3);
    expect(await outcome(served, 4, 2)).toBe(4);
    expect(await outcome(served, 4, -1)).toBe(4);
  });

  test('is told where the two part, at once and without records', async () => {
    const served = await twoEpochs();
    expect(await outcome(served, 4, 0)).toEqual({ epoch: 0, endOffset: 3 });
    // Nothing was written here in epoch 1, which it has read in.
    expect(await outcome(served, 3, 1)).toEqual({ epoch: 0, endOffset: 3 });
    expect(await outcome(served, 9, 2)).toEqual({ epoch: 2, endOffset: 5 });
  });

  test('is out of range before the log’s start, and with an epoch that nobody has heard of', async () => {
    const served = await twoEpochs();
    expect(await outcome(served, 4, 7)).toBe('OFFSET_OUT_OF_RANGE');
    await served.partition('t').log.deleteBefore(3);
    expect(await outcome(served, 2, 0)).toBe('OFFSET_OUT_OF_RANGE');
  });

  test('is told once while another partition has nothing: the request does not wait', async () => {
    const served = await twoEpochs();
    served.partition('quiet');
    const told = await served.fetch({ quiet: {}, t: { offset: 9, lastFetchedEpoch: 2 } }).told;
    expect(told.get('t')!.divergingEpoch).toEqual({ epoch: 2, endOffset: 5 });
  });
});
