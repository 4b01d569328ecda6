import { readdirSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import {
  apiVersions,
  createTopics,
  decodeRecords,
  deleteTopics,
  encodeBatch,
  ErrorCode,
  fetch,
  listOffsets,
  produce,
  RecordBatch,
} from '@rookery/wire';
import { afterEach, describe, expect, test } from 'vitest';
import { WireConnection } from './support/wire-connection.ts';

// A process may open so many files and no more, and a busy broker has more partitions than that.

const descriptors = 256;
const partitions = 400;
const rounds = 3;
const valueBytes = 40_000;
const topic = 'busy';
const indexes = Array.from({ length: partitions }, (_, index) => index);

let sidecar: SidecarProcess;
const connections: WireConnection[] = [];
const sockets: Socket[] = [];

afterEach(async () => {
  for (const connection of connections.splice(0)) connection.close();
  for (const socket of sockets.splice(0)) socket.destroy();
  expect(await sidecar.stop()).toBe(0);
  // Nothing that anybody did was an error.
  expect(
    sidecar
      .log()
      .split('\n')
      .filter((line) => /"level":[56]0/.test(line)),
  ).toEqual([]);
});

async function open(): Promise<WireConnection> {
  const connection = await WireConnection.open(sidecar.kafka);
  connections.push(connection);
  return connection;
}

async function create(connection: WireConnection, name: string, numPartitions: number): Promise<void> {
  const asked = { name, numPartitions, replicationFactor: 1, assignments: [], configs: [] };
  const told = await connection.ask(createTopics, 5, {
    timeoutMs: 60_000,
    validateOnly: false,
    topics: [asked],
  });
  expect(told.topics[0]!.errorCode).toBe(ErrorCode.NONE);
}

/** Says which round and which partition it is of, and is large enough to go from file to socket by itself. */
const valueOf = (round: number, index: number): Buffer =>
  Buffer.alloc(valueBytes, `${round}:${index}`.padEnd(20));

/** One record to every partition, in one request. */
async function produceToAll(connection: WireConnection, round: number): Promise<void> {
  const partitionData = indexes.map((index) => {
    const value = valueOf(round, index);
    return { index, records: [encodeBatch([{ key: null, value, headers: [], timestamp: Date.now() }], {})] };
  });
  const told = await connection.ask(produce, 7, {
    acks: -1,
    timeoutMs: 60_000,
    topicData: [{ name: topic, partitionData }],
  });
  const refused = told.responses[0]!.partitionResponses.filter(({ errorCode }) => errorCode !== 0);
  expect(refused.map(({ index }) => index)).toEqual([]);
}

/** What every partition holds from an offset on, in one answer. */
async function readAll(connection: WireConnection, fetchOffset: number): Promise<void> {
  const told = await connection.ask(fetch, 11, {
    maxWaitMs: 0,
    minBytes: 1,
    isolationLevel: 0,
    sessionId: 0,
    topics: [
      {
        topic,
        partitions: indexes.map((partition) => ({ partition, fetchOffset, partitionMaxBytes: 1_000_000 })),
      },
    ],
    forgottenTopicsData: [],
    rackId: '',
  });
  for (const { partitionIndex, errorCode, records } of told.responses[0]!.partitions) {
    expect([partitionIndex, errorCode]).toEqual([partitionIndex, ErrorCode.NONE]);
    const batches = RecordBatch.split([Buffer.concat(records ?? [])]);
    const values = batches.map((batch) => decodeRecords(batch)[0]!.value!);
    expect(values.length).toBeGreaterThan(0);
    for (const [i, value] of values.entries())
      expect(value.equals(valueOf(fetchOffset + i, partitionIndex))).toBe(true);
  }
}

async function figure(name: string): Promise<number> {
  const text = await (await globalThis.fetch(`${sidecar.admin}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)![1]);
}

const openDescriptors = (): number => readdirSync(`/proc/${sidecar.pid}/fd`).length;

describe.runIf(process.platform === 'linux').each([
  ['sync', {}],
  ['os', { 'flush.mode': 'os' }],
])('flush.mode=%s', (_, settings) => {
  test('more busy partitions than descriptors lose nothing, and go on', async () => {
    sidecar = await startSidecar({
      descriptors,
      settings: {
        ...settings,
        'tail.cache.bytes': 0,
        'log.index.interval.bytes': 1000,
        'log.segment.delete.delay.ms': 0,
      },
    });
    const limit = /^Max open files\s+(\d+)\s+(\d+)/m.exec(
      readFileSync(`/proc/${sidecar.pid}/limits`, 'utf8'),
    );
    expect(limit?.slice(1)).toEqual([String(descriptors), String(descriptors)]);
    const writer = await open();
    const reader = await open();
    await create(writer, topic, partitions);
    for (let round = 0; round < rounds; round++) {
      // Two requests at a time, and those who read beside them.
      await Promise.all([produceToAll(writer, round), round > 0 ? readAll(reader, 0) : undefined]);
      for (let from = 0; from <= round; from++) await readAll(reader, from);
      expect(openDescriptors()).toBeLessThan(descriptors / 2 + 40);
    }
    expect(await figure('rookery_open_files_max')).toBe(descriptors / 2);
    expect(await figure('rookery_files_closed_for_others_total')).toBeGreaterThan(partitions);
    expect(await figure('rookery_partitions_offline')).toBe(0);
    // The files of a deleted topic go, also while the last of them are being synced.
    const { dataDir } = sidecar;
    expect(readdirSync(dataDir).filter((name) => name.startsWith(`${topic}-`)).length).toBe(partitions);
    await writer.ask(deleteTopics, 5, { topicNames: [topic], timeoutMs: 60_000 });
    while (readdirSync(dataDir).some((name) => name.startsWith(`${topic}-`))) await sleep(20);
  });
});

test.runIf(process.platform === 'linux')(
  'clients for whom there is no descriptor are turned away, and the others are served',
  async () => {
    sidecar = await startSidecar({ descriptors, settings: { 'flush.mode': 'os' } });
    const served = await open();
    await create(served, topic, partitions);
    await produceToAll(served, 0);
    let closed = 0;
    const [host, port] = sidecar.kafka.split(':');
    for (let i = 0; i < descriptors; i++) {
      const socket = connect(Number(port), host!);
      sockets.push(socket);
      socket.on('error', () => {});
      socket.on('close', () => closed++);
    }
    const room = descriptors / 2 - 32;
    while (closed < descriptors - (room - 1)) await sleep(20);
    expect(await figure('rookery_connections')).toBe(room);
    expect(await figure('rookery_connections_refused_total')).toBe(closed);
    await produceToAll(served, 1);
    await readAll(served, 0);
    const told = await served.ask(listOffsets, 5, {
      replicaId: -1,
      isolationLevel: 0,
      topics: [
        {
          name: topic,
          partitions: indexes.map((partitionIndex) => ({
            partitionIndex,
            currentLeaderEpoch: -1,
            timestamp: -1,
          })),
        },
      ],
    });
    expect(told.topics[0]!.partitions.map(({ offset }) => offset)).toEqual(indexes.map(() => 2));
    for (const socket of sockets.splice(0)) socket.destroy();
    while ((await figure('rookery_connections')) > 1) await sleep(20);
    const again = await open();
    expect((await again.ask(apiVersions, 0, {})).errorCode).toBe(ErrorCode.NONE);
  },
);
