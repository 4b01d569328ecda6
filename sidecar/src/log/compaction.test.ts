import {
  decodeRecords,
  encodeBatch,
  RecordBatch,
  type CompressionCodec,
  type NewRecord,
} from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import type { LogConfig } from '../log-config.ts';
import { FileRegion } from '../vfs/file-region.ts';
import { Checkpoint } from './checkpoint.ts';
import { compact } from './compaction.ts';
import { checkPartition, expectedOf } from './log-check.ts';
import { settle } from './log-repair.ts';
import { openMemoryLogs, smallLogs, type MemoryLogs } from './memory-logs.ts';
import type { PartitionLog } from './partition-log.ts';
import { RotFound } from './rot.ts';
import { Segment, segmentName } from './segment.ts';

const dayMs = 86_400_000;
const compacted: Partial<LogConfig> = { isCompacted: true, isDeleted: false, deleteRetentionMs: dayMs };
const keys = ['a', 'b', 'c', 'd', 'e'];

const open = (config: Partial<LogConfig> = {}, more: { mapBytesMax?: number } = {}): MemoryLogs =>
  openMemoryLogs({ config: { ...compacted, ...config }, ...more });

interface Written {
  key: string | null;
  value: string | null;
}

/** Appends a batch and lets everything about it come true. */
async function append(logs: MemoryLogs, records: readonly Written[], codec: CompressionCodec = 'none') {
  const log = logs.log();
  const made = records.map(({ key, value }): NewRecord => ({
    key: key === null ? null : Buffer.from(key),
    value: value === null ? null : Buffer.from(value.padEnd(200, '.')),
    timestamp: logs.clock.now(),
  }));
  log.appendAsLeader(RecordBatch.split([encodeBatch(made, { codec })]), 0, 'coordinator');
  await logs.settle();
  log.advanceHighWatermark(log.durableEndOffset);
}

/** Rolls, so that nothing of interest is active, and runs a pass. */
async function compactAll(logs: MemoryLogs): Promise<void> {
  logs.log().roll();
  logs.clock.advance(1_000);
  await logs.settle();
  const pass = logs.logs.compact();
  await logs.settle();
  await pass;
  logs.clock.advance(0);
  await logs.settle();
}

test('a compaction asks after every mebibyte that it has read whether it may go on', async () => {
  const logs = open({ segmentBytes: 1024 * 1024, maxMessageBytes: 1024 * 1024, minCleanableDirtyRatio: 0 });
  for (let i = 0; i < 12; i++) await append(logs, [{ key: 'a', value: 'x'.repeat(300_000) }]);
  logs.log().roll();
  await logs.settle();
  const plan = logs.log().compactionPlan(logs.log().chooseCompaction(null)!, 1_000_000);
  let pauses = 0;
  compact(logs.fs, plan, () => pauses++);
  // 3.6 MB, once for the keys and once for the records.
  expect(pauses).toBeGreaterThanOrEqual(4);
  expect(pauses).toBeLessThan(12);
});

function batchesIn(log: PartitionLog): RecordBatch[] {
  const batches: RecordBatch[] = [];
  let offset = log.logStartOffset;
  for (;;) {
    const { spans } = log.read(offset, 1_000_000, Infinity, true);
    if (spans.length === 0) return batches;
    for (const span of spans as FileRegion[]) {
      for (const batch of RecordBatch.split([span.readNow()])) {
        if (batch.lastOffset < offset) continue;
        expect(batch.checkCrc()).toBe(true);
        batches.push(batch);
        offset = batch.nextOffset;
      }
      span.release();
    }
  }
}

const recordsIn = (log: PartitionLog) =>
  batchesIn(log).flatMap((batch) => (batch.isControl ? [] : decodeRecords(batch)));

/** What a reader ends up with for each key. */
function state(log: PartitionLog): Record<string, string> {
  const table = new Map<string, string>();
  for (const { key, value } of recordsIn(log)) {
    if (value === null) table.delete(String(key));
    else table.set(String(key), String(value).replaceAll('.', ''));
  }
  return Object.fromEntries([...table].sort());
}

describe.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const)('with %s', (codec) => {
  test('the last record of each key stays, at its offset, and a reader sees the same table', async () => {
    const logs = open();
    for (let i = 0; i < 60; i++)
      await append(
        logs,
        [
          { key: keys[i % 5]!, value: `v${i}` },
          { key: 'x', value: `w${i}` },
        ],
        codec,
      );
    const before = state(logs.log());
    const end = logs.log().logEndOffset;
    await compactAll(logs);
    expect(state(logs.log())).toEqual(before);
    expect(recordsIn(logs.log()).map(({ offset }) => offset)).toEqual([110, 112, 114, 116, 118, 119]);
    expect(logs.log().logEndOffset).toBe(end);
    const again = openMemoryLogs({ fs: logs.fs.afterKill(), config: compacted }).log();
    expect(state(again)).toEqual(before);
    expect(again.logEndOffset).toBe(end);
  });
});

test('every offset can still be asked for: a hole leads to the next record', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: 'same', value: `v${i}` }]);
  await compactAll(logs);
  for (let offset = 0; offset <= 39; offset++) {
    const { spans } = logs.log().read(offset, 1_000_000, Infinity, true);
    const [region] = spans as FileRegion[];
    expect(RecordBatch.split([region!.readNow()])[0]!.lastOffset).toBe(39);
    region!.release();
  }
});

test('a tombstone stays for delete.retention.ms after the first round, then it goes', async () => {
  const logs = open();
  await append(logs, [
    { key: 'gone', value: 'v' },
    { key: 'kept', value: 'v' },
  ]);
  await append(logs, [{ key: 'gone', value: null }]);
  await compactAll(logs);
  expect(recordsIn(logs.log()).map(({ key }) => String(key))).toEqual(['kept', 'gone']);
  const [, tombstone] = batchesIn(logs.log());
  expect(tombstone!.hasDeleteHorizon).toBe(true);
  expect(decodeRecords(tombstone!)[0]!.timestamp).toBe(logs.clock.now() - 1_000);
  logs.clock.advance(dayMs + 1);
  // Something new must be dirty, or there is no reason for a round.
  await append(logs, [{ key: 'kept', value: 'w' }]);
  await compactAll(logs);
  expect(recordsIn(logs.log()).map(({ key }) => String(key))).toEqual(['kept']);
});

test('segments that have become small are joined by the next round, and nothing is left lying about', async () => {
  const logs = open();
  for (let i = 0; i < 200; i++) await append(logs, [{ key: keys[i % 5]!, value: `v${i}` }]);
  await compactAll(logs);
  const before = logs.log().segmentCount;
  await append(logs, [{ key: 'a', value: 'last' }]);
  await compactAll(logs);
  expect(before).toBeGreaterThan(8);
  expect(logs.log().segmentCount).toBeLessThan(5);
  expect(logs.happened('compacted')).toHaveLength(2);
  expect(logs.fs.list('/data/orders-0').filter((name) => /cleaned|swap|deleted/.test(name))).toEqual([]);
});

test('segments that go while they are read are no rot: the round is given up, and the next one compacts the rest', async () => {
  let isFirst = true;
  const logs: MemoryLogs = openMemoryLogs({
    config: { ...compacted, isDeleted: true },
    async compact(plan) {
      if (!isFirst) return compact(logs.fs, plan);
      isFirst = false;
      const removed = new Segment(logs.fs, plan.directory, plan.segments[0]!, '', 'read');
      const deleted = logs.log().deleteBefore(20);
      await logs.settle();
      await deleted;
      // As the compaction meets them: a file that was there a moment ago, and is neither made again nor read to its end.
      expect(() => removed.log).toThrow(/ENOENT/);
      throw new RotFound({ segment: 0, position: 0, offset: 0, reason: 'the file ends inside a batch' });
    },
  });
  for (let i = 0; i < 40; i++) await append(logs, [{ key: 'same', value: `v${i}` }]);
  await compactAll(logs);
  expect(isFirst).toBe(false);
  expect(logs.happened('partitionQuarantined')).toEqual([]);
  expect(logs.happened('backgroundFailed')).toEqual([]);
  await append(logs, [{ key: 'same', value: 'last' }]);
  await compactAll(logs);
  expect(recordsIn(logs.log()).map(({ offset }) => offset)).toEqual([40]);
});

test('what is active, undecided or not agreed on is left alone', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: 'same', value: `v${i}` }]);
  logs.log().advanceHighWatermark(20);
  await compactAll(logs);
  const offsets = recordsIn(logs.log()).map(({ offset }) => offset);
  expect(offsets.filter((offset) => offset >= 20)).toEqual(Array.from({ length: 20 }, (_, i) => 20 + i));
});

test('records younger than min.compaction.lag.ms stay', async () => {
  const logs = open({ minCompactionLagMs: dayMs });
  for (let i = 0; i < 40; i++) await append(logs, [{ key: 'same', value: `v${i}` }]);
  await compactAll(logs);
  expect(recordsIn(logs.log())).toHaveLength(40);
  logs.clock.advance(dayMs);
  await compactAll(logs);
  expect(recordsIn(logs.log()).map(({ offset }) => offset)).toEqual([39]);
});

test('a log is due by its share of dirty bytes, or when something dirty is old', async () => {
  const logs = open({ minCleanableDirtyRatio: 0.9, maxCompactionLagMs: dayMs });
  for (let i = 0; i < 40; i++) await append(logs, [{ key: `k${i}`, value: `v${i}` }]);
  await compactAll(logs);
  expect(logs.happened('compacted')).toHaveLength(1);
  await append(logs, [{ key: 'k1', value: 'new' }]);
  await compactAll(logs);
  expect(logs.happened('compacted')).toHaveLength(1);
  logs.clock.advance(dayMs + 1);
  await compactAll(logs);
  expect(logs.happened('compacted')).toHaveLength(2);
});

test('more keys than the memory takes are compacted in several rounds', async () => {
  const logs = open({}, { mapBytesMax: 24 * 40 });
  for (let i = 0; i < 200; i++) await append(logs, [{ key: `k${i % 100}`, value: `v${i}` }]);
  const before = state(logs.log());
  for (let round = 0; round < 12; round++) {
    await compactAll(logs);
    expect(state(logs.log())).toEqual(before);
  }
  const olds = recordsIn(logs.log()).filter(({ offset }) => offset < 100);
  expect(olds.length).toBeLessThan(100);
});

test('the last batch of a producer stays for the sequence in it, though its record goes', async () => {
  const logs = open();
  const batch = encodeBatch(
    [{ key: Buffer.from('k'), value: Buffer.from('v'), timestamp: logs.clock.now() }],
    {
      producerId: 5,
      producerEpoch: 0,
      baseSequence: 7,
    },
  );
  logs.log().appendAsLeader(RecordBatch.split([batch]), 0);
  for (let i = 0; i < 20; i++) await append(logs, [{ key: 'k', value: `v${i}` }]);
  await compactAll(logs);
  const [first] = batchesIn(logs.log());
  expect(first).toMatchObject({ producerId: 5, baseSequence: 7, recordCount: 0, baseOffset: 0 });
  const again = openMemoryLogs({ fs: logs.fs.afterKill(), config: compacted });
  expect(again.log().describeProducers()).toMatchObject([{ producerId: 5, lastSequence: 7 }]);
});

test('records of an aborted transaction go, its marker after delete.retention.ms', async () => {
  const logs = open();
  const options = { producerId: 5, producerEpoch: 0, isTransactional: true };
  const record = { key: Buffer.from('k'), value: Buffer.from('aborted'), timestamp: logs.clock.now() };
  const marker = {
    key: Buffer.from([0, 0, 0, 0]),
    value: Buffer.from([0, 0, 0, 0, 0, 0]),
    timestamp: logs.clock.now(),
  };
  await append(logs, [{ key: 'k', value: 'good' }]);
  for (const batch of [
    encodeBatch([record], { ...options, baseSequence: 0 }),
    encodeBatch([marker], { ...options, isControl: true }),
  ])
    logs.log().appendAsLeader(RecordBatch.split([batch]), 0, 'coordinator');
  await append(logs, [{ key: 'other', value: 'x' }]);
  await compactAll(logs);
  expect(state(logs.log())).toEqual({ k: 'good', other: 'x' });
  const marked = batchesIn(logs.log()).filter(({ isControl }) => isControl);
  expect(marked).toHaveLength(1);
  expect(marked[0]!.hasDeleteHorizon).toBe(true);
});

test('rot that is met on the way stops the log from being written, and keeps what is there', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: 'same', value: `v${i}` }]);
  logs.log().roll();
  const file = logs.fs.open('/data/orders-0/00000000000000000000.log', 'write');
  file.writeNow([Buffer.from('rot')], 100);
  await compactAll(logs);
  expect(logs.log().offlineReason).toMatch(/damaged from offset 0 on, at position 0 .*CRC/);
  expect(logs.fs.list('/data/orders-0').filter((name) => name.endsWith('.cleaned'))).toEqual([]);
});

test('a batch under another offset stops a round before it takes the place of later records', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: keys[i % 5]!, value: `v${i}` }]);
  logs.log().roll();
  const file = logs.fs.open('/data/orders-0/00000000000000000000.log', 'write');
  const [, second] = batchesIn(logs.log());
  file.writeNow([Buffer.from([9])], second!.sizeInBytes + 7);
  await compactAll(logs);
  expect(logs.log().rot).toMatchObject({ offset: 1, reason: 'base offset 9 where 1 should be' });
  expect(logs.happened('compacted')).toEqual([]);
});

test('a log with holes stays in service when its topic is compacted no more', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: keys[i % 5]!, value: `v${i}` }]);
  await compactAll(logs);
  const before = state(logs.log());
  logs.log().updateConfig({ ...logs.log().config, isCompacted: false, isDeleted: true });
  await logs.logs.scrub();
  expect(logs.log().offlineReason).toBeNull();
  const disk = logs.fs.afterKill();
  const found = checkPartition(disk, '/data/orders-0', expectedOf(disk, '/data', 'orders-0'));
  expect(found).toMatchObject({ damages: [], faults: [] });
  const again = openMemoryLogs({ fs: disk });
  expect(state(again.log())).toEqual(before);
  await again.logs.scrub();
  expect(again.log().offlineReason).toBeNull();
});

test('above the recovery point a hole is the end of the log, to the check as to the start', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: keys[i % 5]!, value: `v${i}` }]);
  await compactAll(logs);
  for (let i = 0; i < 60; i++) await append(logs, [{ key: keys[i % 5]!, value: `w${i}` }]);
  const disk = logs.fs.afterKill();
  const [point, emptied] = Segment.basesIn(disk, '/data/orders-0').slice(-3);
  const checkpoint = new Checkpoint(disk, '/data/recovery-point-offset-checkpoint');
  checkpoint.writeNow(new Map([['orders-0', point!]]));
  disk.open(`/data/orders-0/${segmentName(emptied!)}.log`, 'write').truncateNow(0);
  const { damages } = checkPartition(disk, '/data/orders-0', expectedOf(disk, '/data', 'orders-0'));
  expect(damages).toMatchObject([{ offset: emptied, isCutByStart: true }]);
  expect(openMemoryLogs({ fs: disk, config: compacted }).log().logEndOffset).toBe(emptied);
});

test('no one takes holes for rot when the note of who has them is lost', async () => {
  const logs = open();
  for (let i = 0; i < 40; i++) await append(logs, [{ key: keys[i % 5]!, value: `v${i}` }]);
  await compactAll(logs);
  const before = state(logs.log());
  const disk = logs.fs.afterKill();
  disk.remove('/data/cleaner-offset-checkpoint');
  const first = openMemoryLogs({ fs: disk });
  await first.logs.scrub();
  expect(state(first.log())).toEqual(before);
  // What the first start could not know, the second must not forget.
  const second = openMemoryLogs({ fs: first.fs.afterKill() });
  await second.logs.scrub();
  expect(state(second.log())).toEqual(before);
  expect(second.log().offlineReason).toBeNull();
});

test('compact and delete together: what is old goes, of the rest the last of each key stays', async () => {
  const logs = open({ isDeleted: true, retentionMs: 3 * dayMs });
  for (let i = 0; i < 30; i++) await append(logs, [{ key: `old${i % 3}`, value: `v${i}` }]);
  await compactAll(logs);
  logs.clock.advance(2 * dayMs);
  for (let i = 0; i < 30; i++) await append(logs, [{ key: `new${i % 3}`, value: `v${i}` }]);
  await compactAll(logs);
  logs.clock.advance(2 * dayMs);
  const pass = logs.logs.retain();
  await logs.settle();
  await pass;
  expect(Object.keys(state(logs.log()))).toEqual(['new0', 'new1', 'new2']);
});

test('a round that begins anew after a crash at any operation keeps the table', async () => {
  const logs = open();
  for (let i = 0; i < 60; i++) await append(logs, [{ key: keys[i % 5]!, value: `v${i}` }]);
  const before = state(logs.log());
  logs.log().roll();
  await logs.settle();
  const crashed: ReturnType<typeof logs.fs.afterKill>[] = [];
  logs.fs.beforeOperation = () => void crashed.push(logs.fs.afterKill());
  await compactAll(logs);
  logs.fs.beforeOperation = null;
  expect(crashed.length).toBeGreaterThan(30);
  for (const fs of crashed) {
    const found = checkPartition(fs, '/data/orders-0', expectedOf(fs, '/data', 'orders-0'));
    const settled = fs.afterKill();
    settle({ fs: settled, dataDir: '/data', partition: 'orders-0', config: smallLogs });
    expect(state(openMemoryLogs({ fs: settled, config: compacted }).log())).toEqual(before);
    // Nor does it matter that the topic is compacted no more when the broker is back.
    const kept = openMemoryLogs({ fs: fs.afterKill() });
    expect(state(kept.log())).toEqual(before);
    // The check has seen what the start was going to leave.
    expect([found.damages, found.logEndOffset]).toEqual([[], 60]);
    expect(found.good.records).toBe(recordsIn(kept.log()).length);
    await kept.logs.scrub();
    expect(kept.log().offlineReason).toBeNull();
    const again = openMemoryLogs({ fs, config: compacted });
    expect(state(again.log())).toEqual(before);
    expect(again.log().logEndOffset).toBe(60);
    await compactAll(again);
    expect(state(again.log())).toEqual(before);
  }
});
