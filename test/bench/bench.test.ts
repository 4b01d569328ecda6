import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { output } from '../support/finished-process.ts';
import { requirePeer } from '../support/peers.ts';

// Every bench once, as small as it goes: that it says something about everything, not what it says.

const main = join(
  dirname(createRequire(import.meta.url).resolve('@rookery/test/package.json')),
  'dist/bench/main.js',
);
const small = [
  '--rounds',
  '1',
  '--records',
  '2000',
  '--singles',
  '50',
  '--readers',
  '2',
  '--gb',
  '0.002',
  '--idle',
  '0.1',
];
const withinMs = 600_000;

let home = '';
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'rookery-bench-'));
});
afterAll(() => rm(home, { recursive: true, force: true }));

interface Row {
  readonly work: string;
  readonly unit: string;
  readonly kafka: readonly number[];
  readonly rookery: readonly number[];
}

async function bench<Results>(...args: string[]): Promise<{ text: string; results: Results }> {
  const json = join(home, 'bench.json');
  const text = await output(process.execPath, [main, ...small, '--json', json, ...args], { withinMs });
  const { results, machine } = JSON.parse(await readFile(json, 'utf8')) as Record<
    string,
    Record<string, unknown>
  >;
  expect(machine).toMatchObject({
    node: process.version,
    cores: expect.any(Number),
    commit: expect.any(String),
  });
  return { text, results: results as Results };
}

/** Work that takes less than the kernel's hundredth of a second has cost no processor time. */
function expectPositive({ work, rookery, kafka }: Row): void {
  for (const value of [...rookery, ...kafka])
    if (work.includes('processor')) expect(value, work).toBeGreaterThanOrEqual(0);
    else expect(value, work).toBeGreaterThan(0);
}

const latencies = (of: string): string[] => [`${of}, p50`, `${of}, p99`];
const metered = (of: string): string[] => [of, `${of}: processor`];

describe('beside a real Kafka', () => {
  requirePeer('kafka', 'kcat');

  test('every row has a figure on both sides', { timeout: withinMs }, async () => {
    const { text, results } = await bench<{ kafka: Row[] }>('--load', 'client');
    const fast = [
      ...metered('produce, 1 partition'),
      ...metered('produce, 50 partitions'),
      ...latencies('ack, one record at a time'),
    ];
    expect(results.kafka.map(({ work }) => work)).toEqual([
      ...['start to first answer', 'memory, idle', 'processor, idle'],
      ...fast.slice(0, 4),
      ...metered('produce, 1 partition, zstd'),
      ...fast.slice(4),
      ...metered('catch-up read'),
      ...metered('catch-up read, 2 readers'),
      ...latencies('publish to delivery, one record at a time'),
      'memory after 0.002 GB in and out',
      ...fast.map((work) => `${work}, on disk`),
    ]);
    for (const row of results.kafka) {
      expect([row.kafka.length, row.rookery.length], row.work).toEqual([1, 1]);
      expectPositive(row);
      expect(text).toContain(`| ${row.work} `);
    }
  });
});

describe('by Kafka’s own tools', () => {
  requirePeer('kafka');

  test.each(['catch-up read', 'publish to delivery'])('%s', { timeout: withinMs }, async (work) => {
    const { results } = await bench<{ kafka: Row[] }>('--alone', '--only', work);
    expect(results.kafka.length).toBeGreaterThan(2);
    for (const row of results.kafka) expectPositive(row);
  });
});

test('the codec’s rows are positive', { timeout: withinMs }, async () => {
  const { results } = await bench<{ codec: { compiled: number[]; walked: number[] }[] }>('codec');
  expect(results.codec).toHaveLength(12);
  for (const { compiled, walked } of results.codec)
    for (const value of [...compiled, ...walked]) expect(value).toBeGreaterThan(0);
});

test('Nest services, upkeep and growth have positive figures', { timeout: withinMs }, async () => {
  const suites = ['nest', 'upkeep', 'growth'];
  type Figures = Record<string, { work: string; value: number }[]>;
  const { results } = await bench<Figures>(...suites, '--load', 'client');
  expect(suites.map((suite) => results[suite]!.length)).toEqual([2, 8, 3]);
  for (const { work, value } of suites.flatMap((suite) => results[suite]!))
    if (work.includes('processor')) expect(value, work).toBeGreaterThanOrEqual(0);
    else expect(value, work).toBeGreaterThan(0);
});

test('restarts have figures after every kind of stop', { timeout: withinMs }, async () => {
  type Figures = { restart: { work: string; value: number }[] };
  const { text, results } = await bench<Figures>('restart', '--partitions', '40');
  const works = results.restart.map(({ work }) => work);
  for (const how of ['kill -9 under load', 'an orderly stop', 'kill -9 while they were made', 'kill -9,'])
    expect(works.some((work) => work.startsWith(`ready after ${how}`))).toBe(true);
  for (const { work, value } of results.restart)
    if (!work.includes('beyond')) expect(value, work).toBeGreaterThan(0);
  expect(text).toContain('≤ 1,000');
});

test('a profile names functions of the sidecar', { timeout: withinMs }, async () => {
  const { text } = await bench('profile', '--load', 'client', '--only', 'ack, one record at a time, on disk');
  expect(text).toMatch(/\w+ (log|server|vfs)\/[\w/-]+\.js:\d+ /);
});

test('an unknown suite is refused, and the known ones are said', async () => {
  await expect(output(process.execPath, [main, 'kafak'])).rejects.toThrow(/no suite 'kafak'[^]*profile/);
});
