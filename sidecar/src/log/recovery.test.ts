import { describe, expect, test } from 'vitest';
import { batchOf, openMemoryLogs, type MemoryLogs } from './memory-logs.ts';
import {
  epochTable,
  fileTable,
  indexTable,
  logTable,
  pointTable,
  snapshotTable,
  type Table,
} from './recovery.ts';
import { FileRegion } from '../vfs/file-region.ts';
import { RecordBatch } from '@rookery/wire';
import type { MemoryFileSystem } from '../vfs/memory.ts';
import { loseUnsynced } from '../vfs/power-cut.ts';
import { encodeSnapshot } from './producer-snapshot.ts';

// --- The tables themselves ---------------------------------------------------------------------------------------

function* combinations<F>(domain: Table<F, unknown>['domain']): Generator<F> {
  const names = Object.keys(domain) as (keyof F)[];
  function* from(at: number, facts: Partial<F>): Generator<F> {
    const name = names[at];
    if (name === undefined) return yield facts as F;
    for (const value of domain[name]) yield* from(at + 1, { ...facts, [name]: value });
  }
  yield* from(0, {});
}

type AnyTable = Table<Record<string, unknown>, unknown>;

const tables: Record<string, AnyTable> = {
  log: logTable as unknown as AnyTable,
  point: pointTable as unknown as AnyTable,
  index: indexTable as unknown as AnyTable,
  snapshot: snapshotTable as unknown as AnyTable,
  epochs: epochTable as unknown as AnyTable,
  file: fileTable as unknown as AnyTable,
};

describe.each(Object.entries(tables))('the %s table', (_, table) => {
  const possible = [...combinations(table.domain)].filter((facts) => !(table.impossible?.(facts) ?? false));

  test('has exactly one row for every combination of facts', () => {
    const wrong = possible
      .map((facts) => ({ facts, rows: table.rows.filter(({ applies }) => applies(facts)) }))
      .filter(({ rows }) => rows.length !== 1);
    expect(wrong.map(({ facts, rows }) => ({ facts, rows: rows.map(({ label }) => label) }))).toEqual([]);
  });

  test('has no row that nothing leads to', () => {
    const unused = table.rows.filter(({ applies }) => !possible.some(applies));
    expect(unused.map(({ label }) => label)).toEqual([]);
  });
});

test('labels are unique, and every row has a directory below', () => {
  const labels = Object.values(tables).flatMap(({ rows }) => rows.map(({ label }) => label));
  expect(new Set(labels).size).toBe(labels.length);
  expect(Object.keys(states).sort()).toEqual([...labels].sort());
});

// --- A directory for every row -----------------------------------------------------------------------------------

const partition = '/data/orders-0';
const first = '00000000000000000000';

/** What a start finds, and what it makes of it. */
interface State {
  /** Ends the life of the broker that wrote the twelve batches of `aLog`, and does something to its disk. */
  readonly disk: (logs: MemoryLogs) => Promise<MemoryFileSystem> | MemoryFileSystem;
  readonly shows: (logs: MemoryLogs, disk: MemoryFileSystem) => void;
}

/** A log of twelve batches of one record in several segments, all of it synced and checkpointed. */
async function aLog(): Promise<MemoryLogs> {
  const logs = openMemoryLogs();
  const log = logs.log();
  log.assignLeaderEpoch(0, 0);
  for (let i = 0; i < 12; i++) log.appendAsLeader([batchOf([String(i).padEnd(900, '.')])], 0);
  await logs.settle();
  const done = logs.logs.checkpoint();
  await logs.settle();
  await done;
  return logs;
}

const killed = (logs: MemoryLogs): MemoryFileSystem => logs.fs.afterKill();
const powerless = (logs: MemoryLogs): MemoryFileSystem => logs.fs.afterPowerCut(loseUnsynced);
async function stopped(logs: MemoryLogs): Promise<MemoryFileSystem> {
  await logs.logs.close();
  return logs.fs.afterKill();
}

function change(disk: MemoryFileSystem, path: string, by: (bytes: Buffer) => Buffer): MemoryFileSystem {
  const file = disk.open(path, 'create');
  const bytes = Buffer.alloc(file.size());
  file.readNow(bytes, 0);
  file.truncateNow(0);
  file.writeNow([by(bytes)], 0);
  file.syncNow();
  file.release();
  return disk;
}

const flip = (at: number) => (bytes: Buffer) => {
  bytes[at]! ^= 0xff;
  return bytes;
};
const cut = (count: number) => (bytes: Buffer) => bytes.subarray(0, bytes.length - count);
const noise = (bytes: Buffer): Buffer => bytes.fill(0xa5);
const remove = (disk: MemoryFileSystem, path: string): MemoryFileSystem => {
  disk.remove(path);
  return disk;
};

/** The segments' names in order, without a suffix. */
const segmentsOn = (disk: MemoryFileSystem): string[] =>
  disk
    .list(partition)
    .filter((name) => name.endsWith('.log'))
    .map((name) => `${partition}/${name.slice(0, -4)}`);

/** Every offset that can be read, one after another. */
function readable(logs: MemoryLogs): number[] {
  const log = logs.log();
  const offsets: number[] = [];
  try {
    for (let offset = log.logStartOffset; ;) {
      const { spans } = log.read(offset, 1, Infinity, true);
      if (spans.length === 0) return offsets;
      const bytes = spans.map((span) => (span as FileRegion).readNow());
      for (const span of spans) (span as FileRegion).release();
      for (const batch of RecordBatch.split(bytes)) {
        offsets.push(batch.baseOffset);
        offset = batch.nextOffset;
      }
    }
  } catch (error) {
    expect((error as Error).name).toBe('Quarantined');
    return offsets;
  }
}

const upTo = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

function served(logs: MemoryLogs, end = 12): void {
  expect(readable(logs)).toEqual(upTo(end));
  const log = logs.log();
  expect(log.offlineReason).toBeNull();
  expect(log.appendAsLeader([batchOf(['more'])], 0).baseOffset).toBe(end);
}

/** Served up to the rot, not written, and the same after another start, orderly or not. */
function quarantined(offset: number) {
  return (logs: MemoryLogs, disk: MemoryFileSystem): void => {
    const files = (fs: MemoryFileSystem): string[] =>
      segmentsOn(fs).map((name) => fs.fingerprint(`${name}.log`, (bytes) => String(bytes)));
    const before = files(disk);
    for (const next of [logs, openMemoryLogs({ fs: logs.fs.afterKill() })]) {
      const log = next.log();
      expect(log.rot?.offset).toBe(offset);
      expect(readable(next)).toEqual(upTo(offset));
      expect(() => log.read(log.logEndOffset, 1, Infinity, true)).toThrow('damaged');
      expect(() => log.appendAsLeader([batchOf(['more'])], 0)).toThrow('damaged');
      expect(files(next.fs)).toEqual(before);
    }
  };
}

const rebuilt = (logs: MemoryLogs, disk: MemoryFileSystem): void => {
  expect(logs.happened('indexRebuilt').length).toBeGreaterThan(0);
  expect(disk.size(`${segmentsOn(disk)[0]!}.index`)).toBeGreaterThan(0);
  served(logs);
};

const removed =
  (name: RegExp) =>
  (logs: MemoryLogs): void => {
    expect(logs.happened('fileRemoved').map(({ file }) => file)).toEqual([expect.stringMatching(name)]);
    expect(logs.fs.list(partition).filter((file) => name.test(file))).toEqual([]);
    served(logs);
  };

const states: Record<string, State> = {
  '@A': {
    // The bytes that were seen to be rotten read well now.
    disk: (logs) => {
      logs.log().condemn({ segment: 0, position: 0, offset: 0, reason: 'a batch fails its CRC' });
      return killed(logs);
    },
    shows: quarantined(0),
  },
  '@B': { disk: stopped, shows: (logs) => served(logs) },
  '@C': {
    disk: async (logs) => {
      const disk = await stopped(logs);
      return change(disk, `${segmentsOn(disk).at(-1)!}.log`, cut(10));
    },
    shows: (logs, disk) => quarantined(11)(logs, disk),
  },
  '@D': { disk: killed, shows: (logs) => served(logs) },
  '@E': {
    disk: (logs) => {
      logs.fs.untilSynced = () => new Promise(() => {});
      logs.log().appendAsLeader([batchOf(['torn'])], 0);
      logs.clock.turn();
      return logs.fs.afterKill({ from: 0, to: 40 });
    },
    shows: (logs) => {
      expect(logs.happened('tailTruncated')).toMatchObject([{ fromOffset: 12, bytes: 40 }]);
      served(logs);
    },
  },
  '@F': {
    // Rolled after a batch that never reached the disk, while the new name did.
    disk: (logs) => {
      const disk = killed(logs);
      const after = disk.open(`${partition}/00000000000000000020.log`, 'create');
      after.release();
      return disk;
    },
    shows: (logs, disk) => {
      expect(logs.happened('tailTruncated')).toMatchObject([{ fromOffset: 12, bytes: 0 }]);
      expect(disk.exists(`${partition}/00000000000000000020.log`)).toBe(false);
      served(logs);
    },
  },
  '@G': {
    disk: (logs) => change(powerless(logs), `${segmentsOn(logs.fs).at(-1)!}.log`, flip(100)),
    shows: (logs, disk) => quarantined(Number(segmentsOn(disk).at(-1)!.slice(-20)))(logs, disk),
  },
  '@H': {
    disk: (logs) => remove(powerless(logs), `${segmentsOn(logs.fs)[1]!}.log`),
    shows: (logs, disk) => quarantined(4)(logs, disk),
  },
  '@I': {
    disk: (logs) => {
      const log = `${segmentsOn(logs.fs).at(-1)!}.log`;
      return change(powerless(logs), log, () => Buffer.alloc(0));
    },
    shows: (logs, disk) => quarantined(Number(segmentsOn(disk).at(-1)!.slice(-20)))(logs, disk),
  },
  '@J': {
    disk: (logs) => remove(powerless(logs), `${partition}/${first}.log`),
    shows: quarantined(0),
  },
  '@K': {
    disk: (logs) => {
      const disk = change(powerless(logs), '/data/recovery-point-offset-checkpoint', noise);
      return change(disk, `${segmentsOn(disk).at(-1)!}.log`, flip(100));
    },
    shows: (logs, disk) => quarantined(Number(segmentsOn(disk).at(-1)!.slice(-20)))(logs, disk),
  },
  '@L': {
    disk: async (logs) => {
      logs.fs.failWhen(({ name, path }) => (name === 'sync' && path.endsWith('.log') ? 'EIO' : null));
      logs.log().appendAsLeader([batchOf(['unsynced'])], 0);
      await logs.settle();
      return killed(logs);
    },
    shows: (logs) => {
      expect(logs.happened('tailTruncated')).toMatchObject([{ fromOffset: 12, reason: /sync failed/ }]);
      served(logs);
    },
  },
  '@M': {
    disk: killed,
    shows: (logs) => {
      expect(logs.log().recoveryPoint).toBe(12);
      served(logs);
    },
  },
  '@N': {
    disk: (logs) =>
      change(killed(logs), '/data/recovery-point-offset-checkpoint', () => Buffer.from('0\n0\n')),
    shows: (logs) => served(logs),
  },
  '@O': {
    disk: async (logs) => remove(await stopped(logs), '/data/recovery-point-offset-checkpoint'),
    shows: (logs) => {
      expect(logs.log().recoveryPoint).toBe(12);
      served(logs);
    },
  },
  '@P': {
    disk: (logs) => remove(powerless(logs), '/data/recovery-point-offset-checkpoint'),
    shows: (logs) => served(logs),
  },
  '@Q': {
    disk: stopped,
    shows: (logs) => {
      expect(logs.happened('indexRebuilt')).toEqual([]);
      served(logs);
    },
  },
  '@R': {
    disk: killed,
    shows: (logs) => {
      expect(logs.happened('indexRebuilt')).toEqual([]);
      served(logs);
    },
  },
  '@S': {
    // Zeros where the index of the active segment was: nobody is told, because this is what a power cut does.
    disk: (logs) => change(powerless(logs), `${segmentsOn(logs.fs).at(-1)!}.index`, () => Buffer.alloc(16)),
    shows: (logs) => served(logs),
  },
  '@T': {
    disk: async (logs) => {
      const disk = await stopped(logs);
      return remove(disk, `${segmentsOn(disk)[0]!}.index`);
    },
    shows: rebuilt,
  },
  '@U': {
    disk: killed,
    shows: (logs) => served(logs),
  },
  '@V': {
    disk: (logs) => {
      const disk = killed(logs);
      return change(disk, `${segmentsOn(disk).at(-1)!}.snapshot`, flip(5));
    },
    shows: (logs) => served(logs),
  },
  '@W': {
    disk: (logs) =>
      change(killed(logs), `${partition}/00000000000000000099.snapshot`, () => encodeSnapshot([])),
    shows: (logs, disk) => {
      expect(disk.exists(`${partition}/00000000000000000099.snapshot`)).toBe(false);
      served(logs);
    },
  },
  '@X': {
    disk: stopped,
    shows: (logs) => {
      expect(logs.happened('fileRemoved')).toEqual([]);
      served(logs);
    },
  },
  '@Y': {
    disk: (logs) => change(killed(logs), `${partition}/00000000000000000099.index`, () => Buffer.alloc(8)),
    shows: removed(/^0+99\.index$/),
  },
  '@Z': {
    disk: (logs) => change(killed(logs), `${partition}/${first}.log.cleaned`, () => Buffer.alloc(8)),
    shows: removed(/\.cleaned$/),
  },
  '@AA': {
    // All of the first segment's records survived, and only the last rename was missing.
    disk: (logs) => {
      const disk = killed(logs);
      disk.rename(`${partition}/${first}.log`, `${partition}/${first}.log.swap`);
      return disk;
    },
    shows: (logs, disk) => {
      expect(disk.exists(`${partition}/${first}.log`)).toBe(true);
      expect(disk.exists(`${partition}/${first}.log.swap`)).toBe(false);
      served(logs);
    },
  },
  '@AB': {
    disk: (logs) => change(killed(logs), `${partition}/${first}.index.swap`, () => Buffer.alloc(8)),
    shows: removed(/\.swap$/),
  },
  '@AD': {
    disk: killed,
    shows: (logs) => {
      expect(logs.happened('epochsRestored')).toEqual([]);
      expect(logs.log().latestEpoch).toBe(0);
      served(logs);
    },
  },
  '@AE': {
    disk: (logs) => {
      logs.log('quiet').assignLeaderEpoch(3, 0);
      return remove(killed(logs), '/data/quiet-0/leader-epoch-checkpoint');
    },
    shows: (logs) => {
      expect(logs.happened('epochsRestored')).toEqual([]);
      expect(logs.log('quiet').latestEpoch).toBe(-1);
      served(logs);
    },
  },
  '@AF': {
    disk: (logs) => remove(killed(logs), `${partition}/leader-epoch-checkpoint`),
    shows: (logs, disk) => {
      expect(logs.happened('epochsRestored')).toMatchObject([
        { partition: 'orders-0', reason: 'it is missing' },
      ]);
      expect(disk.exists(`${partition}/leader-epoch-checkpoint`)).toBe(true);
      expect(logs.log().epochOf(11)).toBe(0);
      served(logs);
    },
  },
  '@AC': {
    disk: (logs) => change(killed(logs), `${partition}/notes.txt`, () => Buffer.from('of somebody')),
    shows: (logs, disk) => {
      expect(disk.exists(`${partition}/notes.txt`)).toBe(true);
      served(logs);
    },
  },
};

describe('a base offset that is not what was written', () => {
  const places = [
    ['the last batch of a closed segment', 1, -1],
    ['the last batch of the log', -1, -1],
  ] as const;
  const stops = [
    ['an orderly stop', stopped],
    ['a power cut', powerless],
  ] as const;
  const bytes = [0, 1, 2, 3, 4, 5, 6, 7];
  const cases = places.flatMap((place) =>
    stops.flatMap((stop) => bytes.map((byte) => [byte, ...place, ...stop] as const)),
  );

  test.each(cases)('byte %i of %s is found after %s', async (byte, _, segment, batch, __, stop) => {
    const disk = await stop(await aLog());
    const name = segmentsOn(disk).at(segment)!;
    let offset = 0;
    change(disk, `${name}.log`, (content) => {
      const { position, baseOffset } = positionsIn(content).at(batch)!;
      offset = baseOffset;
      return flip(position + byte)(content);
    });
    const logs = openMemoryLogs({ fs: disk });
    quarantined(offset)(logs, disk);
  });

  test.each(bytes)('byte %i is not served in place of the one that was asked for', async (byte) => {
    const logs = await aLog();
    const name = segmentsOn(logs.fs)[1]!;
    let offset = 0;
    change(logs.fs, `${name}.log`, (content) => {
      const { position, baseOffset } = positionsIn(content)[1]!;
      offset = baseOffset;
      return flip(position + byte)(content);
    });
    const log = logs.log();
    expect(readable(logs)).toEqual(upTo(offset));
    if (log.rot !== null) expect(log.rot.offset).toBe(offset);
    expect(() => log.read(offset, 1, Infinity, true)).toThrow('damaged');
  });
});

function positionsIn(content: Buffer): { position: number; baseOffset: number }[] {
  const places = [];
  for (let position = 0; position < content.length; position += 12 + content.readInt32BE(position + 8))
    places.push({ position, baseOffset: Number(content.readBigInt64BE(position)) });
  return places;
}

describe('a directory for every row', () => {
  test.each(Object.entries(states))('%s', async (_, { disk, shows }) => {
    const found = await disk(await aLog());
    const logs = openMemoryLogs({ fs: found });
    shows(logs, found);
    if (logs.log().rot !== null) return;
    // What recovery has made of it is clean: the next start has nothing to mend.
    await logs.settle();
    const again = openMemoryLogs({ fs: logs.fs.afterKill() });
    expect(again.happened('tailTruncated')).toEqual([]);
    expect(again.happened('fileRemoved')).toEqual([]);
    served(again, 13);
  });
});
