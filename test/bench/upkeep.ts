import { Client } from '@rookery/client';
import { startSidecar } from '@rookery/testing';
import { shown, type Figure } from './figures.ts';
import type { Latency, LoadGenerator } from './load-generator.ts';
import type { Sizes } from './sizes.ts';

/** What is written beside the acknowledgements that are timed: ten times a second, to each of two topics. */
const beatMs = 100;
const recordsPerBeat = 500;
const valueBytes = 1_000;
const keys = 1_000;

/** Small segments and eager looks: both kinds of upkeep have work all the time. */
const settings = {
  'log.segment.bytes': 1_048_576,
  'log.retention.check.interval.ms': 500,
  'log.cleaner.backoff.ms': 500,
};
const retained = { 'retention.bytes': '4194304' };
const compacted = { 'cleanup.policy': 'compact', 'min.cleanable.dirty.ratio': '0.01' };

/** Acknowledgements one at a time beside the same writes, once kept as they are, once retained and compacted. */
export async function upkeepEffect(options: {
  readonly generator: LoadGenerator;
  readonly sizes: Sizes;
  readonly rounds: number;
  progress(text: string): void;
}): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (let round = 0; round < options.rounds; round++) {
    for (const mode of ['os', 'sync'])
      for (const [name, topics] of [
        ['logs only grow', [{}, {}]],
        ['retention and compaction run', [retained, compacted]],
      ] as const) {
        const { p50, p99 } = await latencyBeside(mode, topics, options);
        const what = `flush.mode=${mode}, ${name}`;
        options.progress(`round ${round + 1}, ${what}: p50 ${shown(p50)} ms, p99 ${shown(p99)} ms`);
        figures.push({ work: `ack p50, ${what}`, unit: 'ms', value: p50 });
        figures.push({ work: `ack p99, ${what}`, unit: 'ms', value: p99 });
      }
  }
  return figures;
}

async function latencyBeside(
  mode: string,
  configs: readonly Readonly<Record<string, string>>[],
  { generator, sizes }: { readonly generator: LoadGenerator; readonly sizes: Sizes },
): Promise<Latency> {
  const sidecar = await startSidecar({ settings: { ...settings, 'flush.mode': mode } });
  const client = new Client({ brokers: [sidecar.kafka] });
  let beat: NodeJS.Timeout | undefined;
  try {
    const topics = configs.map((each, i) => ({ name: `beside-${i}`, partitions: 1, configs: each }));
    await client.admin().createTopics([{ name: 'timed', partitions: 1 }, ...topics]);
    const producer = client.producer();
    const value = Buffer.alloc(valueBytes, 'x');
    let count = 0;
    let failure: Error | null = null;
    const receipt = { delivered(): void {}, failed: (error: Error) => void (failure ??= error) };
    beat = setInterval(() => {
      for (const { name } of topics)
        for (let i = 0; i < recordsPerBeat; i++) {
          const key = Buffer.from(String(count++ % keys));
          producer.append(name, 0, { key, value, timestamp: Date.now() }, receipt);
        }
    }, beatMs);
    const load = { address: sidecar.kafka, topic: 'timed', partitions: 1, codec: 'none' } as const;
    const latency = await generator.acknowledged({ ...load, ...sizes, records: sizes.singles });
    if (failure !== null) throw failure as Error;
    return latency;
  } finally {
    clearInterval(beat);
    await client.close();
    await sidecar.stop();
  }
}
