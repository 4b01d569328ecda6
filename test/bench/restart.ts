import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { createTopics, encodeBatch, ErrorCode, fetch, listOffsets, produce } from '@rookery/wire';
import { WireConnection } from '../support/wire-connection.ts';
import { shown, type Figure } from './figures.ts';
import { memoryMiB } from './process-cost.ts';
import type { Sizes } from './sizes.ts';

/** A figure of a restart, and what it may be at most. */
export interface RestartFigure extends Figure {
  readonly due: number | null;
}

const modes = ['sync', 'interval', 'os'] as const;
const topic = 'restarted';
/** Partitions that share the log that is restarted. */
const largePartitions = 20;
const batchBytes = 1_000_000;
/** For how long producers are at work before the broker is killed under them. */
const loadMs = 2_000;
/** The limit of open files under which many partitions are opened. */
const descriptors = 20_000;
/** As many partitions are asked about at once. */
const askedAtOnce = 1_000;

/**
 * How soon a broker serves again: one with a large log after a kill under load, in every mode, and after an orderly
 * stop; and one with many partitions, what they cost while nobody uses them included.
 */
export async function restart(options: {
  readonly rounds: number;
  readonly sizes: Sizes;
  progress(text: string): void;
}): Promise<RestartFigure[]> {
  const { rounds, sizes, progress } = options;
  const figures: RestartFigure[] = [];
  const note = (work: string, unit: string, value: number, due: number | null): void => {
    figures.push({ work, unit, value, due });
    progress(`${work}: ${shown(value)} ${unit}${due === null ? '' : `, due ${due}`}`);
  };
  const empty = await emptyStart(rounds);
  note('ready, empty', 'ms', empty.readyMs, null);
  await withDirectory((dataDir) => restartLarge(dataDir, sizes.bulkBytes, empty, rounds, note));
  for (const isUsed of [false, true])
    await withDirectory((dataDir) => restartMany(dataDir, sizes.manyPartitions, isUsed, empty, note));
  return figures;
}

type Note = (work: string, unit: string, value: number, due: number | null) => void;

interface Start {
  readonly sidecar: SidecarProcess;
  /** From the start of its process until it said that it was ready. */
  readonly readyMs: number;
  readonly memoryMiB: number;
}

async function start(dataDir: string, mode: (typeof modes)[number] = 'os'): Promise<Start> {
  const started = performance.now();
  const sidecar = await startSidecar({ dataDir, descriptors, settings: { 'flush.mode': mode } });
  return { sidecar, readyMs: performance.now() - started, memoryMiB: memoryMiB(sidecar.pid) };
}

/** What everything else is compared with: the quickest of some starts. */
async function emptyStart(rounds: number): Promise<Pick<Start, 'readyMs' | 'memoryMiB'>> {
  const starts: Start[] = [];
  for (let round = 0; round < Math.max(3, rounds); round++)
    await withDirectory(async (dataDir) => {
      const started = await start(dataDir);
      starts.push(started);
      await started.sidecar.stop();
    });
  return starts.reduce((best, each) => (each.readyMs < best.readyMs ? each : best));
}

async function restartLarge(
  dataDir: string,
  bytes: number,
  empty: Pick<Start, 'readyMs'>,
  rounds: number,
  note: Note,
): Promise<void> {
  const size = `${shown(bytes / 1e9)} GB in ${largePartitions} partitions`;
  let { sidecar } = await start(dataDir);
  await create(sidecar, largePartitions);
  await fill(sidecar, bytes);
  await sidecar.stop();
  for (const mode of modes)
    for (let round = 0; round < rounds; round++) {
      ({ sidecar } = await start(dataDir, mode));
      await killUnderLoad(sidecar);
      const started = performance.now();
      const after = await start(dataDir, mode);
      await everyPartitionServes(after.sidecar, largePartitions);
      const servesMs = performance.now() - started;
      await after.sidecar.stop();
      note(`ready after kill -9 under load, flush.mode=${mode}, ${size}`, 'ms', after.readyMs, 1_000);
      note(`every partition serves again, flush.mode=${mode}, ${size}`, 'ms', servesMs, 1_000);
    }
  for (let round = 0; round < rounds; round++) {
    const after = await start(dataDir);
    await after.sidecar.stop();
    const more = Math.max(0, after.readyMs - empty.readyMs);
    note(`ready after an orderly stop, beyond an empty one, ${size}`, 'ms', more, 300);
  }
}

async function restartMany(
  dataDir: string,
  partitions: number,
  isUsed: boolean,
  empty: Pick<Start, 'memoryMiB'>,
  note: Note,
): Promise<void> {
  const what = `${partitions.toLocaleString('en')} partitions${isUsed ? ' with a record each' : ''}`;
  let { sidecar } = await start(dataDir);
  const creating = performance.now();
  await create(sidecar, partitions);
  note(`asked to make ${what}`, 'ms', performance.now() - creating, null);
  if (!isUsed) {
    // Most of them are still to be made.
    await sidecar.kill();
    const after = await start(dataDir);
    ({ sidecar } = after);
    note(`ready after kill -9 while they were made, ${what}`, 'ms', after.readyMs, 5_000);
  }
  await everyPartitionServes(sidecar, partitions, isUsed);
  note(`${what} made and serving`, 'ms', performance.now() - creating, null);
  for (const how of ['an orderly stop', 'kill -9'] as const) {
    if (how === 'kill -9') await sidecar.kill();
    else await sidecar.stop();
    const after = await start(dataDir);
    ({ sidecar } = after);
    note(`ready after ${how}, ${what}`, 'ms', after.readyMs, 5_000);
    note(`memory beyond an empty one, after ${how}, ${what}`, 'MiB', after.memoryMiB - empty.memoryMiB, 150);
  }
  await everyPartitionServes(sidecar, partitions, isUsed);
  await sidecar.stop();
}

async function withDirectory(use: (dataDir: string) => Promise<void>): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'rookery-bench-'));
  try {
    await use(dataDir);
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
}

async function withConnection(
  { kafka }: SidecarProcess,
  use: (connection: WireConnection) => Promise<void>,
): Promise<void> {
  const connection = await WireConnection.open(kafka);
  try {
    await use(connection);
  } finally {
    connection.close();
  }
}

function create(sidecar: SidecarProcess, numPartitions: number): Promise<void> {
  return withConnection(sidecar, async (connection) => {
    const asked = { name: topic, numPartitions, replicationFactor: 1, assignments: [], configs: [] };
    const told = await connection.ask(createTopics, 5, {
      timeoutMs: 120_000,
      validateOnly: false,
      topics: [asked],
    });
    mustBeFine(told.topics);
  });
}

/** Batches of a megabyte to all partitions in turn. */
function fill(sidecar: SidecarProcess, bytes: number): Promise<void> {
  return withConnection(sidecar, async (connection) => {
    for (let sent = 0; sent < bytes; sent += batchBytes)
      await produceTo(connection, [(sent / batchBytes) % largePartitions], batchBytes);
  });
}

/** Kills it while some producers are at work and wait for their answers. */
async function killUnderLoad(sidecar: SidecarProcess): Promise<void> {
  const working = Array.from({ length: 4 }, (_, producer) =>
    withConnection(sidecar, async (connection) => {
      for (let i = producer; ; i += 3) await produceTo(connection, [i % largePartitions], batchBytes / 10);
    }).catch(() => 'it was killed'),
  );
  await new Promise((resolve) => setTimeout(resolve, loadMs));
  await sidecar.kill();
  await Promise.all(working);
}

/** Reads at every partition's end and, unless they shall stay as they are, appends there. */
function everyPartitionServes(sidecar: SidecarProcess, partitions: number, isUsed = true): Promise<void> {
  return withConnection(sidecar, async (connection) => {
    for (let from = 0; from < partitions; from += askedAtOnce) {
      const count = Math.min(askedAtOnce, partitions - from);
      const indexes = Array.from({ length: count }, (_, i) => from + i);
      const ends = await endsOf(connection, indexes);
      await readAt(connection, ends);
      if (isUsed) await produceTo(connection, indexes, 100);
    }
  });
}

async function endsOf(connection: WireConnection, indexes: readonly number[]): Promise<Map<number, number>> {
  const partitions = indexes.map((partitionIndex) => ({
    partitionIndex,
    currentLeaderEpoch: -1,
    timestamp: -1,
  }));
  const asked = { replicaId: -1, isolationLevel: 0, topics: [{ name: topic, partitions }] };
  const told = (await connection.ask(listOffsets, 5, asked)).topics[0]!.partitions;
  mustBeFine(told);
  return new Map(told.map(({ partitionIndex, offset }) => [partitionIndex, offset]));
}

async function readAt(connection: WireConnection, ends: ReadonlyMap<number, number>): Promise<void> {
  const partitions = [...ends].map(([partition, fetchOffset]) => ({
    partition,
    fetchOffset,
    partitionMaxBytes: batchBytes,
  }));
  const told = await connection.ask(fetch, 11, {
    maxWaitMs: 0,
    minBytes: 1,
    isolationLevel: 0,
    sessionId: 0,
    topics: [{ topic, partitions }],
    forgottenTopicsData: [],
    rackId: '',
  });
  mustBeFine(told.responses[0]!.partitions);
}

async function produceTo(
  connection: WireConnection,
  indexes: readonly number[],
  bytes: number,
): Promise<void> {
  const value = Buffer.alloc(bytes, 'x');
  const partitionData = indexes.map((index) => ({
    index,
    records: [encodeBatch([{ key: null, value, headers: [], timestamp: Date.now() }], {})],
  }));
  const topicData = [{ name: topic, partitionData }];
  const told = await connection.ask(produce, 7, { acks: -1, timeoutMs: 60_000, topicData });
  mustBeFine(told.responses[0]!.partitionResponses);
}

function mustBeFine(answers: readonly { readonly errorCode: number }[]): void {
  const refused = answers.find(({ errorCode }) => errorCode !== ErrorCode.NONE);
  if (refused !== undefined) throw new Error(`refused with error code ${refused.errorCode}`);
}
