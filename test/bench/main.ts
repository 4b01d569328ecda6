import { writeFileSync } from 'node:fs';
import { constants, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { describe, machine } from './machine.ts';
import { generatorOf, suites, type SuiteOptions } from './suites.ts';

const usage = `npm run bench -- [SUITE]... [OPTION]...

Suites, the first alone unless told otherwise:
${Object.entries(suites)
  .map(([name, { about }]) => `  ${name.padEnd(12)} ${about}`)
  .join('\n')}

  --rounds N      how often; figures are medians (3)
  --only TEXT     of the comparison and the profile, only works whose name has TEXT in it
  --alone         Rookery without Kafka
  --full-cache    in the comparison, fill the page cache before each broker starts (as much disk as there is memory)
  --load WHO      who puts on the load: tools (Kafka's performance tools, the default), client (this repository's own),
                  or the path of a program that prints JSON (see docs/hacking.md)
  --records N     of each run about throughput (1000000)
  --size BYTES    of each record's value (200)
  --singles N     records of each run about latency (5000)
  --readers N     that read the same topic at once (8)
  --gb N          through a broker before its memory is looked at, and in logs that shall be large (2)
  --partitions N  of a broker that has many (10000)
  --idle SECONDS  for how long idle brokers are watched (10)
  --json FILE     everything that was measured, each round's figure, with facts about the machine`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    alone: { type: 'boolean', default: false },
    'full-cache': { type: 'boolean', default: false },
    load: { type: 'string', default: 'tools' },
    records: { type: 'string', default: '1000000' },
    size: { type: 'string', default: '200' },
    singles: { type: 'string', default: '5000' },
    readers: { type: 'string', default: '8' },
    gb: { type: 'string', default: '2' },
    partitions: { type: 'string', default: '10000' },
    idle: { type: 'string', default: '10' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const chosen = positionals.length === 0 ? ['kafka'] : positionals;
const unknown = chosen.find((name) => !(name in suites));
if (values.help || unknown !== undefined) {
  console.log(usage);
  if (unknown !== undefined) console.error(`there is no suite '${unknown}'`);
  process.exit(unknown === undefined ? 0 : 2);
}

const number = (
  name: 'rounds' | 'records' | 'size' | 'singles' | 'readers' | 'gb' | 'partitions' | 'idle',
): number => {
  const value = Number(values[name]);
  if (!(value > 0)) throw new Error(`--${name} takes a number above 0, not '${values[name]}'`);
  return value;
};
const options: SuiteOptions = {
  rounds: number('rounds'),
  only: values.only,
  alone: values.alone,
  hasFullCache: values['full-cache'],
  generator: generatorOf(values.load),
  sizes: {
    records: number('records'),
    valueBytes: number('size'),
    singles: number('singles'),
    readers: number('readers'),
    bulkBytes: number('gb') * 1e9,
    manyPartitions: number('partitions'),
    idleMs: number('idle') * 1_000,
  },
  progress: (text) => console.error(`  ${text}`),
};

// Whoever is interrupted takes its brokers along: those who started them stop them when the process exits.
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => process.exit(128 + constants.signals[signal]));

const facts = machine();
const results: Record<string, unknown> = {};
console.log(describe(facts));
for (const name of chosen) {
  const { about, run } = suites[name]!;
  console.error(`${name}: ${about}`);
  const { text, figures } = await run(options);
  results[name] = figures;
  console.log(`\n## ${name}\n\n${text}`);
}
const loadAverageAfter = loadavg()[0]!;
console.log(`\nload ${loadAverageAfter.toFixed(1)} at the end`);
if (values.json !== undefined) {
  const { rounds, sizes, generator, hasFullCache } = options;
  const report = {
    machine: { ...facts, loadAverageAfter },
    options: { rounds, sizes, load: generator.name, hasFullCache },
    results,
  };
  writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
}
