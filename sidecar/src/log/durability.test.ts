import { describe, expect, test } from 'vitest';
import type { LogConfig } from '../log-config.ts';
import { MemoryFileSystem, type Operation } from '../vfs/memory.ts';
import { loseUnsynced } from '../vfs/power-cut.ts';
import { AppendRefused } from './append-checks.ts';
import { batchOf, openMemoryLogs, type MemoryLogs } from './memory-logs.ts';
import type { PartitionLog } from './partition-log.ts';
import { Segment } from './segment.ts';

const modes: LogConfig['flushMode'][] = ['sync', 'interval', 'os'];
const mebibyte = 1024 * 1024;

const append = (log: PartitionLog, ...values: string[]) =>
  log.appendAsLeader(
    values.map((value) => batchOf([value])),
    0,
  );

async function valuesIn(log: PartitionLog): Promise<number> {
  const { sizeInBytes } = log.read(log.logStartOffset, mebibyte, Infinity, true);
  return sizeInBytes;
}

describe('what an acknowledgement covers', () => {
  test('in sync mode nothing is durable before its sync is through, and what comes meanwhile is the next group', async () => {
    const { fs, log, clock, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'a');
    await settle();
    const waiting: (() => void)[] = [];
    fs.untilSynced = () => new Promise((resolve) => waiting.push(resolve));
    append(orders, 'b');
    clock.turn();
    expect(orders.durableEndOffset).toBe(1);
    append(orders, 'c');
    clock.turn();
    waiting.shift()!();
    await settle();
    expect(orders.durableEndOffset).toBe(2);
    waiting.shift()!();
    await settle();
    expect(orders.durableEndOffset).toBe(3);
    expect(orders.recoveryPoint).toBe(3);
  });

  test('a log that alone is written, a little at a time, is synced on the loop', async () => {
    const { fs, log, clock, settle } = openMemoryLogs();
    const [orders, others] = [log('orders'), log('others')];
    append(orders, 'a');
    append(others, 'a');
    await settle();
    let poolSyncs = 0;
    fs.untilSynced = async () => void poolSyncs++;
    const appendTo = async (...logs: PartitionLog[]): Promise<number> => {
      const before = poolSyncs;
      for (const each of logs) append(each, 'x');
      clock.turn();
      const isSyncedAlready = logs.every((each) => each.durableEndOffset === each.logEndOffset);
      await settle();
      for (const each of logs) expect(each.recoveryPoint).toBe(each.logEndOffset);
      expect(isSyncedAlready).toBe(poolSyncs === before);
      return poolSyncs - before;
    };
    expect(await appendTo(orders)).toBe(1);
    clock.advance(50);
    expect(await appendTo(orders)).toBe(0);
    expect(await appendTo(orders)).toBe(0);
    expect(await appendTo(orders, others)).toBe(2);
    expect(await appendTo(orders)).toBe(1);
    clock.advance(50);
    expect(await appendTo(orders)).toBe(0);
  });

  test('a sync on the loop that held it up sends those of the next second to the pool', async () => {
    const { fs, log, clock, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'a');
    await settle();
    clock.advance(50);
    fs.failWhen(({ name }) => {
      if (name === 'sync') clock.advance(26);
      return null;
    });
    append(orders, 'b');
    clock.turn();
    expect(orders.durableEndOffset).toBe(2);
    append(orders, 'c');
    clock.turn();
    expect(orders.durableEndOffset).toBe(2);
    await settle();
    expect(orders.durableEndOffset).toBe(3);
  });

  test('much at a time is synced on the pool, and so is what a new segment begins with', async () => {
    const { log, clock, settle } = openMemoryLogs({
      config: { maxMessageBytes: mebibyte, segmentBytes: mebibyte },
    });
    const orders = log();
    append(orders, 'a');
    await settle();
    clock.advance(50);
    append(orders, 'x'.repeat(70_000));
    clock.turn();
    expect(orders.durableEndOffset).toBe(1);
    await settle();
    expect(orders.durableEndOffset).toBe(2);
    orders.roll();
    append(orders, 'b');
    clock.turn();
    expect(orders.durableEndOffset).toBe(2);
    await settle();
    expect(orders.durableEndOffset).toBe(3);
    append(orders, 'c');
    clock.turn();
    expect(orders.durableEndOffset).toBe(4);
  });

  test('a sync on the loop that fails takes the log out of service like any other', async () => {
    const { fs, log, clock, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'a');
    await settle();
    clock.advance(50);
    fs.failWhen(({ name }) => (name === 'sync' ? 'EIO' : null));
    append(orders, 'b');
    clock.turn();
    expect(orders.durableEndOffset).toBe(1);
    expect(orders.offlineReason).toContain('a sync failed');
    fs.failWhen(null);
    await settle();
    expect(orders.durableEndOffset).toBe(1);
  });

  test.each(['interval', 'os'] as const)('in %s mode the page cache is enough', async (flushMode) => {
    const { fs, log, clock } = openMemoryLogs({ config: { flushMode } });
    const orders = log();
    fs.untilSynced = () => new Promise(() => {});
    append(orders, 'a');
    clock.turn();
    expect(orders.durableEndOffset).toBe(1);
    expect(orders.recoveryPoint).toBe(0);
  });

  test('interval mode syncs after flush.messages and after flush.ms', async () => {
    const { log, clock, settle } = openMemoryLogs({
      config: { flushMode: 'interval', flushMessages: 3, flushMs: 200 },
    });
    const orders = log();
    append(orders, 'a', 'b');
    await settle();
    expect(orders.recoveryPoint).toBe(0);
    append(orders, 'c');
    await settle();
    expect(orders.recoveryPoint).toBe(3);
    append(orders, 'd');
    await settle();
    clock.advance(200);
    await settle();
    expect(orders.recoveryPoint).toBe(4);
  });

  test.each(modes)('in %s mode the recovery point follows within a second', async (flushMode) => {
    const { log, clock, settle } = openMemoryLogs({ config: { flushMode } });
    const orders = log();
    append(orders, 'a');
    await settle();
    clock.advance(1_000);
    await settle();
    expect(orders.recoveryPoint).toBe(1);
  });

  test('a batch behind a roll outlives the power, though a sync came between the two', async () => {
    const { fs, log, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'a');
    await settle();
    orders.roll();
    // The sealed segment is synced before the next one has a file.
    await orders.sync();
    append(orders, 'b');
    await settle();
    expect(orders.durableEndOffset).toBe(2);
    expect(openMemoryLogs({ fs: fs.afterPowerCut(loseUnsynced) }).log().logEndOffset).toBe(2);
  });

  test('the background sync has some logs in hand at once, and comes to all of them', async () => {
    const { fs, log, clock, settle } = openMemoryLogs({ config: { flushMode: 'os' } });
    const logs = Array.from({ length: 100 }, (_, i) => log(`topic-${i}`));
    const waiting: (() => void)[] = [];
    fs.untilSynced = () => new Promise((resolve) => waiting.push(resolve));
    for (const each of logs) append(each, 'a');
    await settle();
    clock.advance(1_000);
    await settle();
    for (let turns = 0; waiting.length > 0; turns++) {
      expect(turns).toBeLessThan(100);
      expect(waiting.length).toBeLessThan(50);
      for (const through of waiting.splice(0)) through();
      await settle();
    }
    expect(logs.map(({ recoveryPoint }) => recoveryPoint)).toEqual(logs.map(() => 1));
  });

  test('in os mode an acknowledgement waits for the disk while too much is unsynced', async () => {
    const { fs, log, settle } = openMemoryLogs({ config: { flushMode: 'os' }, unsyncedBytesMax: 2_000 });
    const logs = ['a', 'b', 'c', 'd', 'e'].map((topic) => log(topic));
    const waiting: (() => void)[] = [];
    fs.untilSynced = () => new Promise((resolve) => waiting.push(resolve));
    for (const each of logs) {
      each.appendAsLeader([batchOf(['x'.repeat(500)])], 0);
      await settle();
    }
    expect(logs.map(({ durableEndOffset }) => durableEndOffset)).toEqual([1, 1, 1, 0, 0]);
    while (waiting.length > 0) {
      waiting.shift()!();
      await settle();
    }
    expect(logs.map(({ durableEndOffset }) => durableEndOffset)).toEqual([1, 1, 1, 1, 1]);
  });
});

describe('a full disk', () => {
  test.each(modes)(
    'takes back what was not written and takes more when there is space (%s)',
    async (flushMode) => {
      const { fs, log, happened, settle } = openMemoryLogs({ config: { flushMode } });
      const orders = log();
      append(orders, 'kept');
      await settle();
      const size = await valuesIn(orders);
      const takenBack: number[] = [];
      orders.onTakenBack = (offset) => takenBack.push(offset);
      // Room for a part of the next write: the torn piece must not stay in the file.
      fs.capacityBytes = 0;
      append(orders, 'refused', 'refused too');
      await settle();
      expect(takenBack).toEqual([1]);
      expect(orders.logEndOffset).toBe(1);
      expect(orders.offlineReason).toBeNull();
      fs.capacityBytes = Infinity;
      expect(append(orders, 'welcome').baseOffset).toBe(1);
      await settle();
      expect(orders.durableEndOffset).toBe(2);
      expect(await valuesIn(orders)).toBe(2 * size + 'welcome'.length - 'kept'.length);
      expect(happened('appendsTakenBack')).toHaveLength(1);
    },
  );

  test('undoes the segments that were rolled for what it refuses', async () => {
    const { fs, log, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'kept');
    await settle();
    fs.failWhen(({ name }) => (name === 'write' ? 'ENOSPC' : null));
    for (let i = 0; i < 20; i++) append(orders, 'x'.repeat(1_000));
    expect(orders.segmentCount).toBeGreaterThan(2);
    await settle();
    expect(orders.segmentCount).toBe(1);
    expect(fs.list('/data/orders-0').filter((name) => name.endsWith('.log'))).toHaveLength(1);
    fs.failWhen(null);
    for (let i = 0; i < 20; i++) append(orders, 'x'.repeat(1_000));
    await settle();
    expect(orders.durableEndOffset).toBe(21);
    const reopened = openMemoryLogs({ fs: fs.afterKill() }).log();
    expect(reopened.logEndOffset).toBe(21);
  });

  test.each(modes)(
    'has no inode for the next segment: that is taken back, and the log goes on (%s)',
    async (flushMode) => {
      const { fs, log, settle } = openMemoryLogs({ config: { flushMode } });
      const orders = log();
      append(orders, 'x'.repeat(1_000));
      await settle();
      const known = new Set(fs.list('/data/orders-0'));
      fs.failWhen(({ name, path }) =>
        name === 'open' && !known.has(path.slice(path.lastIndexOf('/') + 1)) ? 'ENOSPC' : null,
      );
      for (let i = 0; i < 8; i++) {
        append(orders, 'x'.repeat(1_000));
        await settle();
      }
      expect(orders.offlineReason).toBeNull();
      const end = orders.logEndOffset;
      expect(end).toBeLessThan(9);
      fs.failWhen(null);
      expect(append(orders, 'welcome').baseOffset).toBe(end);
      await settle();
      expect(orders.durableEndOffset).toBe(end + 1);
      expect(openMemoryLogs({ fs: fs.afterKill() }).log().logEndOffset).toBe(end + 1);
    },
  );

  test('an orderly stop that cannot keep its checkpoints ends all the same, without the marker', async () => {
    const { fs, log, logs, settle, happened } = openMemoryLogs();
    append(log(), 'a');
    await settle();
    fs.failWhen(({ name, path }) => (name === 'write' && path.includes('checkpoint') ? 'ENOSPC' : null));
    await logs.close();
    fs.failWhen(null);
    expect(happened('backgroundFailed').map(({ task }) => task)).toEqual([
      'the checkpoints of an orderly stop',
    ]);
    expect(fs.exists('/data/.kafka_cleanshutdown')).toBe(false);
    expect(openMemoryLogs({ fs: fs.afterKill() }).log().logEndOffset).toBe(1);
  });

  const isAid = ({ name, path }: Operation): boolean => name === 'write' && !path.endsWith('.log');

  test.each(modes)(
    'has no room for indexes and snapshots: the log goes on, and gets them later (%s)',
    async (flushMode) => {
      const { fs, log, settle, clock, happened } = openMemoryLogs({ config: { flushMode, flushMs: 100 } });
      const orders = log();
      append(orders, 'kept');
      await settle();
      clock.advance(1_000);
      await settle();
      const known = orders.recoveryPoint;
      fs.failWhen((operation) => (isAid(operation) ? 'ENOSPC' : null));
      for (let i = 0; i < 20; i++) {
        append(orders, 'x'.repeat(1_000));
        await settle();
      }
      clock.advance(1_000);
      await settle();
      expect(orders.segmentCount).toBeGreaterThan(3);
      expect([orders.offlineReason, orders.durableEndOffset]).toEqual([null, 21]);
      // The first roll's snapshot must be there before the recovery point passes it.
      const rolledAt = Segment.basesIn(fs, '/data/orders-0')[1]!;
      expect([known, orders.recoveryPoint]).toEqual([1, rolledAt]);
      expect(fs.list('/data/orders-0').filter((name) => name.endsWith('.tmp'))).toEqual([]);
      fs.failWhen(null);
      clock.advance(1_000);
      await settle();
      expect(orders.recoveryPoint).toBe(21);
      expect(happened('partitionOffline')).toEqual([]);
      const indexes = fs.list('/data/orders-0').filter((name) => name.endsWith('.index'));
      expect(indexes.length).toBeGreaterThanOrEqual(orders.segmentCount - 1);
      expect(openMemoryLogs({ fs: fs.afterPowerCut(loseUnsynced) }).log().logEndOffset).toBe(21);
    },
  );

  test.each(modes)(
    'at an orderly stop it keeps the marker from being written, and no record is doubted (%s)',
    async (flushMode) => {
      const { fs, log, logs, settle } = openMemoryLogs({ config: { flushMode } });
      const orders = log();
      append(orders, 'a', 'b', 'c');
      await settle();
      fs.failWhen((operation) => (isAid(operation) && operation.path.includes('orders-0') ? 'ENOSPC' : null));
      await logs.close();
      fs.failWhen(null);
      expect(fs.exists('/data/.kafka_cleanshutdown')).toBe(false);
      const again = openMemoryLogs({ fs: fs.afterKill(), config: { flushMode } });
      expect(again.log().logEndOffset).toBe(3);
      expect(again.happened('tailTruncated')).toEqual([]);
    },
  );

  test('a sync that finds no room is a failed sync all the same', async () => {
    const { fs, log, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'kept');
    await settle();
    fs.failWhen(({ name }) => (name === 'sync' ? 'ENOSPC' : null));
    append(orders, 'doubted');
    await settle();
    expect(orders.offlineReason).toMatch(/a sync failed: ENOSPC/);
  });

  test('refuses early below disk.min.free.bytes, but not the broker itself, and keeps its reserve', async () => {
    const options = { minFreeBytes: 10_000, reserveBytes: 4_000 };
    const { fs, log, clock, happened, settle, space } = openMemoryLogs(options);
    const orders = log();
    expect(fs.size('/data/.reserve')).toBe(4_000);
    append(orders, 'a');
    await settle();
    const used = 1_000_000 - 9_999;
    fs.capacityBytes = 1_000_000;
    fs.open('/data/other', 'create').writeNow([Buffer.alloc(used)], 0);
    clock.advance(1_000);
    expect(() => append(orders, 'b')).toThrow(AppendRefused);
    expect(fs.size('/data/.reserve')).toBe(4_000);
    expect(happened('diskLow')).toHaveLength(1);
    const internal = openMemoryLogs({ ...options, fs: fs.afterKill(), config: { isInternal: true } });
    append(internal.log('__consumer_offsets'), 'commit');
    await internal.settle();
    expect(internal.log('__consumer_offsets').durableEndOffset).toBe(1);
    fs.remove('/data/other');
    clock.advance(1_000);
    expect(space.isLow).toBe(false);
    append(orders, 'b');
    await settle();
    expect(orders.durableEndOffset).toBe(2);
    expect(fs.size('/data/.reserve')).toBe(4_000);
  });
});

describe('the reserve', () => {
  const options = { minFreeBytes: 10_000, reserveBytes: 4_000, config: { retentionBytes: 0 } };

  /** A log of six segments, and a disk that somebody else fills to the last byte, first a part and then the rest. */
  async function filled() {
    const logs = openMemoryLogs(options);
    const { fs, clock, settle } = logs;
    const log = logs.log();
    for (let i = 0; i < 20; i++) append(log, 'x'.repeat(1_000));
    await settle();
    log.advanceHighWatermark(20);
    fs.capacityBytes = 1_000_000;
    const other = fs.open('/data/other', 'create');
    let size = 0;
    const eat = (left: number): void => {
      const piece = fs.freeBytes() - left;
      other.writeNow([Buffer.alloc(piece)], size);
      size += piece;
    };
    eat(9_000);
    clock.advance(1_000);
    await settle();
    eat(0);
    clock.advance(1_000);
    await settle();
    return { ...logs, log, free: () => fs.remove('/data/other') };
  }

  test.each([
    ['retention', (logs: MemoryLogs) => logs.logs.retain()],
    ['deleting records', ({ log }: MemoryLogs) => log().deleteBefore(15)],
  ])('is given up for %s, and made again when there is room', async (_, act) => {
    const { log, clock, settle, fs, happened, free, ...rest } = await filled();
    const before = log.segmentCount;
    expect(fs.exists('/data/.reserve')).toBe(true);
    const done = act({ log: () => log, clock, settle, fs, happened, ...rest });
    await settle();
    await done;
    expect(log.segmentCount).toBeLessThan(before);
    expect(happened('reserveGivenUp')).toHaveLength(1);
    expect(openMemoryLogs({ ...options, fs: fs.afterKill() }).log().logStartOffset).toBe(log.logStartOffset);
    free();
    clock.advance(1_000);
    expect(fs.size('/data/.reserve')).toBe(4_000);
  });

  test('is given up for a start that has to keep what it found', async () => {
    const { fs, log, settle } = openMemoryLogs({ reserveBytes: 4_000 });
    append(log(), 'a');
    await settle();
    const again = fs.afterPowerCut(loseUnsynced);
    again.failWhen(({ name, path }) =>
      name === 'write' && path.includes('rookery.json') && again.exists('/data/.reserve') ? 'ENOSPC' : null,
    );
    const restarted = openMemoryLogs({ fs: again, reserveBytes: 4_000 });
    expect(restarted.log().logEndOffset).toBe(1);
    expect(restarted.happened('reserveGivenUp')).toHaveLength(1);
  });

  test('is not begun where there is no room for all of it, nor left half made', async () => {
    const fs = new MemoryFileSystem();
    fs.capacityBytes = 10_000;
    const logs = openMemoryLogs({ fs, minFreeBytes: 1_000, reserveBytes: 5_000 });
    expect(fs.exists('/data/.reserve')).toBe(false);
    fs.capacityBytes = 20_000;
    fs.failWhen(({ name, path }) => (name === 'write' && path.endsWith('.reserve') ? 'ENOSPC' : null));
    logs.clock.advance(1_000);
    expect(fs.exists('/data/.reserve')).toBe(false);
    fs.failWhen(null);
    logs.clock.advance(1_000);
    expect(fs.size('/data/.reserve')).toBe(5_000);
  });

  test('is kept also where nothing is refused early', () => {
    const { fs } = openMemoryLogs({ minFreeBytes: 0, reserveBytes: 4_000 });
    expect(fs.size('/data/.reserve')).toBe(4_000);
  });
});

describe('a failed sync', () => {
  test('takes its partition offline, is never tried again, and the rest serves on', async () => {
    const { fs, log, happened, settle, clock } = openMemoryLogs();
    const [orders, payments] = [log('orders'), log('payments')];
    append(orders, 'good');
    append(payments, 'good');
    await settle();
    fs.failWhen(({ name, path }) => (name === 'sync' && path.includes('orders') ? 'EIO' : null));
    append(orders, 'lost');
    append(payments, 'kept');
    await settle();
    const syncs = () =>
      fs.operations.filter(({ name, path }) => name === 'sync' && path.includes('orders-0/0'));
    const failedOnce = syncs().length;
    clock.advance(10_000);
    await settle();
    expect(syncs()).toHaveLength(failedOnce);
    expect(orders.durableEndOffset).toBe(1);
    expect(orders.offlineReason).toMatch(/a sync failed: EIO/);
    expect(() => append(orders, 'refused')).toThrow(AppendRefused);
    expect(happened('partitionOffline')).toHaveLength(1);
    expect(payments.durableEndOffset).toBe(2);
    // What was synced before can still be read.
    expect(await valuesIn(orders)).toBeGreaterThan(0);
  });

  test.each(modes)(
    'leaves nothing above the last good sync to be trusted after a restart (%s)',
    async (flushMode) => {
      const { fs, log, settle, clock } = openMemoryLogs({ config: { flushMode } });
      const orders = log();
      append(orders, 'good');
      await settle();
      clock.advance(1_000);
      await settle();
      fs.failWhen(({ name, path }) => (name === 'sync' && path.includes('orders-0/') ? 'EIO' : null));
      append(orders, 'reads well', 'but is not on the platter');
      await settle();
      clock.advance(1_000);
      await settle();
      expect(orders.offlineReason).toMatch(/a sync failed/);
      const again = openMemoryLogs({ fs: fs.afterKill(), config: { flushMode } });
      expect(again.log().logEndOffset).toBe(1);
      expect(again.log().offlineReason).toBeNull();
      expect(again.happened('tailTruncated')).toMatchObject([{ fromOffset: 1 }]);
      // The word that was left is not needed twice.
      append(again.log(), 'new');
      await again.settle();
      expect(openMemoryLogs({ fs: again.fs.afterKill() }).log().logEndOffset).toBe(2);
    },
  );

  test('keeps the mark of an orderly stop away', async () => {
    const { fs, log, logs, settle } = openMemoryLogs();
    append(log(), 'a');
    fs.failWhen(({ name, path }) => (name === 'sync' && path.endsWith('.log') ? 'EIO' : null));
    await settle();
    fs.failWhen(null);
    await logs.close();
    expect(fs.exists('/data/.kafka_cleanshutdown')).toBe(false);
  });
});

test('a write that fails for another reason takes the partition offline', async () => {
  const { fs, log, settle } = openMemoryLogs();
  const orders = log();
  append(orders, 'a');
  await settle();
  fs.failWhen(({ name }) => (name === 'write' ? 'EIO' : null));
  append(orders, 'b');
  await settle();
  expect(orders.offlineReason).toMatch(/a write failed: EIO/);
  expect(orders.durableEndOffset).toBe(1);
});
