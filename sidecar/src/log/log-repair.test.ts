import { RecordBatch } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { FileRegion } from '../vfs/file-region.ts';
import { readFile } from '../vfs/file-system.ts';
import type { MemoryFileSystem } from '../vfs/memory.ts';
import { Checkpoint } from './checkpoint.ts';
import { checkPartition, expectedOf, type PartitionCheck } from './log-check.ts';
import { dump } from './log-dump.ts';
import { missedFrom, planSkipping, planTruncation, repair, rotIn, type Repair } from './log-repair.ts';
import { batchOf, changeFile, openMemoryLogs, smallLogs, type MemoryLogs } from './memory-logs.ts';
import type { PartitionLog } from './partition-log.ts';

const directory = '/data/orders-0';

/** A stopped broker's disk with twelve batches of one record, four a segment. */
const aDisk = (isMarked = false): Promise<MemoryFileSystem> =>
  diskWith(isMarked, (log) => {
    for (let i = 0; i < 12; i++) log.appendAsLeader([batchOf([String(i).padEnd(900, '.')])], 0);
  });

/** A stopped broker's disk with the offsets 0 to 19 in two batches, of which readers get those from 5 on. */
const aDiskThatStartsInABatch = (isMarked: boolean): Promise<MemoryFileSystem> =>
  diskWith(isMarked, async (log, { settle }) => {
    for (let i = 0; i < 2; i++) log.appendAsLeader([batchOf(Array<string>(10).fill('.'))], 0);
    await settle();
    log.advanceHighWatermark(20);
    await log.deleteBefore(5);
  });

/** @param isMarked the stop was an orderly one, not the mere end of the process */
async function diskWith(
  isMarked: boolean,
  fill: (log: PartitionLog, logs: MemoryLogs) => void | Promise<void>,
): Promise<MemoryFileSystem> {
  const logs = openMemoryLogs();
  const log = logs.log();
  log.assignLeaderEpoch(0, 0);
  await fill(log, logs);
  await logs.settle();
  await logs.logs.close();
  if (isMarked) logs.directory.markCleanStop();
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

const upTo = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

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

interface Spoilt {
  readonly of: string;
  readonly make?: (isMarked: boolean) => Promise<MemoryFileSystem>;
  readonly spoil: (disk: MemoryFileSystem) => void;
  /** The offsets that readers miss, and how many records they have left. */
  readonly from: number;
  readonly to: number;
  readonly left: number;
  readonly afterCut: Served;
  readonly afterSkip: Served;
  /** It is damage after an orderly stop alone: a crash may leave a directory so. */
  readonly isNoCrash?: true;
  /** A start looks at the ends of what was synced alone, so it is left to readers and the scrub. */
  readonly isUnseen?: true;
}

interface Served {
  readonly start?: number;
  readonly end: number;
  /** Base offsets of the batches. */
  readonly batches: readonly number[];
}

const [first, last] = ['00000000000000000000', '00000000000000000008'];
const without = (from: number, to: number): number[] => upTo(12).filter((at) => at < from || at >= to);

const spoilt: readonly Spoilt[] = [
  {
    of: 'a rotten batch',
    spoil: (disk) => change(disk, `${second}.log`, rot),
    ...{ from: 4, to: 5, left: 11, isUnseen: true },
    afterCut: { end: 4, batches: upTo(4) },
    afterSkip: { end: 12, batches: without(4, 5) },
  },
  {
    of: 'a lost segment',
    spoil: (disk) => disk.remove(`${directory}/${second}.log`),
    ...{ from: 4, to: 8, left: 8 },
    afterCut: { end: 4, batches: upTo(4) },
    afterSkip: { end: 12, batches: without(4, 8) },
  },
  {
    of: 'a lost head',
    spoil: (disk) => disk.remove(`${directory}/${first}.log`),
    ...{ from: 0, to: 4, left: 8 },
    afterCut: { end: 0, batches: [] },
    afterSkip: { start: 4, end: 12, batches: without(0, 4) },
  },
  {
    of: 'a lost end',
    spoil: (disk) => disk.remove(`${directory}/${last}.log`),
    ...{ from: 8, to: 12, left: 8 },
    afterCut: { end: 8, batches: upTo(8) },
    afterSkip: { end: 12, batches: upTo(8) },
  },
  {
    of: 'a lost segment and an emptied one behind it',
    spoil(disk) {
      disk.remove(`${directory}/${second}.log`);
      empty(disk, last);
    },
    ...{ from: 4, to: 12, left: 4 },
    afterCut: { end: 4, batches: upTo(4) },
    afterSkip: { end: 12, batches: upTo(4) },
  },
  {
    of: 'the loss of every log file',
    spoil: removeLogs,
    ...{ from: 0, to: 12, left: 0 },
    afterCut: { end: 0, batches: [] },
    afterSkip: { end: 12, batches: [] },
  },
  {
    of: 'strange bytes at the end',
    spoil: (disk) => append(disk, last),
    ...{ from: 12, to: 12, left: 12, isNoCrash: true },
    afterCut: { end: 12, batches: upTo(12) },
    afterSkip: { end: 12, batches: upTo(12) },
  },
  {
    of: 'strange bytes at the end of a sealed segment',
    spoil: (disk) => append(disk, second),
    ...{ from: 8, to: 8, left: 12 },
    afterCut: { end: 8, batches: upTo(8) },
    afterSkip: { end: 12, batches: upTo(12) },
  },
  {
    of: 'a rotten batch in which the log starts',
    make: aDiskThatStartsInABatch,
    spoil: (disk) => change(disk, `${first}.log`, rot),
    ...{ from: 5, to: 10, left: 10, isUnseen: true },
    afterCut: { start: 5, end: 5, batches: [] },
    afterSkip: { start: 5, end: 20, batches: [10] },
  },
  {
    of: 'the loss of every log file of a log that starts in a batch',
    make: aDiskThatStartsInABatch,
    spoil: removeLogs,
    ...{ from: 5, to: 20, left: 0 },
    afterCut: { start: 5, end: 5, batches: [] },
    afterSkip: { start: 5, end: 20, batches: [] },
  },
  {
    of: 'an end before the log start',
    make: aDiskThatStartsInABatch,
    spoil(disk) {
      empty(disk, first);
      const points = new Checkpoint(disk, '/data/recovery-point-offset-checkpoint');
      points.writeNow(new Map([['orders-0', 0]]));
    },
    ...{ from: 5, to: 5, left: 0, isNoCrash: true },
    afterCut: { start: 5, end: 5, batches: [] },
    afterSkip: { start: 5, end: 5, batches: [] },
  },
];

function removeLogs(disk: MemoryFileSystem): void {
  for (const name of disk.list(directory)) if (name.endsWith('.log')) disk.remove(`${directory}/${name}`);
}

function empty(disk: MemoryFileSystem, segment: string): void {
  const file = disk.open(`${directory}/${segment}.log`, 'write');
  file.truncateNow(0);
  file.syncNow();
  file.release();
}

function append(disk: MemoryFileSystem, segment: string): void {
  const file = disk.open(`${directory}/${segment}.log`, 'write');
  file.writeNow([Buffer.from('of nobody knows whom')], file.size());
  file.syncNow();
  file.release();
}

const stops = [
  ['an orderly stop', true],
  ['a kill', false],
] as const;

describe.each(stops)('after %s', (_, isMarked) => {
  describe.each(spoilt.filter(({ isNoCrash }) => isMarked || !isNoCrash))(
    '$of',
    ({ make = aDisk, spoil, from, to, left, isUnseen, afterCut, afterSkip }) => {
      async function aSpoiltDisk(): Promise<MemoryFileSystem> {
        const disk = await make(isMarked);
        spoil(disk);
        return disk;
      }

      test('is damage to a check, as it is to a start', async () => {
        const disk = await aSpoiltDisk();
        const found = check(disk);
        const damages = rotIn(found);
        expect([missedFrom(found, damages[0]!), damages.at(-1)!.endOffset]).toEqual([from, to]);
        expect(found.good.records).toBe(left);
        if (!isUnseen) expect(openMemoryLogs({ fs: disk }).log().rot).not.toBeNull();
      });

      test.each<[string, (check: PartitionCheck) => Repair, Served]>([
        ['cut off', (found) => planTruncation(found, from), afterCut],
        ['skipped', planSkipping, afterSkip],
      ])('is %s, and the next start serves the rest and takes more', async (_how, plan, expected) => {
        const logs = repaired(await aSpoiltDisk(), plan);
        const log = logs.log();
        const { start = 0, end, batches } = expected;
        expect([log.offlineReason, log.logStartOffset, log.logEndOffset]).toEqual([null, start, end]);
        expect(valuesOf(logs)).toEqual(batches);
        log.assignLeaderEpoch(1, end);
        expect(log.appendAsLeader([batchOf(['more'])], 1).baseOffset).toBe(end);
        await logs.settle();
        await logs.logs.close();
        logs.directory.unlock();
        const again = openMemoryLogs({ fs: logs.fs.afterKill() });
        expect([again.log().rot, again.log().logEndOffset]).toEqual([null, end + 1]);
        expect(valuesOf(again)).toEqual([...batches, end]);
      });
    },
  );
});

test('a truncation inside the batch that holds the log start ends the log at its start', async () => {
  const disk = await aDiskThatStartsInABatch(true);
  const found = check(disk);
  expect(found.good).toMatchObject({ batches: 2, records: 15 });
  expect(planTruncation(found, 7)).toMatchObject({ endOffset: 5, lost: { batches: 2, records: 15 } });
  expect(() => planTruncation(found, 4)).toThrow('RK0307');
  const log = repaired(disk, () => planTruncation(found, 7)).log();
  expect([log.offlineReason, log.logStartOffset, log.logEndOffset]).toEqual([null, 5, 5]);
  expect(log.appendAsLeader([batchOf(['more'])], 0).baseOffset).toBe(5);
});

test.each(stops)(
  'after %s, a truncation in a hole of a compacted log ends the log there',
  async (_, isMarked) => {
    const disk = await aDisk(isMarked);
    new Checkpoint(disk, '/data/cleaner-offset-checkpoint').writeNow(new Map([['orders-0', 8]]));
    disk.remove(`${directory}/${second}.log`);
    const logs = repaired(disk, (found) => planTruncation(found, 6));
    expect([logs.log().offlineReason, logs.log().logEndOffset]).toEqual([null, 6]);
    expect(logs.log().appendAsLeader([batchOf(['more'])], 0).baseOffset).toBe(6);
    await logs.settle();
    expect(valuesOf(logs)).toEqual([0, 1, 2, 3, 6]);
  },
);

test('a skip that one batch cannot stand for is refused before anything is changed', async () => {
  const disk = await aDisk();
  const points = new Checkpoint(disk, '/data/recovery-point-offset-checkpoint');
  points.writeNow(new Map([['orders-0', 2 ** 32]]));
  expect(() => planSkipping(check(disk))).toThrow('RK0307');
  expect(repaired(disk, (found) => planTruncation(found, 12)).log().logEndOffset).toBe(12);
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
