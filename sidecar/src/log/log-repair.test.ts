import { RecordBatch } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { FileRegion } from '../vfs/file-region.ts';
import { readFile } from '../vfs/file-system.ts';
import type { MemoryFileSystem } from '../vfs/memory.ts';
import { checkPartition, expectedOf, type PartitionCheck } from './log-check.ts';
import { dump } from './log-dump.ts';
import { planSkipping, planTruncation, repair, type Repair } from './log-repair.ts';
import { batchOf, changeFile, openMemoryLogs, smallLogs, type MemoryLogs } from './memory-logs.ts';

const directory = '/data/orders-0';

/** A stopped broker's disk with twelve batches of one record, four a segment. */
async function aDisk(): Promise<MemoryFileSystem> {
  const logs = openMemoryLogs();
  const log = logs.log();
  log.assignLeaderEpoch(0, 0);
  for (let i = 0; i < 12; i++) log.appendAsLeader([batchOf([String(i).padEnd(900, '.')])], 0);
  await logs.settle();
  await logs.logs.close();
  logs.directory.unlock();
  return logs.fs.afterKill();
}

const change = (disk: MemoryFileSystem, name: string, by: (bytes: Buffer) => void): void =>
  changeFile(disk, `${directory}/${name}`, by);

const check = (disk: MemoryFileSystem): PartitionCheck =>
  checkPartition(disk, directory, expectedOf(disk, '/data', 'orders-0'));

function repaired(disk: MemoryFileSystem, plan: (check: PartitionCheck) => Repair): MemoryLogs {
  const found = check(disk);
  repair({ fs: disk, dataDir: '/data', partition: 'orders-0', config: smallLogs }, found, plan(found));
  expect(check(disk).damages).toEqual([]);
  return openMemoryLogs({ fs: disk });
}

function valuesOf(logs: MemoryLogs): number[] {
  const log = logs.log();
  const offsets: number[] = [];
  for (let offset = log.logStartOffset; ;) {
    const { spans } = log.read(offset, 1, Infinity, true);
    if (spans.length === 0) return offsets;
    for (const batch of RecordBatch.split(spans.map((span) => (span as FileRegion).readNow()))) {
      if (batch.recordCount > 0) offsets.push(batch.baseOffset);
      offset = batch.nextOffset;
    }
    for (const span of spans) (span as FileRegion).release();
  }
}

const second = '00000000000000000004';
const rot = (bytes: Buffer): void => void (bytes[100]! ^= 0xff);

test('a whole log is whole, and a check changes nothing', async () => {
  const disk = await aDisk();
  const before = disk.fingerprint('/', (bytes) => String(bytes));
  const found = check(disk);
  expect(found).toMatchObject({ logStartOffset: 0, logEndOffset: 12, damages: [], faults: [] });
  expect(found.good).toMatchObject({ segments: 3, batches: 12, records: 12 });
  expect(disk.fingerprint('/', (bytes) => String(bytes))).toBe(before);
});

describe('one rotten batch', () => {
  test.each<[string, number]>([
    ...[0, 1, 2, 3, 4, 5, 6, 7].map((at): [string, number] => [`byte ${at} of the base offset`, at]),
    ['batch length', 10],
    ['magic', 16],
    ['CRC', 18],
    ['attributes', 21],
    ['last offset delta', 25],
    ['max timestamp', 40],
    ['record count', 59],
    ['payload', 500],
  ])('is found by its %s, with the offset and what each repair would lose', async (_, at) => {
    const disk = await aDisk();
    change(disk, `${second}.log`, (bytes) => void (bytes[at]! ^= 0x41));
    const found = check(disk);
    expect(found.damages).toMatchObject([{ segment: 4, position: 0, offset: 4, endOffset: 5 }]);
    expect(found.good.records).toBe(11);
    expect(planTruncation(found, 4)).toMatchObject({ endOffset: 4, lost: { records: 7, segments: 2 } });
  });

  test('is cut off with everything behind it', async () => {
    const disk = await aDisk();
    change(disk, `${second}.log`, rot);
    const logs = repaired(disk, (found) => planTruncation(found, 4));
    expect(valuesOf(logs)).toEqual([0, 1, 2, 3]);
    expect(logs.log().appendAsLeader([batchOf(['more'])], 0).baseOffset).toBe(4);
  });

  test('is skipped, and every other record keeps its offset', async () => {
    const disk = await aDisk();
    change(disk, `${second}.log`, rot);
    const logs = repaired(disk, planSkipping);
    expect(valuesOf(logs)).toEqual([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
    expect(logs.log().appendAsLeader([batchOf(['more'])], 0).baseOffset).toBe(12);
  });

  test('is not left in front of a truncation', async () => {
    const disk = await aDisk();
    change(disk, `${second}.log`, rot);
    expect(() => planTruncation(check(disk), 8)).toThrow('RK0307');
  });
});

test('a lost segment is skipped', async () => {
  const disk = await aDisk();
  disk.remove(`${directory}/${second}.log`);
  expect(check(disk).damages).toMatchObject([{ offset: 4, endOffset: 8 }]);
  expect(valuesOf(repaired(disk, planSkipping))).toEqual([0, 1, 2, 3, 8, 9, 10, 11]);
});

test('a lost head is skipped: the log starts with what is left', async () => {
  const disk = await aDisk();
  disk.remove(`${directory}/00000000000000000000.log`);
  const logs = repaired(disk, planSkipping);
  expect(logs.log().logStartOffset).toBe(4);
  expect(valuesOf(logs)).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
});

test('a repair ends the quarantine that an earlier run has left word of', async () => {
  const disk = await aDisk();
  change(disk, `${second}.log`, rot);
  const sick = openMemoryLogs({ fs: disk });
  sick.log().condemn({ segment: 4, position: 0, offset: 4, reason: 'seen by a scrub' });
  sick.directory.unlock();
  const next = sick.fs.afterKill();
  expect(openMemoryLogs({ fs: next.afterKill() }).log().rot).not.toBeNull();
  const logs = repaired(next, planSkipping);
  expect(logs.log().rot).toBeNull();
});

test('nothing is mended under a running broker', async () => {
  const disk = await aDisk();
  openMemoryLogs({ fs: disk });
  const found = check(disk);
  const deps = { fs: disk, dataDir: '/data', partition: 'orders-0', config: smallLogs };
  expect(() => repair(deps, found, planTruncation(found, 4))).toThrow('RK0302');
});

test('indexes, snapshots and checkpoints that tell lies are named', async () => {
  const disk = await aDisk();
  const zero = (bytes: Buffer): void => void bytes.fill(0xa5);
  for (const name of [`${second}.index`, `${second}.timeindex`, `${second}.snapshot`, 'partition.metadata'])
    change(disk, name, zero);
  expect(
    check(disk)
      .faults.map(({ file }) => file)
      .sort(),
  ).toEqual([`${second}.index`, `${second}.snapshot`, `${second}.timeindex`, 'partition.metadata']);
});

test('a dump shows what can be read of a broken file, and where it stops', async () => {
  const disk = await aDisk();
  change(disk, `${second}.log`, (bytes) => {
    rot(bytes);
    bytes.writeInt32BE(-5, bytes.length - readFile(disk, `${directory}/${second}.log`)!.length + 1000);
  });
  const lines = [...dump(disk, `${directory}/${second}.log`)!];
  expect(lines[0]).toMatch(/^position 0 baseOffset 4 .* crc WRONG$/);
  expect([...dump(disk, `${directory}/${second}.index`)!][0]).toMatch(/^offset \d+ position \d+$/);
  expect(dump(disk, `${directory}/none.log`)).toBeNull();
});
