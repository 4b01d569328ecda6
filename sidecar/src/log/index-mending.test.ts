import { encodeBatch, RecordBatch } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { readFile } from '../vfs/file-system.ts';
import type { MemoryFileSystem } from '../vfs/memory.ts';
import { loseUnsynced } from '../vfs/power-cut.ts';
import { checkPartition, expectedOf } from './log-check.ts';
import { IndexLies } from './log-reader.ts';
import { changeFile, openMemoryLogs, type MemoryLogs } from './memory-logs.ts';
import type { PartitionLog } from './partition-log.ts';
import type { AbortedTransaction } from './transaction-index.ts';

const directory = '/data/orders-0';

function batch(producerId: number, sequence: number, timestamp: number): RecordBatch {
  const record = { key: Buffer.from('k'), value: Buffer.alloc(300, 97), timestamp };
  const options = { producerId, producerEpoch: 0, baseSequence: sequence, isTransactional: true };
  return RecordBatch.split([encodeBatch([record], options)])[0]!;
}

function marker(producerId: number, isAbort: boolean, timestamp: number): RecordBatch {
  const record = { key: Buffer.from([0, 0, 0, isAbort ? 0 : 1]), value: Buffer.alloc(6), timestamp };
  const options = { producerId, producerEpoch: 0, isTransactional: true, isControl: true };
  return RecordBatch.split([encodeBatch([record], options)])[0]!;
}

/** Three producers with transactions that begin in one segment and end in another, every second one aborted. */
async function aLog(): Promise<MemoryLogs> {
  const logs = openMemoryLogs();
  const log = logs.log();
  for (let i = 0; i < 60; i++) {
    const at = logs.clock.now() + i;
    log.appendAsLeader([batch(i % 3, Math.floor(i / 3), at)], 0, 'coordinator');
    if (i % 7 === 6) log.appendAsLeader([marker(i % 3, i % 2 === 0, at)], 0, 'coordinator');
    await logs.settle();
    log.advanceHighWatermark(log.durableEndOffset);
  }
  log.roll();
  log.appendAsLeader([batch(0, 20, logs.clock.now() + 60)], 0, 'coordinator');
  await logs.settle();
  return logs;
}

const filesOf = (fs: MemoryFileSystem, suffix: string): string[] =>
  fs
    .list(directory)
    .filter((name) => name.endsWith(suffix))
    .map((name) => `${directory}/${name}`);

/** The contents of all closed segments' indexes. */
const indexesOf = (fs: MemoryFileSystem): [name: string, bytes: string][] =>
  ['.index', '.timeindex', '.txnindex']
    .flatMap((suffix) =>
      filesOf(fs, suffix).filter((name) => !name.includes(filesOf(fs, '.log').at(-1)!.slice(-24, -4))),
    )
    .map((name) => [name, readFile(fs, name)!.toString('hex')]);

const noise = (bytes: Buffer): void => void bytes.fill(0xa5);
const zeros = (bytes: Buffer): void => void bytes.fill(0);

async function until(logs: MemoryLogs, work: Promise<unknown>): Promise<void> {
  let isDone = false;
  void work.finally(() => (isDone = true));
  while (!isDone) await logs.settle();
  await work;
}

async function times(log: PartitionLog, base: number): Promise<(number | undefined)[]> {
  const found: (number | undefined)[] = [];
  for (let i = 0; i < 60; i += 5) found.push((await log.offsetForTimestamp(base + i))?.offset);
  return found;
}

describe.each(['.index', '.timeindex'])('an %s of a closed segment', (suffix) => {
  test('that turns to noise misleads nobody, and is made again as it was', async () => {
    const logs = await aLog();
    const log = logs.log();
    const expected = [await times(log, 1_700_000_000_000), indexesOf(logs.fs)];
    changeFile(logs.fs, filesOf(logs.fs, suffix)[1]!, noise);
    expect(await times(log, 1_700_000_000_000)).toEqual(expected[0]);
    await until(logs, logs.logs.retain());
    expect([await times(log, 1_700_000_000_000), indexesOf(logs.fs)]).toEqual(expected);
    expect(logs.happened('indexRebuilt')).toHaveLength(1);
    await until(logs, logs.logs.retain());
    expect(logs.happened('indexRebuilt')).toHaveLength(1);
  });

  test.each([
    ['noise', noise],
    ['zeros', zeros],
    ['the same but for a bit', (bytes: Buffer) => void (bytes[bytes.length - 1]! ^= 1)],
  ])('that turns to %s is found by a scrub', async (_, by) => {
    const logs = await aLog();
    const expected = indexesOf(logs.fs);
    await until(logs, logs.logs.scrub());
    expect(logs.happened('indexRebuilt')).toEqual([]);
    changeFile(logs.fs, filesOf(logs.fs, suffix)[1]!, by);
    await until(logs, logs.logs.scrub());
    expect(indexesOf(logs.fs)).toEqual(expected);
    expect(logs.happened('indexRebuilt')).toHaveLength(1);
  });
});

test('a crash at any moment of making an index again leaves a log that is as good', async () => {
  const logs = await aLog();
  const expected = await times(logs.log(), 1_700_000_000_000);
  const aborted = logs.log().abortedTransactions(0, 100);
  changeFile(logs.fs, filesOf(logs.fs, '.timeindex')[1]!, noise);
  await times(logs.log(), 1_700_000_000_000);
  const crashed: MemoryFileSystem[] = [];
  logs.fs.beforeOperation = () => void crashed.push(logs.fs.afterKill(), logs.fs.afterPowerCut(loseUnsynced));
  await until(logs, logs.logs.retain());
  logs.fs.beforeOperation = null;
  expect(crashed.length).toBeGreaterThan(10);
  for (const fs of crashed) {
    const again = openMemoryLogs({ fs });
    expect(await times(again.log(), 1_700_000_000_000)).toEqual(expected);
    expect(again.log().abortedTransactions(0, 100)).toEqual(aborted);
    expect(fs.list(directory).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  }
});

/** What readers of every range are told; null where they are told to come back. */
function told(log: PartitionLog): (readonly AbortedTransaction[] | null)[] {
  const answers: (readonly AbortedTransaction[] | null)[] = [];
  for (let from = 0; from < log.logEndOffset; from += 3) {
    try {
      answers.push(log.abortedTransactions(from, Math.min(from + 20, log.logEndOffset)));
    } catch (error) {
      expect(error).toBeInstanceOf(IndexLies);
      answers.push(null);
    }
  }
  return answers;
}

describe('a transaction index of a closed segment', () => {
  test.each([
    ['noise', noise],
    ['zeros', zeros],
    ['another version', (bytes: Buffer) => void (bytes[1] = 1)],
    ['another producer', (bytes: Buffer) => void (bytes[9]! ^= 1)],
    ['a first offset far away', (bytes: Buffer) => void (bytes[14]! ^= 1)],
    ['another marker', (bytes: Buffer) => void (bytes[25]! ^= 0x40)],
    ['a last stable offset far away', (bytes: Buffer) => void (bytes[30]! ^= 1)],
  ])('that turns to %s gives nobody a wrong answer, and is made again as it was', async (_, by) => {
    const logs = await aLog();
    const log = logs.log();
    const [right, files] = [told(log), indexesOf(logs.fs)];
    changeFile(logs.fs, filesOf(logs.fs, '.txnindex')[1]!, by);
    for (const [i, answer] of told(log).entries()) if (answer !== null) expect(answer).toEqual(right[i]);
    expect(told(log)).toContain(null);
    await until(logs, log.mend());
    expect(told(log)).toEqual(right);
    expect(indexesOf(logs.fs)).toEqual(files);
    expect(logs.happened('indexRebuilt')).toHaveLength(1);
    expect(log.offlineReason).toBeNull();
  });

  test.each([
    ['is gone', (fs: MemoryFileSystem, path: string) => fs.remove(path)],
    // From here to the true one lie records of the same transaction, so nothing that a lookup can see is wrong.
    [
      'begins a transaction late',
      (fs: MemoryFileSystem, path: string) => changeFile(fs, path, (bytes) => late(bytes)),
    ],
  ])('that %s is found by a start and a scrub, and by a check', async (_, damage) => {
    const before = await aLog();
    const [right, files] = [told(before.log()), indexesOf(before.fs)];
    await before.logs.close();
    before.directory.unlock();
    const disk = before.fs.afterKill();
    const path = filesOf(disk, '.txnindex')[1]!;
    damage(disk, path);
    const found = checkPartition(disk, directory, expectedOf(disk, '/data', 'orders-0'));
    expect(found.faults.map(({ file }) => `${directory}/${file}`)).toEqual([path]);
    const logs = openMemoryLogs({ fs: disk });
    await until(logs, logs.logs.scrub());
    expect(told(logs.log())).toEqual(right);
    expect(indexesOf(disk)).toEqual(files);
  });

  test('is made again from the log alone where a snapshot is gone too', async () => {
    const logs = await aLog();
    const [right, files] = [told(logs.log()), indexesOf(logs.fs)];
    for (const path of filesOf(logs.fs, '.snapshot')) logs.fs.remove(path);
    changeFile(logs.fs, filesOf(logs.fs, '.txnindex').at(-1)!, noise);
    expect(told(logs.log())).toContain(null);
    await until(logs, logs.log().mend());
    expect(told(logs.log())).toEqual(right);
    expect(indexesOf(logs.fs)).toEqual(files);
  });
});

/** The first transaction begins three offsets later: where its producer has sent its second batch. */
const late = (bytes: Buffer): void => void bytes.writeBigInt64BE(bytes.readBigInt64BE(10) + 3n, 10);

test('a log of a few records keeps its time index when it is killed after an orderly stop, and none is cut', async () => {
  const first = openMemoryLogs();
  first.log().appendAsLeader([batch(-1, -1, first.clock.now())], 0, 'coordinator');
  await first.settle();
  const closed = first.logs.close();
  await first.settle();
  await closed;
  const killed = openMemoryLogs({ fs: first.fs.afterKill() }).fs.afterKill();
  const times = filesOf(killed, '.timeindex').map((path) => readFile(killed, path));
  expect(times.map((bytes) => bytes?.length)).toEqual([12]);
  const again = openMemoryLogs({ fs: killed });
  expect(filesOf(killed, '.timeindex').map((path) => readFile(killed, path))).toEqual(times);
  const found = await again.log().offsetForTimestamp(first.clock.now());
  expect(found?.offset).toBe(0);
  again.log().appendAsLeader([batch(-1, -1, first.clock.now() + 5)], 0, 'coordinator');
  await again.settle();
  expect((await again.log().offsetForTimestamp(first.clock.now() + 5))?.offset).toBe(1);
});
