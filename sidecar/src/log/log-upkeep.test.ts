import { encodeBatch, RecordBatch } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import type { LogConfig } from '../log-config.ts';
import { batchOf, openMemoryLogs, type MemoryLogs } from './memory-logs.ts';
import type { FileRegion } from '../vfs/file-region.ts';
import { OffsetOutOfRange } from './log-reader.ts';
import { type PartitionLog } from './partition-log.ts';

const dayMs = 86_400_000;
const began = 1_700_000_000_000;

/** Batches of one record of some 500 bytes, so that a segment of 4 KiB holds seven of them. */
async function fill(logs: MemoryLogs, count: number): Promise<PartitionLog> {
  const log = logs.log();
  for (let i = 0; i < count; i++) {
    log.appendAsLeader([batchOf(['x'.repeat(450)], { timestamp: logs.clock.now() })], 0);
    await logs.settle();
    log.advanceHighWatermark(log.durableEndOffset);
  }
  return log;
}

/** One pass of retention, which lets the loop turn after each log. */
async function upkeep(logs: MemoryLogs, failures = 0): Promise<void> {
  const pass = logs.logs.retain();
  await logs.settle();
  await pass;
  expect(logs.happened('backgroundFailed').length).toBe(failures);
}

const open = (config: Partial<LogConfig> = {}) => openMemoryLogs({ config });
const logFiles = ({ fs }: MemoryLogs): string[] =>
  fs.list('/data/orders-0').filter((name) => name.endsWith('.log'));

describe('retention', () => {
  test('by size keeps the youngest segments, and remembers the start over a restart', async () => {
    const logs = open({ retentionBytes: 8_192 });
    const log = await fill(logs, 50);
    await upkeep(logs);
    expect(log.sizeInBytes).toBeLessThan(8_192 + 4_096);
    expect(log.logStartOffset).toBeGreaterThan(0);
    expect(logFiles(logs)).toHaveLength(log.segmentCount);
    expect(() => log.read(0, 1_000, Infinity, true)).toThrow(OffsetOutOfRange);
    const again = openMemoryLogs({ fs: logs.fs.afterKill() }).log();
    expect(again.logStartOffset).toBe(log.logStartOffset);
    expect(again.logEndOffset).toBe(50);
  });

  test('by time empties a quiet log, active segment and all, and its offsets go on', async () => {
    const logs = open({ retentionMs: dayMs });
    const log = await fill(logs, 10);
    logs.clock.advance(2 * dayMs);
    await upkeep(logs);
    await logs.settle();
    expect(log.sizeInBytes).toBe(0);
    expect(log.logStartOffset).toBe(10);
    const again = openMemoryLogs({ fs: logs.fs.afterKill() }).log();
    expect(again.logStartOffset).toBe(10);
    expect(again.appendAsLeader([batchOf(['new'])], 0).baseOffset).toBe(10);
  });

  test('rolls a quiet active segment after segment.ms', async () => {
    const logs = open({ segmentMs: dayMs });
    const log = await fill(logs, 1);
    logs.clock.advance(dayMs + 1);
    await upkeep(logs);
    expect(log.segmentCount).toBe(2);
    // An empty one is not rolled again.
    logs.clock.advance(dayMs + 1);
    await upkeep(logs);
    expect(log.segmentCount).toBe(2);
  });

  test('by time keeps records without times, also after a kill: their file is not old', async () => {
    const logs = open({ retentionMs: dayMs });
    const log = logs.log();
    log.appendAsLeader([batchOf(['no time'], { timestamp: -1 })], 0);
    await logs.settle();
    log.advanceHighWatermark(1);
    await upkeep(logs);
    expect([log.logStartOffset, log.segmentCount]).toEqual([0, 1]);
    const again = openMemoryLogs({ fs: logs.fs.afterKill(), config: { retentionMs: dayMs } });
    again.log().advanceHighWatermark(1);
    await upkeep(again);
    expect(again.log().logStartOffset).toBe(0);
  });

  test('by time empties a quiet log whose segment has rolled before', async () => {
    const logs = open({ segmentMs: dayMs, retentionMs: 2 * dayMs });
    const log = await fill(logs, 3);
    logs.clock.advance(dayMs + 1);
    await upkeep(logs);
    expect([log.segmentCount, log.logStartOffset]).toEqual([2, 0]);
    logs.clock.advance(dayMs + 1);
    await upkeep(logs);
    await logs.settle();
    expect([log.segmentCount, log.logStartOffset, log.sizeInBytes]).toEqual([1, 3, 0]);
  });

  test('never touches what the replicas have not agreed on', async () => {
    const logs = open({ retentionBytes: 0 });
    const log = await fill(logs, 30);
    log.advanceHighWatermark(10);
    await upkeep(logs);
    expect(log.logStartOffset).toBeLessThanOrEqual(10);
  });

  test('leaves a log alone that is not to be deleted', async () => {
    const logs = open({ retentionBytes: 0, retentionMs: 0, isDeleted: false });
    const log = await fill(logs, 30);
    logs.clock.advance(dayMs);
    await upkeep(logs);
    expect(log.logStartOffset).toBe(0);
  });

  test('files get another name at once and go after file.delete.delay.ms; a reader keeps its bytes', async () => {
    const logs = open({ retentionBytes: 0, fileDeleteDelayMs: 60_000 });
    const log = await fill(logs, 20);
    const [region] = log.read(0, 4_000, Infinity, true).spans as readonly FileRegion[];
    const before = region!.readNow();
    await upkeep(logs);
    const aside = () => logs.fs.list('/data/orders-0').filter((name) => name.endsWith('.deleted'));
    expect(aside().length).toBeGreaterThan(0);
    logs.clock.advance(60_000);
    await logs.settle();
    expect(aside()).toEqual([]);
    expect(region!.readNow().equals(before)).toBe(true);
    region!.release();
  });

  test('a deleted partition gets another name at once and goes after file.delete.delay.ms', async () => {
    const logs = open({ fileDeleteDelayMs: 60_000 });
    await fill(logs, 3);
    const named = (): string[] => logs.fs.list('/data').filter((name) => name.startsWith('orders-0'));
    logs.logs.delete('orders', 0);
    expect(logs.logs.get('orders', 0)).toBeUndefined();
    expect(named()).toEqual([expect.stringMatching(/^orders-0\.[0-9a-f]{32}-delete$/)]);
    logs.clock.advance(59_999);
    await logs.settle();
    expect(named()).toHaveLength(1);
    logs.clock.advance(1);
    await logs.settle();
    expect(named()).toEqual([]);
  });

  test('a start removes at once what was being deleted', async () => {
    const logs = open({ fileDeleteDelayMs: 60_000 });
    await fill(logs, 3);
    logs.logs.delete('orders', 0);
    const again = openMemoryLogs({ fs: logs.fs.afterKill() });
    again.clock.advance(0);
    await again.settle();
    expect(again.fs.list('/data').filter((name) => name.startsWith('orders-0'))).toEqual([]);
  });

  test('a disk that fails in the middle loses no log', async () => {
    const logs = open({ retentionBytes: 0 });
    const log = await fill(logs, 20);
    logs.fs.failWhen(({ name, path }) => (name === 'write' && path.includes('checkpoint') ? 'EIO' : null));
    await upkeep(logs, 1);
    logs.fs.failWhen(null);
    expect(logFiles(logs).length).toBeGreaterThan(1);
    await upkeep(logs, 1);
    await logs.settle();
    expect(openMemoryLogs({ fs: logs.fs.afterKill() }).log().logStartOffset).toBe(log.logStartOffset);
  });
});

describe('deleting records', () => {
  test('moves the start; what is left of a segment stays until all of it may go', async () => {
    const logs = open();
    const log = await fill(logs, 30);
    const segments = log.segmentCount;
    await log.deleteBefore(3);
    expect(log.logStartOffset).toBe(3);
    expect(log.segmentCount).toBe(segments);
    await log.deleteBefore(20);
    expect(log.segmentCount).toBeLessThan(segments);
    await log.deleteBefore(5);
    expect(log.logStartOffset).toBe(20);
    await expect(log.deleteBefore(31)).rejects.toThrow(OffsetOutOfRange);
    const again = openMemoryLogs({ fs: logs.fs.afterKill() }).log();
    expect(again.logStartOffset).toBe(20);
  });

  test('of everything leaves an empty log that goes on with the next offset', async () => {
    const logs = open();
    const log = await fill(logs, 5);
    await log.deleteBefore(5);
    expect(log.sizeInBytes).toBe(0);
    const again = openMemoryLogs({ fs: logs.fs.afterKill() });
    expect(again.log().appendAsLeader([batchOf(['next'])], 0).baseOffset).toBe(5);
  });
});

describe('the youngest record, when it was deleted', () => {
  /** Batches of one record with these times; every segment holds two of them. */
  async function at(...times: number[]) {
    const logs = open({ segmentBytes: 1_100 });
    const log = logs.log();
    for (const timestamp of times) {
      log.appendAsLeader([batchOf(['x'.repeat(450)], { timestamp })], 0);
      await logs.settle();
      log.advanceHighWatermark(log.durableEndOffset);
    }
    return log;
  }

  test.each([
    ['in the same segment', [900, 100], 1, { offset: 1, timestamp: 100 }],
    ['in a later one', [900, 100, 300, 200], 1, { offset: 2, timestamp: 300 }],
    ['before one that is older', [900, 400, 300, 200], 1, { offset: 1, timestamp: 400 }],
    ['not at all, as far as another is as young', [900, 100, 900], 1, { offset: 2, timestamp: 900 }],
  ])('is looked for %s', async (_, times, start, found) => {
    const log = await at(...times);
    expect(await log.offsetOfMaxTimestamp()).toMatchObject({ offset: 0, timestamp: 900 });
    await log.deleteBefore(start);
    expect(await log.offsetOfMaxTimestamp()).toMatchObject(found);
  });

  test('is looked for inside the batch that the start is in', async () => {
    const logs = open();
    const log = logs.log();
    const values = [900, 100, 300].map((timestamp) => ({
      key: null,
      value: Buffer.from('x'),
      headers: [],
      timestamp,
    }));
    log.appendAsLeader(RecordBatch.split([encodeBatch(values, {})]), 0);
    await logs.settle();
    log.advanceHighWatermark(3);
    await log.deleteBefore(1);
    expect(await log.offsetOfMaxTimestamp()).toMatchObject({ offset: 2, timestamp: 300 });
  });
});

describe('cutting the end', () => {
  test.each([0, 1, 7, 13, 29, 30])(
    'at offset %i leaves what stood before, also after a crash',
    async (offset) => {
      const logs = open();
      const log = await fill(logs, 30);
      await log.truncateTo(offset);
      expect(log.logEndOffset).toBe(offset);
      expect(log.recoveryPoint).toBeLessThanOrEqual(offset);
      const killed = openMemoryLogs({ fs: logs.fs.afterKill() }).log();
      expect(killed.logEndOffset).toBe(offset);
      expect(killed.offlineReason).toBeNull();
      expect(log.appendAsLeader([batchOf(['again'])], 0).baseOffset).toBe(offset);
      await logs.settle();
      expect(openMemoryLogs({ fs: logs.fs.afterKill() }).log().logEndOffset).toBe(offset + 1);
    },
  );

  test.each(['orderly', 'not orderly'])(
    'inside the batch that the start is in leaves a log that goes on there, after a stop that was %s',
    async (stop) => {
      const logs = open();
      const log = logs.log();
      log.appendAsLeader([batchOf(['a', 'b', 'c'])], 0);
      await logs.settle();
      log.advanceHighWatermark(3);
      const deleted = log.deleteBefore(2);
      await logs.settle();
      await deleted;
      const cut = log.truncateTo(0);
      await logs.settle();
      await cut;
      expect([log.logStartOffset, log.logEndOffset]).toEqual([2, 2]);
      if (stop === 'orderly') await logs.logs.close();
      const again = openMemoryLogs({ fs: logs.fs.afterKill() }).log();
      expect(again.offlineReason).toBeNull();
      expect([again.logStartOffset, again.logEndOffset]).toEqual([2, 2]);
      expect(again.appendAsLeader([batchOf(['d'])], 1).baseOffset).toBe(2);
    },
  );
});

test('the high watermarks are kept in Kafka’s file', async () => {
  const logs = open();
  await fill(logs, 3);
  await logs.logs.close();
  const file = logs.fs.open('/data/replication-offset-checkpoint', 'read');
  const bytes = Buffer.alloc(file.size());
  file.readNow(bytes, 0);
  expect(bytes.toString()).toBe('0\n1\norders 0 3\n');
  expect(began).toBeLessThanOrEqual(logs.clock.now());
});
