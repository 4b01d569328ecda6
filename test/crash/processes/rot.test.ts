import { hash } from 'node:crypto';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { errorName, offsetCommit, offsetFetch } from '@rookery/wire';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { output } from '../../support/finished-process.ts';
import { WireConnection } from '../../support/wire-connection.ts';
import { Ledger } from './ledger.ts';

// Somebody, or the disk itself, changes bytes that were on the platter. Nothing that was acknowledged may be
// dropped without a word for it, and nothing else may be served in its place.

const place = mkdtempSync(join(tmpdir(), 'rookery-rot-'));
const whole = `${place}/whole`;
const orders = new Ledger('orders', { 'internal.segment.bytes': '4000', 'index.interval.bytes': '500' });
const log = 'orders-0/00000000000000000000.log';
/** The segment that takes appends: the one that a start after a power cut reads from its beginning. */
let active: string;
let copies = 0;

beforeAll(async () => {
  const sidecar = await startSidecar({ dataDir: whole });
  const connection = await WireConnection.open(sidecar.kafka);
  await orders.create(connection);
  for (let i = 0; i < 45; i++) expect(await orders.write(connection)).toBe('NONE');
  connection.close();
  await sidecar.stop();
  // As after a power cut: no marker, and another start of the machine.
  rmSync(`${whole}/.kafka_cleanshutdown`);
  const facts = JSON.parse(readFileSync(`${whole}/rookery.json`, 'utf8')) as object;
  writeFileSync(`${whole}/rookery.json`, JSON.stringify({ ...facts, bootId: 'an earlier one' }));
  active = readdirSync(`${whole}/orders-0`)
    .filter((name) => name.endsWith('.log'))
    .at(-1)!;
});

afterAll(() => rmSync(place, { recursive: true, force: true }));

/** A copy of the data directory in which one file is changed. */
function damaged(file: string, change: (bytes: Buffer) => Buffer): string {
  const copy = `${place}/copy-${copies++}`;
  cpSync(whole, copy, { recursive: true });
  writeFileSync(`${copy}/${file}`, change(readFileSync(`${copy}/${file}`)));
  return copy;
}

const flip =
  (position: number) =>
  (bytes: Buffer): Buffer => {
    bytes[position]! ^= 0xff;
    return bytes;
  };

async function withSidecar<T>(
  dataDir: string,
  use: (connection: WireConnection, sidecar: SidecarProcess) => Promise<T>,
): Promise<T> {
  const sidecar = await startSidecar({ dataDir });
  try {
    const connection = await WireConnection.open(sidecar.kafka);
    try {
      return await use(connection, sidecar);
    } finally {
      connection.close();
    }
  } finally {
    await sidecar.kill();
  }
}

/** Where a batch of the active segment begins, and its first offset. */
function secondBatch(): { position: number; offset: number } {
  const bytes = readFileSync(`${whole}/orders-0/${active}`);
  const position = 12 + bytes.readInt32BE(8);
  return { position, offset: Number(bytes.readBigInt64BE(position)) };
}

test.each([
  ['base offset', 7],
  ['batch length', 11],
  ['magic', 16],
  ['CRC', 17],
  ['attributes', 22],
  ['last offset delta', 26],
  ['record count', 60],
  ['payload', 150],
])(
  'a flipped byte of the %s takes the partition out of service, changes nothing, and serves what stands before',
  async (_, at) => {
    const { position, offset } = secondBatch();
    const copy = damaged(`orders-0/${active}`, flip(position + at));
    const before = hash('sha1', readFileSync(`${copy}/orders-0/${active}`));
    await withSidecar(copy, async (connection) => {
      const records = await orders.read(connection, 'KAFKA_STORAGE_ERROR');
      expect(records.map((record) => record.offset)).toEqual(Array.from({ length: offset }, (_, i) => i));
      expect(await new Ledger('orders', {}).write(connection)).toBe('KAFKA_STORAGE_ERROR');
    });
    expect(hash('sha1', readFileSync(`${copy}/orders-0/${active}`))).toBe(before);
  },
);

test('a segment that was cut short takes the partition out of service', async () => {
  const { position, offset } = secondBatch();
  const copy = damaged(`orders-0/${active}`, (bytes) => bytes.subarray(0, position + 100));
  await withSidecar(copy, async (connection) => {
    expect(await orders.read(connection, 'KAFKA_STORAGE_ERROR')).toHaveLength(offset);
    expect(await new Ledger('orders', {}).write(connection)).toBe('KAFKA_STORAGE_ERROR');
  });
});

describe('a changed byte in the log of the groups', () => {
  test.each([
    ['base offset', 7],
    ['batch length', 11],
    ['magic', 16],
    ['attributes', 22],
    ['payload', 90],
  ])(
    'at the %s takes the groups of that partition out of service and no others, until it is repaired',
    async (_, at) => {
      const home = `${place}/groups-${copies++}`;
      const settings = { 'offsets.topic.num.partitions': 2 };
      const committed = { left: 17, right: 23 };
      const first = await startSidecar({ dataDir: home, settings });
      const connection = await WireConnection.open(first.kafka);
      await orders.create(connection);
      for (const offset of [0, committed.left]) await commit(connection, 'left', offset);
      for (const offset of [0, committed.right]) await commit(connection, 'right', offset);
      connection.close();
      await first.stop();
      const { file, position } = batchesOf(home, 'left').at(-1)!;
      writeFileSync(file, flip(position + at)(readFileSync(file)));

      const sick = await startSidecar({ dataDir: home, settings });
      const asking = await WireConnection.open(sick.kafka);
      expect(await committedOf(asking, 'left')).toBe('COORDINATOR_NOT_AVAILABLE');
      expect(await committedOf(asking, 'right')).toBe(committed.right);
      asking.close();
      await sick.stop();

      const launcher = fileURLToPath(new URL('../../../sidecar/bin/rookery', import.meta.url));
      const partition = file.slice(0, file.lastIndexOf('/'));
      await output(launcher, ['log', 'repair', partition, '--skip-batch']);
      const mended = await startSidecar({ dataDir: home, settings });
      const again = await WireConnection.open(mended.kafka);
      // The newest commit is what was lost; the one before it is known again.
      expect(await committedOf(again, 'left')).toBe(0);
      expect(await committedOf(again, 'right')).toBe(committed.right);
      again.close();
      await mended.stop();
    },
  );
});

async function commit(connection: WireConnection, groupId: string, committedOffset: number): Promise<void> {
  const partitions = [
    { partitionIndex: 0, committedOffset, committedLeaderEpoch: -1, committedMetadata: '' },
  ];
  const asked = {
    groupId,
    generationIdOrMemberEpoch: -1,
    memberId: '',
    topics: [{ name: 'orders', partitions }],
  };
  for (;;) {
    const { topics } = await connection.ask(offsetCommit, 7, asked);
    const error = errorName(topics[0]!.partitions[0]!.errorCode);
    if (error === 'NONE') return;
    expect(error).toBe('COORDINATOR_NOT_AVAILABLE');
  }
}

/** The offset that a group has committed, or why it cannot be told. */
async function committedOf(connection: WireConnection, groupId: string): Promise<number | string> {
  const topics = [{ name: 'orders', partitionIndexes: [0] }];
  const answer = await connection.ask(offsetFetch, 7, { groupId, topics, requireStable: false });
  return answer.errorCode === 0
    ? answer.topics[0]!.partitions[0]!.committedOffset
    : errorName(answer.errorCode);
}

/** The batches of the group's partition of `__consumer_offsets` that name it. */
function batchesOf(dataDir: string, group: string): { file: string; position: number }[] {
  const found: { file: string; position: number }[] = [];
  for (const directory of readdirSync(dataDir).filter((name) => name.startsWith('__consumer_offsets-'))) {
    const file = `${dataDir}/${directory}/00000000000000000000.log`;
    const bytes = readFileSync(file);
    for (let position = 0; position < bytes.length;) {
      const sizeInBytes = 12 + bytes.readInt32BE(position + 8);
      if (bytes.subarray(position, position + sizeInBytes).includes(group)) found.push({ file, position });
      position += sizeInBytes;
    }
  }
  return found;
}

const zeros = (bytes: Buffer): Buffer => bytes.fill(0);
const noise = (bytes: Buffer): Buffer => bytes.fill(0xa5);
const nothing = (): Buffer => Buffer.alloc(0);
const half = (bytes: Buffer): Buffer => bytes.subarray(0, bytes.length >> 1);

test.each([
  ['zeros', zeros],
  ['noise', noise],
  ['nothing', nothing],
  ['half of it', half],
])('an index of the active segment that holds %s is made again', async (_, change) => {
  const copy = damaged(`orders-0/${active.replace('.log', '.index')}`, change);
  await withSidecar(copy, async (connection) => expect(await orders.discrepancies(connection)).toEqual([]));
});

test.each([
  ['zeros', zeros],
  ['noise', noise],
  ['nothing', nothing],
])('a time index of the active segment that holds %s is made again', async (_, change) => {
  const copy = damaged(`orders-0/${active.replace('.log', '.timeindex')}`, change);
  await withSidecar(copy, async (connection) => expect(await orders.discrepancies(connection)).toEqual([]));
});

test.each([
  ['recovery-point-offset-checkpoint', noise],
  ['recovery-point-offset-checkpoint', nothing],
  ['log-start-offset-checkpoint', noise],
  ['log-start-offset-checkpoint', nothing],
  ['orders-0/leader-epoch-checkpoint', noise],
  ['orders-0/leader-epoch-checkpoint', nothing],
])('a damaged %s costs nothing that was acknowledged', async (file, change) => {
  const copy = damaged(file, change);
  await withSidecar(copy, async (connection) => {
    expect(await orders.discrepancies(connection)).toEqual([]);
    expect(await new Ledger('orders', {}).write(connection)).toBe('NONE');
  });
});

test('a damaged metadata journal is refused at the start, with its name', async () => {
  const copy = damaged('metadata.journal', flip(20));
  await expect(withSidecar(copy, async () => {})).rejects.toThrow(/RK0305.*metadata\.journal/);
});

test('what nobody damaged is whole', async () => {
  const copy = damaged(log, (bytes) => bytes);
  await withSidecar(copy, async (connection) => expect(await orders.discrepancies(connection)).toEqual([]));
});
