import type { RecordBatch } from '@rookery/wire';
import { expect, test } from 'vitest';
import { AppendRefused } from '../log/append-checks.ts';
import { batchOf, openMemoryLogs, smallLogs } from '../log/memory-logs.ts';
import type { Appended } from '../log/partition-log.ts';
import { prepare, type Demand } from '../log/preparation.ts';
import { Partition } from './partition.ts';

interface Order {
  readonly demand: Demand;
  /** Lets the work be done. */
  finish(): void;
  fail(error: Error): void;
}

/** A partition whose batches are prepared when the test says so. */
function open(compressionType: 'producer' | 'gzip' = 'gzip') {
  const logs = openMemoryLogs();
  const orders: Order[] = [];
  const config = { ...smallLogs, compressionType };
  const role = { isLeader: true, leader: 1, leaderEpoch: 0, inSyncReplicas: 1 };
  const partition = new Partition(logs.log(), role, 1, {
    now: () => logs.clock.now(),
    prepare: (batch, demand) =>
      new Promise((resolve, reject) => {
        const finish = (): void => {
          try {
            resolve(prepare(batch, demand));
          } catch (error) {
            reject(error as Error);
          }
        };
        orders.push({ demand, finish, fail: reject });
      }),
  });
  partition.configure(config, 1);
  return { logs, partition, orders, config, role };
}

/** Everything that can go on without the test has gone on. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

const numbered = (baseSequence: number, values = ['a']): RecordBatch =>
  batchOf(values, { producerId: 7, producerEpoch: 0, baseSequence });
const outcome = async (appended: Appended | Promise<Appended>): Promise<number | string> => {
  try {
    return (await appended).baseOffset;
  } catch (error) {
    return (error as AppendRefused).error;
  }
};

test('what may stand as it came is appended at once', () => {
  const { partition, orders } = open('producer');
  expect(partition.appendFromClient(batchOf(['a']), -1)).toMatchObject({ baseOffset: 0 });
  expect(partition.log.logEndOffset).toBe(1);
  expect(orders).toEqual([]);
});

test('one batch is prepared at a time, and those behind it keep their order and their sequences', async () => {
  const { partition, orders } = open();
  // The second needs nothing, and the third repeats the first.
  const batches = [
    numbered(0),
    batchOf(['b', 'c'], { producerId: 7, producerEpoch: 0, baseSequence: 1, codec: 'gzip' }),
    numbered(0),
    numbered(3),
    numbered(9),
  ];
  const outcomes = batches.map((batch) => outcome(partition.appendFromClient(batch, -1)));
  await settle();
  expect(partition.log.logEndOffset).toBe(0);
  for (let done = 0; done < 4; done++) {
    expect(orders).toHaveLength(done + 1);
    orders[done]!.finish();
    await settle();
  }
  expect(await Promise.all(outcomes)).toEqual([0, 1, 0, 3, 'OUT_OF_ORDER_SEQUENCE_NUMBER']);
  expect(partition.log.logEndOffset).toBe(4);
});

test('a batch that is refused holds up nothing behind it', async () => {
  const { partition, orders } = open();
  const first = outcome(partition.appendFromClient(batchOf(['a']), -1));
  const second = outcome(partition.appendFromClient(batchOf(['b']), -1));
  await settle();
  orders[0]!.fail(new AppendRefused('INVALID_RECORD', 'broken'));
  await settle();
  orders[1]!.finish();
  expect(await Promise.all([first, second])).toEqual(['INVALID_RECORD', 0]);
  expect(partition.appendFromClient(batchOf(['c'], { codec: 'gzip' }), -1)).toMatchObject({ baseOffset: 1 });
});

test('what its header condemns is refused at once, and before anybody works on it', async () => {
  const { partition, orders } = open();
  const large = batchOf(['x'.repeat(3_000)]);
  expect(() => partition.appendFromClient(large, -1)).toThrow(/max\.message\.bytes/);
  partition.configure(smallLogs, 2);
  expect(() => partition.appendFromClient(batchOf(['a']), -1)).toThrow(/NOT_ENOUGH_REPLICAS/);
  expect(orders).toEqual([]);
});

test('a batch that grows past max.message.bytes as it is compressed anew is refused', async () => {
  const { partition, orders, config } = open();
  partition.configure({ ...config, compressionType: 'uncompressed' }, 1);
  const appended = outcome(
    partition.appendFromClient(batchOf(['x'.repeat(2_048 - 61)], { codec: 'zstd' }), -1),
  );
  await settle();
  orders[0]!.finish();
  expect(await appended).toBe('MESSAGE_TOO_LARGE');
  expect(partition.log.logEndOffset).toBe(0);
});

test('settings that change meanwhile hold for batches that are on their way', async () => {
  const { partition, orders, config } = open();
  const appended = outcome(partition.appendFromClient(batchOf(['a']), -1));
  await settle();
  partition.configure({ ...config, compressionType: 'lz4' }, 1);
  orders[0]!.finish();
  await settle();
  expect(orders.map(({ demand }) => demand.codec)).toEqual(['gzip', 'lz4']);
  const behind = outcome(partition.appendFromClient(batchOf(['b']), -1));
  partition.configure({ ...config, compressionType: 'producer' }, 1);
  orders[1]!.finish();
  expect(await Promise.all([appended, behind])).toEqual([0, 1]);
  // Nothing waits any more, so the next one is appended at once.
  expect(partition.appendFromClient(batchOf(['c']), -1)).toMatchObject({ baseOffset: 2 });
  expect(orders).toHaveLength(2);
});

test('a leader that is one no more, or whose topic goes, appends nothing of what was on its way', async () => {
  for (const end of ['demoted', 'deleted'] as const) {
    const { partition, orders, role } = open();
    const appended = [0, 1].map((i) => outcome(partition.appendFromClient(batchOf([`${i}`]), -1)));
    await settle();
    if (end === 'demoted') partition.become({ ...role, isLeader: false, leader: 2, leaderEpoch: 1 });
    else partition.close();
    orders[0]!.finish();
    expect(await Promise.all(appended)).toEqual(['NOT_LEADER_OR_FOLLOWER', 'NOT_LEADER_OR_FOLLOWER']);
    expect(partition.log.logEndOffset).toBe(0);
  }
});
