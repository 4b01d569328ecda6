import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Client, type AssignedPartition } from '@rookery/client';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, type Finished } from './support/finished-process.ts';

// The commands that ask a running broker, each as a process of its own beside a sidecar of its own.

const launcher = fileURLToPath(new URL('../sidecar/bin/rookery', import.meta.url));
const path = `${fileURLToPath(new URL('.', pathToFileURL(process.execPath)))}:${process.env['PATH'] ?? ''}`;

let sidecar: SidecarProcess;
let client: Client;

beforeAll(async () => {
  sidecar = await startSidecar({ settings: { 'log.segment.bytes': 1024 * 1024 } });
  client = new Client({ brokers: [sidecar.kafka] });
});

afterAll(async () => {
  await client.close();
  await sidecar.stop();
});

const bare = (args: readonly string[], stdin = ''): Promise<Finished> =>
  finished(launcher, args, { environment: { PATH: path }, stdin });

const rookery = (args: readonly string[], stdin = ''): Promise<Finished> =>
  bare([...args, '--broker', sidecar.kafka], stdin);

/** What it printed, cell by cell. */
async function rows(args: readonly string[]): Promise<string[][]> {
  const { stdout, stderr, code } = await rookery(args);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split('\n');
  return lines.map((line) => line.trim().split(/\s{2,}/));
}

async function refused(run: Promise<Finished>, code: number, expected: RegExp): Promise<void> {
  const { stdout, stderr, code: actual } = await run;
  expect(stderr).toMatch(expected);
  expect(stderr.trimEnd().split('\n').length, stderr).toBe(1);
  expect(stdout).toBe('');
  expect(actual).toBe(code);
}

async function filled(topic: string, partitions: number, records: number, bytes = 10): Promise<void> {
  const [made] = await client.admin().createTopics([{ name: topic, partitions }]);
  expect(made!.error).toBe('NONE');
  const producer = client.producer();
  for (let i = 0; i < records; i++) await producer.send(topic, { value: Buffer.alloc(bytes), partition: 0 });
}

describe('topics describe', () => {
  test('says of every partition where it begins and ends, what it takes, and how old it is', async () => {
    await filled('described', 2, 5, 400_000);
    const [head, first, second] = await rows([
      'topics',
      'describe',
      'described',
      '--admin',
      adminOf(sidecar),
    ]);
    expect(head).toEqual(['PARTITION', 'LEADER', 'START', 'END', 'BYTES', 'SEGMENTS', 'OLDEST']);
    expect(first!.slice(0, 4)).toEqual(['0', '1', '0', '5']);
    expect(Number(first![4])).toBeGreaterThan(2_000_000);
    expect(first![5]).toBe('3');
    expect(first![6]).toMatch(/^\d+(ms|s|m\d*s?)$/);
    expect(second).toEqual(['1', '1', '0', '0', '0', '1', '-']);
  });

  test("does not pass off another broker's segments as those of the one it asks", async () => {
    await filled('elsewhere', 1, 1);
    const other = await startSidecar();
    try {
      const otherClient = new Client({ brokers: [other.kafka] });
      await otherClient.admin().createTopics([{ name: 'elsewhere' }]);
      await otherClient.close();
      const args = ['topics', 'describe', 'elsewhere', '--admin', adminOf(other)];
      expect((await rows(args))[1]![5]).toBe('-');
    } finally {
      await other.stop();
    }
  });
});

const adminOf = ({ admin }: SidecarProcess): string => admin.replace('http://', '');

describe('topics', () => {
  test('are made with what is asked for, listed, and deleted', async () => {
    const create = ['topics', 'create', 'made', '--partitions', '3', '--set', 'retention.ms=5000'];
    expect(await rookery(create)).toEqual({ stdout: '', stderr: '', code: 0 });
    expect(await rows(['topics', 'list'])).toContainEqual(['made', '3', 'no']);
    await refused(rookery(create), 1, /^rookery: RK9208 .*TOPIC_ALREADY_EXISTS.*'made'/);
    expect((await rookery(['topics', 'delete', 'made'])).code).toBe(0);
    expect(await rows(['topics', 'list'])).not.toContainEqual(['made', '3', 'no']);
    await refused(rookery(['topics', 'delete', 'made']), 1, /^rookery: RK9208 .*UNKNOWN_TOPIC/);
    await refused(rookery(['topics', 'create', 'x', '--partitions', 'no']), 2, /^rookery: RK0101 .*no/);
  });

  test('have settings that are printed, changed, and taken back', async () => {
    await filled('configured', 1, 0);
    const settings = async (): Promise<string[]> =>
      (await rookery(['configs', 'configured'])).stdout.split('\n');
    const original = await settings();
    expect(original).not.toContain('retention.ms=12345');
    const change = [
      'configs',
      'configured',
      '--set',
      'retention.ms=12345',
      '--set',
      'cleanup.policy=compact',
    ];
    expect(await rookery(change)).toEqual({ stdout: '', stderr: '', code: 0 });
    expect(await settings()).toEqual(
      expect.arrayContaining(['retention.ms=12345', 'cleanup.policy=compact']),
    );
    await rookery(['configs', 'configured', '--unset', 'retention.ms', '--unset', 'cleanup.policy']);
    expect(await settings()).toEqual(original);
    const bad = (value: string): Promise<Finished> => rookery(['configs', 'configured', '--set', value]);
    await refused(bad('retention.ms=soon'), 1, /^rookery: RK9208 .*INVALID_CONFIG.*retention\.ms/);
    await refused(bad('retention.ms'), 2, /^rookery: RK0101 .*name=value/);
    await refused(rookery(['configs', 'nowhere']), 1, /^rookery: RK9208 .*UNKNOWN_TOPIC/);
  });
});

describe('groups', () => {
  test('are listed, and told with their members, what they committed and how far they are behind', async () => {
    await filled('grouped', 2, 7);
    const assigned = Promise.withResolvers<readonly AssignedPartition[]>();
    const consumer = client.consumer(
      { group: 'readers', topics: ['grouped'], instanceId: 'reader-one' },
      {
        assigned: assigned.resolve,
        revoking: async () => {},
        lost: () => {},
        records: () => {},
        troubled: () => {},
        failed: assigned.reject,
      },
    );
    consumer.start();
    const first = (await assigned.promise).find(({ partition }) => partition === 0)!;
    await consumer.commit(first, 3);
    expect(await rows(['groups', 'list'])).toContainEqual(['readers', 'Stable', 'consumer']);
    const [state, head, ...partitions] = await rows(['groups', 'describe', 'readers']);
    expect(state).toEqual(['readers: Stable, members: 1']);
    expect(head).toEqual(['TOPIC', 'PARTITION', 'COMMITTED', 'HIGH-WATERMARK', 'LAG', 'MEMBER', 'HOST']);
    expect(partitions).toEqual([
      ['grouped', '0', '3', '7', '4', 'reader-one', expect.stringContaining('127.0.0.1')],
      ['grouped', '1', '-', '0', '-', 'reader-one', expect.stringContaining('127.0.0.1')],
    ]);
    await consumer.close();
    await refused(rookery(['groups', 'describe', 'nobody']), 1, /^rookery: RK9208 .*GROUP_ID_NOT_FOUND/);
  });
});

test('a topic is described of which nobody can read the oldest record', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'rookery-cli-'));
  const whole = await startSidecar({ dataDir });
  const its = new Client({ brokers: [whole.kafka] });
  await its.admin().createTopics([{ name: 'rotten', partitions: 1 }]);
  await its.producer().send('rotten', { value: Buffer.alloc(100), partition: 0 });
  await its.close();
  await whole.stop();
  const file = `${dataDir}/rotten-0/00000000000000000000.log`;
  const bytes = readFileSync(file);
  bytes[90]! ^= 1;
  writeFileSync(file, bytes);
  const sick = await startSidecar({ dataDir });
  const { stdout, stderr } = await bare(['topics', 'describe', 'rotten', '--broker', sick.kafka]);
  expect(stderr).toBe('');
  expect(stdout.trim().split('\n').at(-1)!.trim().split(/\s+/).slice(0, 4)).toEqual(['0', '1', '0', '1']);
  expect(stdout.trim()).toMatch(/ -$/);
  await sick.stop();
  rmSync(dataDir, { recursive: true });
});

test('the records of a quiet topic go by themselves, its active segment too', async () => {
  const own = await startSidecar({ settings: { 'log.retention.check.interval.ms': 100 } });
  const its = new Client({ brokers: [own.kafka] });
  const configs = { 'retention.ms': '700', 'segment.ms': '200' };
  await its.admin().createTopics([{ name: 'quiet', partitions: 1, configs }]);
  await its.producer().send('quiet', { value: Buffer.from('soon gone'), partition: 0 });
  const startAndEnd = async (): Promise<string[]> => {
    const { stdout } = await bare(['topics', 'describe', 'quiet', '--broker', own.kafka]);
    return stdout.trim().split('\n').at(-1)!.trim().split(/\s+/).slice(2, 4);
  };
  await expect.poll(startAndEnd, { timeout: 10_000, interval: 200 }).toEqual(['1', '1']);
  await its.close();
  await own.stop();
});

describe('produce and consume', () => {
  test('carry lines there and back, byte for byte, each key with its value', async () => {
    await filled('lines', 3, 0);
    const lines = Array.from({ length: 5_000 }, (_, i) => `key-${i % 7}:${i} é: and more`);
    const sent = await rookery(['produce', 'lines', '--key-separator', ':'], lines.join('\n'));
    expect(sent).toEqual({ stdout: '', stderr: '', code: 0 });
    const read = await rookery(['consume', 'lines', '--count', '5000', '--key-separator', ':']);
    expect(read.code).toBe(0);
    expect(read.stdout.trimEnd().split('\n').sort()).toEqual(lines.toSorted());
  });

  test('begin where they are told to', async () => {
    await filled('counted', 1, 0);
    await rookery(['produce', 'counted'], 'zero\none\n\nthree\n');
    const from = (where: string, count: string): Promise<Finished> =>
      rookery(['consume', 'counted', '--from', where, '--count', count]);
    expect((await from('1', '2')).stdout).toBe('one\n\n');
    expect((await from('earliest', '1')).stdout).toBe('zero\n');
    await refused(from('99', '1'), 1, /^rookery: RK9208 .*OFFSET_OUT_OF_RANGE.*99/);
    await refused(from('soon', '1'), 2, /^rookery: RK0101 .*soon/);
  });

  test('create no topic by a typing error', async () => {
    await refused(rookery(['produce', 'mistyped'], 'x\n'), 1, /^rookery: RK9208 .*UNKNOWN_TOPIC/);
    await refused(rookery(['consume', 'mistyped']), 1, /^rookery: RK9208 .*UNKNOWN_TOPIC/);
    expect((await client.admin().listTopics()).map(({ name }) => name)).not.toContain('mistyped');
  });

  test('say which records are refused, and do not end as if all were well', async () => {
    await filled('narrow', 1, 0);
    await rookery(['configs', 'narrow', '--set', 'max.message.bytes=1000']);
    await refused(rookery(['produce', 'narrow'], 'x'.repeat(2000)), 1, /^rookery: RK9208 .*TOO_LARGE/);
  });
});

describe('a refusal', () => {
  test('is one coded line, 1 from the broker and 2 where the command line is wrong', async () => {
    await refused(rookery(['topics', 'describe', 'nowhere']), 1, /^rookery: RK9208 .*UNKNOWN_TOPIC/);
    await refused(
      bare(['topics', 'describe', 'x', '--broker', '127.0.0.1:1']),
      1,
      /^rookery: RK9201 .*REFUSED/,
    );
    await refused(bare(['topics', 'describe', 'x', '--broker', 'here']), 2, /^rookery: RK9207 .*'here'/);
    await refused(rookery(['topics', 'describe', 'x', '--admin', 'here']), 2, /^rookery: RK0105 .*--admin/);
    await refused(rookery(['topics', 'describe']), 2, /^rookery: RK0101/);
  });

  test('comes from a broker that takes the connection and says nothing', async () => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as AddressInfo;
    try {
      await refused(
        bare(['topics', 'list', '--broker', `127.0.0.1:${port}`]),
        1,
        /^rookery: RK9201 .*ApiVersions/,
      );
    } finally {
      silent.close();
    }
  });

  test('creates no topic by asking for it', async () => {
    await rookery(['topics', 'describe', 'nowhere']);
    const names = (await client.admin().listTopics()).map(({ name }) => name);
    expect(names).not.toContain('nowhere');
  });
});
