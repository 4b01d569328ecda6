import { Client } from '@rookery/client';
import { startSidecar } from '@rookery/testing';
import { shown, type Figure } from './figures.ts';
import type { LoadGenerator } from './load-generator.ts';
import { cpuMs } from './process-cost.ts';
import type { Sizes } from './sizes.ts';

const firstBytes = 1e6;

/**
 * One log that grows tenfold from step to step: what a record costs to append must not depend on what
 * lies before it.
 */
export async function growth(options: {
  readonly generator: LoadGenerator;
  readonly sizes: Sizes;
  progress(text: string): void;
}): Promise<Figure[]> {
  const { generator, sizes, progress } = options;
  const { valueBytes, records } = sizes;
  const sidecar = await startSidecar({ settings: { 'flush.mode': 'os' } });
  const client = new Client({ brokers: [sidecar.kafka] });
  const figures: Figure[] = [];
  try {
    const of = { address: sidecar.kafka, topic: 'grown', partitions: 1, valueBytes, codec: 'none' } as const;
    const warm = { ...of, topic: 'warm' };
    await client.admin().createTopics([
      { name: of.topic, partitions: 1 },
      { name: warm.topic, partitions: 1 },
    ]);
    await generator.produce({ ...warm, records });
    let bytes = 0;
    for (let target = firstBytes; target <= sizes.bulkBytes; target *= 10) {
      if (target > bytes) {
        await generator.produce({ ...of, records: Math.ceil((target - bytes) / valueBytes) });
        bytes = target;
      }
      const before = cpuMs(sidecar.pid);
      await generator.produce({ ...of, records });
      const microseconds = ((cpuMs(sidecar.pid) - before) * 1_000) / records;
      bytes += records * valueBytes;
      const { p50, p99 } = await generator.acknowledged({ ...of, records: sizes.singles });
      const at = `after ${shown(target / 1e6)} MB of log`;
      figures.push(
        { work: `processor a record, ${at}`, unit: 'µs', value: microseconds },
        { work: `ack p50, ${at}`, unit: 'ms', value: p50 },
        { work: `ack p99, ${at}`, unit: 'ms', value: p99 },
      );
      progress(`${at}: ${shown(microseconds)} µs a record, acks ${shown(p50)} and ${shown(p99)} ms`);
    }
  } finally {
    await client.close();
    await sidecar.stop();
  }
  return figures;
}
