import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from '@rookery/client';
import { startSidecar } from '@rookery/testing';
import { shown, table } from './figures.ts';
import type { Load, LoadGenerator } from './load-generator.ts';
import type { Sizes } from './sizes.ts';

/** Where a sidecar's event loop spends its time under one kind of load. */
export interface Profile {
  readonly work: string;
  /** Milliseconds that the profile spans, idle ones not counted. */
  readonly busyMs: number;
  /** Functions by the time in themselves, the dearest first. */
  readonly functions: readonly { readonly name: string; readonly selfMs: number }[];
}

interface ProfiledWork {
  readonly name: string;
  readonly partitions: number;
  readonly flushMode: 'os' | 'sync';
  run(load: Load, generator: LoadGenerator, sizes: Sizes): Promise<unknown>;
}

const works: readonly ProfiledWork[] = [
  { name: 'produce, 1 partition', partitions: 1, flushMode: 'os', run: producing },
  { name: 'produce, 50 partitions', partitions: 50, flushMode: 'os', run: producing },
  { name: 'produce, 1 partition, on disk', partitions: 1, flushMode: 'sync', run: producing },
  { name: 'ack, one record at a time', partitions: 1, flushMode: 'os', run: acknowledging },
  { name: 'ack, one record at a time, on disk', partitions: 1, flushMode: 'sync', run: acknowledging },
  { name: 'catch-up read', partitions: 1, flushMode: 'os', run: reading(() => 1) },
  {
    name: 'catch-up read, several readers',
    partitions: 1,
    flushMode: 'os',
    run: reading((sizes) => sizes.readers),
  },
];

/** How often the same is asked, so that the start and the compiling of code are a small part of it. */
const repeats = 3;

function producing(load: Load, generator: LoadGenerator): Promise<unknown> {
  return generator.produce(load);
}

function acknowledging(load: Load, generator: LoadGenerator, { singles }: Sizes): Promise<unknown> {
  return generator.acknowledged({ ...load, records: singles });
}

function reading(readers: (sizes: Sizes) => number) {
  return (load: Load, generator: LoadGenerator, sizes: Sizes): Promise<unknown> =>
    generator.consume(load, readers(sizes));
}

/** Runs each work on a sidecar of its own that Node profiles. */
export async function profile(options: {
  readonly generator: LoadGenerator;
  readonly sizes: Sizes;
  readonly only: string;
  progress(text: string): void;
}): Promise<Profile[]> {
  const profiles: Profile[] = [];
  for (const work of works.filter(({ name }) => name.includes(options.only))) {
    options.progress(work.name);
    profiles.push(await profiled(work, options.generator, options.sizes));
  }
  return profiles;
}

async function profiled(work: ProfiledWork, generator: LoadGenerator, sizes: Sizes): Promise<Profile> {
  const home = await mkdtemp(join(tmpdir(), 'rookery-profile-'));
  const dataDir = join(home, 'data');
  const topic = 'profiled';
  const start = (environment: Record<string, string>) =>
    startSidecar({ dataDir, environment, settings: { 'flush.mode': work.flushMode } });
  try {
    const load = { topic, partitions: work.partitions, codec: 'none', ...sizes } as const;
    const reads = work.name.includes('read');
    const first = await start({});
    const client = new Client({ brokers: [first.kafka] });
    await client.admin().createTopics([{ name: topic, partitions: work.partitions }]);
    await client.close();
    // What a profile of reading must not show is how the records came there.
    if (reads) await generator.produce({ ...load, address: first.kafka });
    await first.stop();
    const sidecar = await start({ NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${home}` });
    for (let i = 0; i < repeats; i++) await work.run({ ...load, address: sidecar.kafka }, generator, sizes);
    await sidecar.stop();
    return { work: work.name, ...selfTimes(await mainThread(home)) };
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  /** Microseconds since the sample before. */
  readonly timeDeltas: readonly number[];
}

/** Each thread leaves a profile; threads that only wait leave small ones. */
async function mainThread(home: string): Promise<CpuProfile> {
  const names = (await readdir(home)).filter((name) => name.endsWith('.cpuprofile'));
  const texts = await Promise.all(names.map((name) => readFile(join(home, name), 'utf8')));
  const largest = texts.toSorted((a, b) => b.length - a.length)[0];
  if (largest === undefined) throw new Error('the sidecar left no profile');
  return JSON.parse(largest) as CpuProfile;
}

function selfTimes({ nodes, samples, timeDeltas }: CpuProfile): Omit<Profile, 'work'> {
  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => {
      const file = url.replace(/^.*\/(?:node_modules|sidecar\/dist|libs)\//, '').replace('/dist/', '/');
      return [id, file === '' ? functionName : `${functionName || '(anonymous)'} ${file}:${lineNumber + 1}`];
    }),
  );
  const spent = new Map<string, number>();
  let busyMs = 0;
  samples.forEach((id, i) => {
    const name = names.get(id)!;
    if (name === '(idle)') return;
    busyMs += timeDeltas[i]! / 1_000;
    spent.set(name, (spent.get(name) ?? 0) + timeDeltas[i]! / 1_000);
  });
  const functions = [...spent]
    .map(([name, selfMs]) => ({ name, selfMs }))
    .toSorted((a, b) => b.selfMs - a.selfMs);
  return { busyMs, functions };
}

const shownMax = 25;

export function profileText(profiles: readonly Profile[]): string {
  return profiles
    .map(({ work, busyMs, functions }) => {
      const rows = functions
        .slice(0, shownMax)
        .map(({ name, selfMs }) => [name, shown(selfMs), `${((selfMs / busyMs) * 100).toFixed(1)} %`]);
      return `### ${work}: ${shown(busyMs)} ms busy\n\n${table(['function', 'ms in itself', 'share'], rows)}`;
    })
    .join('\n\n');
}
