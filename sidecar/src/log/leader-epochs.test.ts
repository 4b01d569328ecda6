import { describe, expect, test } from 'vitest';
import { readFile } from '../vfs/file-system.ts';
import type { MemoryFileSystem } from '../vfs/memory.ts';
import { loseUnsynced } from '../vfs/power-cut.ts';
import { checkPartition, expectedOf } from './log-check.ts';
import { batchOf, openMemoryLogs, type MemoryLogs } from './memory-logs.ts';

const directory = '/data/orders-0';
const file = `${directory}/leader-epoch-checkpoint`;
const starts = '0\n4\n0 0\n2 5\n3 6\n7 9\n';

/** Twelve batches of one record: five of epoch 0, one of 2, three of 3, three of 7. */
async function aDisk(): Promise<MemoryFileSystem> {
  const logs = openMemoryLogs();
  const log = logs.log();
  for (const [epoch, count] of [
    [0, 5],
    [2, 1],
    [3, 3],
    [7, 3],
  ] as const) {
    log.assignLeaderEpoch(epoch, log.logEndOffset);
    for (let i = 0; i < count; i++) log.appendAsLeader([batchOf(['x'.repeat(900)])], epoch);
    await logs.settle();
  }
  const saved = logs.logs.checkpoint();
  await logs.settle();
  await saved;
  expect(String(readFile(logs.fs, file))).toBe(starts);
  return logs.fs.afterKill();
}

function write(disk: MemoryFileSystem, path: string, text: string | Buffer, at?: number): void {
  const opened = disk.open(path, 'create');
  if (at === undefined) opened.truncateNow(0);
  opened.writeNow([Buffer.from(text)], at ?? 0);
  opened.syncNow();
  opened.release();
}

/** Makes a batch say another epoch, which lies outside its CRC. */
function change(disk: MemoryFileSystem, offset: number, epoch: number): void {
  const names = disk.list(directory).filter((name) => name.endsWith('.log'));
  const name = names.findLast((each) => Number(each.slice(0, 20)) <= offset)!;
  const bytes = readFile(disk, `${directory}/${name}`)!;
  let at = 0;
  while (Number(bytes.readBigInt64BE(at)) !== offset) at += 12 + bytes.readInt32BE(at + 8);
  const field = Buffer.alloc(4);
  field.writeInt32BE(epoch);
  write(disk, `${directory}/${name}`, field, at + 12);
}

const opened = (fs: MemoryFileSystem): MemoryLogs => {
  const logs = openMemoryLogs({ fs });
  expect(logs.log().offlineReason).toBeNull();
  return logs;
};

describe('the epochs are read from the batches when their file', () => {
  test.each([
    ['is gone', null],
    ['is empty', ''],
    ['is noise', '\xa5'.repeat(20)],
    ['was cut', starts.slice(0, -4)],
    ['goes back', '0\n4\n0 0\n3 5\n2 6\n7 9\n'],
    ['lacks the front', '0\n3\n2 5\n3 6\n7 9\n'],
    ['is an older one', '0\n3\n0 0\n2 5\n3 6\n'],
    ['tells of another epoch', '0\n4\n0 0\n2 5\n3 6\n6 9\n'],
    ['tells of another beginning', '0\n4\n0 0\n2 5\n3 6\n7 90\n'],
  ])('%s', async (_, text) => {
    const disk = await aDisk();
    if (text === null) disk.remove(file);
    else write(disk, file, text);
    const logs = opened(disk);
    expect(String(readFile(disk, file))).toBe(starts);
    expect(logs.happened('epochsRestored')).toMatchObject([{ partition: 'orders-0', file }]);
    expect(opened(logs.fs.afterKill()).happened('epochsRestored')).toEqual([]);
  });
});

test.each([
  [0, 99],
  [3, 2],
  [5, 0],
  [7, 99],
  [7, 1],
  [11, 99],
])('a batch at %i that says epoch %i changes nothing, with the file or without it', async (offset, epoch) => {
  const disk = await aDisk();
  change(disk, offset, epoch);
  expect(opened(disk.afterKill()).happened('epochsRestored')).toEqual([]);
  const { faults, damages } = checkPartition(disk, directory, expectedOf(disk, '/data', 'orders-0'));
  expect(damages).toEqual([]);
  expect(faults).toMatchObject([
    { problem: expect.stringContaining(`at offset ${offset} says leader epoch ${epoch}`) },
  ]);
  // The last one of all has none behind it that could tell; the only one of its epoch has none beside it.
  if (offset === 11 || offset === 5) return;
  disk.remove(file);
  opened(disk);
  expect(String(readFile(disk, file))).toBe(starts);
});

test('in quarantine they are known, and nothing is written', async () => {
  const disk = (await aDisk()).afterPowerCut(loseUnsynced);
  disk.remove(file);
  write(disk, `${directory}/00000000000000000008.log`, 'rot', 200);
  const logs = openMemoryLogs({ fs: disk });
  expect(logs.log().rot?.offset).toBe(8);
  expect([0, 5, 6, 7].map((offset) => logs.log().epochOf(offset))).toEqual([0, 2, 3, 3]);
  expect(disk.exists(file)).toBe(false);
});

test('the epoch in which a log begins anew, after it was cut down to nothing, outlives the power', async () => {
  const logs = openMemoryLogs();
  const log = logs.log();
  log.assignLeaderEpoch(0, 0);
  log.appendAsLeader([batchOf(['cut off'])], 0);
  await logs.settle();
  const cut = log.truncateTo(0);
  await logs.settle();
  await cut;
  log.assignLeaderEpoch(1, 0);
  log.appendAsLeader([batchOf(['written again'])], 1);
  await logs.settle();
  expect(String(readFile(logs.fs.afterPowerCut(loseUnsynced), file))).toBe('0\n1\n1 0\n');
});
