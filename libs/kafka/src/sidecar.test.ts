import {
  Engine,
  topic,
  type EngineOptions,
  type Logger,
  type RookeryContext,
  type Topic,
} from '@rookery/engine';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { sidecar } from './index.ts';

let broker: SidecarProcess;
beforeAll(async () => void (broker = await startSidecar({ settings: { 'num.partitions': 2 } })));
afterAll(async () => void (await broker.stop()));

const open: Engine[] = [];
afterEach(async () => {
  for (const engine of open.splice(0)) await engine.close();
});

let topics = 0;
const freshName = (): string => `driver-${++topics}`;
const soon = { timeout: 30_000 };

function engineOf(
  service: string,
  {
    url = broker.url,
    lines = [],
    ...options
  }: Partial<EngineOptions> & { url?: string; lines?: string[] } = {},
): Engine {
  const keep = (message: string, fields?: object): void => {
    lines.push(`${message}: ${String((fields as { err?: unknown } | undefined)?.err)}`);
  };
  const logger: Logger = { info: keep, warn: keep, error: keep };
  const engine = new Engine({ service, connections: { default: sidecar(url) }, ...options }, logger);
  open.push(engine);
  return engine;
}

/** How many requests of that name the sidecar has answered. */
async function requests(api: string): Promise<number> {
  const text = await (await fetch(`${broker.admin}/metrics`)).text();
  const counts = text
    .split('\n')
    .filter((line) => line.startsWith('rookery_requests_total{') && line.includes(`"${api}"`));
  return counts.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

describe('publishing', () => {
  test('resolves with the position, in the order of the calls', async () => {
    const engine = engineOf('publisher');
    const name = freshName();
    const positions = await Promise.all(
      [0, 1, 2].map((n) => engine.publish(name, { n }, { partition: 1, timestamp: 1_000 + n })),
    );
    expect(positions).toEqual(
      [0, 1, 2].map((n) => ({ topic: name, partition: 1, offset: n, timestamp: 1_000 + n })),
    );
  });

  test('of one turn is one request', async () => {
    const engine = engineOf('publisher');
    const name = freshName();
    await engine.publish(name, {});
    const before = await requests('Produce');
    await Promise.all(Array.from({ length: 2_000 }, (_, n) => engine.publish(name, { n }, { key: `k${n}` })));
    expect((await requests('Produce')) - before).toBe(1);
  });

  test('keeps the order of its calls while the topic is being made', async () => {
    const ordered = topic<number>(freshName(), { key: () => 'same', partitions: 3 });
    const engine = engineOf(ordered.name);
    const seen: number[] = [];
    engine.subscribe(ordered, (n: number) => void seen.push(n));
    await engine.start();
    const all: Promise<unknown>[] = [];
    // From calls that wait for the topic to calls that need not wait any more.
    const first = engine.publish(ordered, 0);
    let isThere = false;
    void first.then(() => (isThere = true));
    for (let n = 1; !isThere || n < 500; n++) {
      all.push(engine.publish(ordered, n));
      if (n % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all([first, ...all]);
    await expect.poll(() => seen.length, soon).toBe(all.length + 1);
    expect(seen).toEqual(Array.from({ length: all.length + 1 }, (_, n) => n));
  });

  test('of what cannot go is refused with a code, and what is beside it goes', async () => {
    const engine = engineOf('publisher', { publish: { unsettledMax: 4 } });
    const name = freshName();
    await engine.publish(name, 'there');
    const big = engine.publish(name, 'x'.repeat(2_000_000), { partition: 0 });
    const fine = engine.publish(name, 'fine', { partition: 1 });
    await expect(big).rejects.toMatchObject({ code: 'RK3002' });
    await expect(fine).resolves.toMatchObject({ partition: 1 });
    await expect(engine.publish(name, 1, { partition: 9 })).rejects.toMatchObject({ code: 'RK2002' });
    await expect(engine.publish(name, undefined)).rejects.toMatchObject({ code: 'RK4002' });
    await expect(engine.publish('no topic', 1)).rejects.toMatchObject({ code: 'RK2002' });
    const many = await Promise.allSettled([1, 2, 3, 4, 5].map((n) => engine.publish(name, n)));
    expect(many.map(({ status }) => status)).toEqual([...Array<string>(4).fill('fulfilled'), 'rejected']);
    expect(many[4]).toMatchObject({ reason: { code: 'RK3005' } });
    // Settled ones make room again.
    await expect(engine.publish(name, 6)).resolves.toMatchObject({ topic: name });
  });
});

describe('handling', () => {
  test('skips bytes that are no JSON', async () => {
    const name = freshName();
    const lines: string[] = [];
    const engine = engineOf(name, { lines });
    const seen: unknown[] = [];
    engine.subscribe(name, (payload) => void seen.push(payload), { name: 'read' });
    await engine.start();
    const { Client } = await import('@rookery/client');
    const client = new Client({ brokers: [broker.kafka] });
    await client.producer().send(name, { partition: 0, key: null, value: Buffer.from('{oops'), headers: [] });
    await client.close();
    await engine.publish(name, 'fine', { partition: 0 });
    await expect.poll(() => seen, soon).toEqual(['fine']);
    expect(lines.filter((line) => line.includes('skipped'))).toEqual([
      expect.stringMatching(/^read skipped .*@0 after one attempt: .*RK4001/),
    ]);
  });

  test('hands over tombstones, keys and headers', async () => {
    const name = freshName();
    const engine = engineOf(name);
    const seen: unknown[] = [];
    engine.subscribe(name, (payload, context: RookeryContext) =>
      seen.push([payload, context.key, context.header('h'), context.timestamp.getTime(), context.attempt]),
    );
    await engine.start();
    await engine.publish(name, null, { key: 'gone', headers: { h: 'v' }, timestamp: 5 });
    await expect.poll(() => seen, soon).toEqual([[null, 'gone', 'v', 5, 1]]);
  });

  test('goes on where the group has acknowledged, one record at a time as well as in masses', async () => {
    const name = freshName();
    const publisher = engineOf('publisher');
    const count = 5_000;
    await Promise.all(Array.from({ length: count }, (_, n) => publisher.publish(name, n, { partition: 0 })));
    const read = async (until: number): Promise<number[]> => {
      const engine = engineOf(name);
      const seen: number[] = [];
      engine.subscribe(name, (n: number) => void seen.push(n));
      await engine.start();
      await expect.poll(() => seen.at(-1), soon).toBe(until);
      await engine.close();
      return seen;
    };
    expect(await read(count - 1)).toEqual(Array.from({ length: count }, (_, n) => n));
    await publisher.publish(name, count, { partition: 0 });
    expect(await read(count)).toEqual([count]);
  });

  test('begins at the end where that is asked for', async () => {
    const name = freshName();
    const engine = engineOf(name);
    await engine.publish(name, 'before', { partition: 0 });
    const seen: unknown[] = [];
    engine.subscribe(name, (payload) => void seen.push(payload), { from: 'latest' });
    await engine.start();
    // Whatever is published once the end has been found.
    await expect
      .poll(async () => {
        await engine.publish(name, 'after', { partition: 0 });
        return seen.length;
      }, soon)
      .toBeGreaterThan(0);
    expect(new Set(seen)).toEqual(new Set(['after']));
  });
});

test('a crash of the sidecar loses nothing that was confirmed, and keeps the order of each key', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'rookery-driver-'));
  let mine = await startSidecar({ dataDir });
  const listen = mine.kafka;
  const ordered: Topic<{ key: string; n: number }> = topic(freshName(), {
    key: ({ key }) => key,
    partitions: 2,
  });
  const engine = engineOf(ordered.name, { url: mine.url });
  const seen = new Map<string, number[]>();
  engine.subscribe(ordered, ({ key, n }: { key: string; n: number }) => {
    const of = seen.get(key) ?? [];
    // At least once: what was not acknowledged before the crash comes again, in order.
    if (n > (of.at(-1) ?? -1)) seen.set(key, [...of, n]);
  });
  await engine.start();
  try {
    const keys = ['a', 'b', 'c', 'd'];
    const confirmed: Promise<unknown>[] = [];
    for (let n = 0; n < 300; n++) {
      for (const key of keys) confirmed.push(engine.publish(ordered, { key, n }));
      if (n === 150) {
        await mine.kill();
        mine = await startSidecar({ dataDir, listen });
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(confirmed);
    const expected = Array.from({ length: 300 }, (_, n) => n);
    await expect.poll(() => keys.map((key) => seen.get(key)?.length), soon).toEqual([300, 300, 300, 300]);
    for (const key of keys) expect(seen.get(key), key).toEqual(expected);
  } finally {
    await engine.close();
    await mine.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
});

test.each(['http://localhost:9092', 'tcp://localhost', 'localhost:9092', ''])(
  'the url %j is refused',
  (url) => {
    expect(() => sidecar(url)).toThrow(/^RK2002.*not tcp:\/\/host:port/);
  },
);
