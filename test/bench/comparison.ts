import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@rookery/client';
import type { Contender, RunningBroker } from './contenders.ts';
import { byRow, median, shown, table, type Figure } from './figures.ts';
import type { FullPageCache } from './full-page-cache.ts';
import type { Load, LoadGenerator } from './load-generator.ts';
import { cpuMs, memoryMiB } from './process-cost.ts';
import type { Sizes } from './sizes.ts';

/** One broker in one round: what its works need. */
interface Bout {
  readonly broker: RunningBroker;
  readonly generator: LoadGenerator;
  readonly sizes: Sizes;
  /** A fresh topic, and what is asked of it. */
  load(what?: Partial<Pick<Load, 'partitions' | 'records' | 'valueBytes' | 'codec'>>): Promise<Load>;
}

interface Work {
  readonly name: string;
  /** Whether a broker that syncs before it acknowledges is worth measuring beside one that does not. */
  readonly onDisk: boolean;
  run(bout: Bout): Promise<Figure[]>;
}

export interface ComparisonOptions {
  readonly contenders: readonly Contender[];
  readonly generator: LoadGenerator;
  readonly sizes: Sizes;
  readonly rounds: number;
  /** Only works whose name has this in it. */
  readonly only: string;
  /** Filled before each broker starts; null leaves the memory as it is. */
  readonly pageCache: FullPageCache | null;
  progress(text: string): void;
}

/** A row of the table: the figure of each round, on either side. */
export interface Row {
  readonly work: string;
  readonly unit: string;
  readonly kafka: readonly number[];
  readonly rookery: readonly number[];
}

const codecs = { none: '', zstd: ', zstd' } as const;

const production = (partitions: number, codec: keyof typeof codecs): Work => {
  const name = `produce, ${partitions === 1 ? '1 partition' : `${partitions} partitions`}${codecs[codec]}`;
  return {
    name,
    onDisk: codec === 'none',
    async run({ broker, generator, load }) {
      const what = await load({ partitions, codec });
      return metered(broker, name, 'records/s', what.records * what.valueBytes, () =>
        generator.produce(what),
      );
    },
  };
};

const acknowledgement: Work = {
  name: 'ack, one record at a time',
  onDisk: true,
  async run({ generator, sizes, load }) {
    const { p50, p99 } = await generator.acknowledged(await load({ records: sizes.singles }));
    return [
      { work: 'ack, one record at a time, p50', unit: 'ms', value: p50 },
      { work: 'ack, one record at a time, p99', unit: 'ms', value: p99 },
    ];
  },
};

const reading: Work = {
  name: 'catch-up read',
  onDisk: false,
  async run({ broker, generator, sizes, load }) {
    const what = await load();
    await generator.produce(what);
    const bytes = what.records * what.valueBytes;
    const read = (name: string, readers: number): Promise<Figure[]> =>
      metered(
        broker,
        name,
        'MB/s',
        readers * bytes,
        async () => ((await generator.consume(what, readers)) * what.valueBytes) / 1e6,
      );
    return [
      ...(await read('catch-up read', 1)),
      ...(await read(`catch-up read, ${sizes.readers} readers`, sizes.readers)),
    ];
  },
};

const delivery: Work = {
  name: 'publish to delivery, one record at a time',
  onDisk: false,
  async run({ generator, sizes, load }) {
    const { p50, p99, mean } = await generator.delivered(await load({ records: sizes.singles }));
    return [
      { work: 'publish to delivery, one record at a time, p50', unit: 'ms', value: p50 },
      { work: 'publish to delivery, one record at a time, p99', unit: 'ms', value: p99 },
      ...(mean === undefined
        ? []
        : [{ work: 'publish to delivery, EndToEndLatency, mean', unit: 'ms', value: mean }]),
    ];
  },
};

const rest: Work = {
  name: 'start, idle',
  onDisk: false,
  async run({ broker, sizes }) {
    await broker.observe();
    const before = cpuMs(broker.pid);
    await sleep(sizes.idleMs);
    const share = (cpuMs(broker.pid) - before) / sizes.idleMs;
    return [
      { work: 'start to first answer', unit: 'ms', value: broker.firstAnswerMs },
      { work: 'memory, idle', unit: 'MiB', value: memoryMiB(broker.pid) },
      { work: 'processor, idle', unit: '% of a core', value: share * 100 },
    ];
  },
};

const bulk: Work = {
  name: 'memory after bulk',
  onDisk: false,
  async run({ broker, generator, sizes, load }) {
    const valueBytes = 1_000;
    const what = await load({ valueBytes, records: Math.ceil(sizes.bulkBytes / valueBytes) });
    await generator.produce(what);
    await generator.consume(what, 1);
    const name = `memory after ${shown(sizes.bulkBytes / 1e9)} GB in and out`;
    return [{ work: name, unit: 'MiB', value: memoryMiB(broker.pid) }];
  },
};

/** In this order: what a broker is at rest must be seen before anybody has used it. */
const works: readonly Work[] = [
  rest,
  production(1, 'none'),
  production(50, 'none'),
  production(1, 'zstd'),
  acknowledgement,
  reading,
  delivery,
  bulk,
];

/** Lets every contender do the same works in turn, as often as there are rounds. */
export async function compare(options: ComparisonOptions): Promise<Row[]> {
  const { contenders, rounds, progress } = options;
  const figures: Record<Contender['name'], Figure[]> = { Kafka: [], Rookery: [] };
  for (let round = 0; round < rounds; round++) {
    // Each is first as often as last: what a round leaves behind, hot or dirty, must not hit the same one always.
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const label = `round ${round + 1}/${rounds}, ${contender.name}${contender.onDisk ? ' on disk' : ''}`;
      options.pageCache?.fill();
      const bout = await oneBout(contender, options, (text) => progress(`${label}: ${text}`));
      figures[contender.name].push(...bout);
    }
  }
  const kafka = byRow(figures.Kafka);
  return [...byRow(figures.Rookery).entries()].map(([key, own]) => ({
    work: own[0]!.work,
    unit: own[0]!.unit,
    // Kafka has no row of its own for the disk: there, too, it acknowledges from the page cache.
    kafka: (kafka.get(key) ?? kafka.get(key.replace(onDisk, '')) ?? []).map(({ value }) => value),
    rookery: own.map(({ value }) => value),
  }));
}

const onDisk = ', on disk';

async function oneBout(
  contender: Contender,
  { generator, sizes, only }: ComparisonOptions,
  progress: (text: string) => void,
): Promise<Figure[]> {
  const due = works.filter((work) => work.name.includes(only) && (work.onDisk || !contender.onDisk));
  if (due.length === 0) return [];
  const broker = await contender.start();
  const client = new Client({ brokers: [broker.address] });
  let topics = 0;
  const bout: Bout = {
    broker,
    generator,
    sizes,
    async load({
      partitions = 1,
      records = sizes.records,
      valueBytes = sizes.valueBytes,
      codec = 'none',
    } = {}) {
      const topic = `bench-${++topics}`;
      const [made] = await client.admin().createTopics([{ name: topic, partitions, replicationFactor: 1 }]);
      if (made!.error !== 'NONE') throw new Error(`${topic}: ${made!.error} ${made!.message ?? ''}`);
      return { address: broker.address, topic, partitions, records, valueBytes, codec };
    },
  };
  const figures: Figure[] = [];
  let isWarm = false;
  try {
    for (const work of due) {
      // Both brokers run code that gets faster with use, and neither is measured before that.
      if (work !== rest && !isWarm) {
        await warmUp(bout);
        isWarm = true;
      }
      for (const figure of await work.run(bout)) {
        const row = contender.onDisk ? { ...figure, work: figure.work + onDisk } : figure;
        figures.push(row);
        progress(`${row.work} ${shown(row.value)} ${row.unit}`);
      }
    }
  } finally {
    await client.close();
    await broker.stop();
  }
  return figures;
}

async function warmUp({ generator, sizes, load }: Bout): Promise<void> {
  const what = await load({ partitions: 4, records: Math.ceil(sizes.records / 2) });
  await generator.produce(what);
  await generator.consume(what, 1);
}

/** Runs something, and tells beside its own figure what it cost the broker. */
async function metered(
  { pid }: RunningBroker,
  work: string,
  unit: string,
  bytes: number,
  run: () => Promise<number>,
): Promise<Figure[]> {
  const before = cpuMs(pid);
  const value = await run();
  const spent = cpuMs(pid) - before;
  return [
    { work, unit, value },
    { work: `${work}: processor`, unit: 'ms/MB', value: spent / (bytes / 1e6) },
  ];
}

/** @returns the table of medians, and of how many times Kafka's figure Rookery's is */
export function comparisonTable(rows: readonly Row[]): string {
  const middle = (values: readonly number[]): number | null => (values.length === 0 ? null : median(values));
  return table(
    ['work', 'unit', 'Kafka', 'Rookery', 'ratio'],
    rows.map(({ work, unit, ...sides }) => {
      const kafka = middle(sides.kafka);
      const rookery = middle(sides.rookery)!;
      const ratio = kafka === null || kafka === 0 ? '' : `${shown(rookery / kafka)}×`;
      return [work, unit, kafka === null ? '' : shown(kafka), shown(rookery), ratio];
    }),
  );
}
