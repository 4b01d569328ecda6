import { output } from '../support/finished-process.ts';
import type { Latency, Load, LoadGenerator } from './load-generator.ts';

const withinMs = 900_000;

/** What a run may print: one line of JSON with the fields that it has. Latencies are in microseconds. */
interface Report {
  readonly recordsPerSecond?: number;
  /** Records that were not acknowledged. */
  readonly failed?: number;
  readonly us?: { readonly p50: number; readonly p99: number };
}

/**
 * A program that puts load on a broker and prints one line of JSON for each run. It is called with `-brokers
 * host:port -topic NAME -partitions N -records N -size BYTES -codec none|zstd` and `-run` with one of `produce`, `ack`
 * (one record after the other), `fanout` with `-readers K` (everything, K times at once), and `e2e` with `-rate 0`
 * (each record sent when the one before has been read).
 */
export function externalGenerator(program: string): LoadGenerator {
  const run = async (kind: string, load: Load, ...more: string[]): Promise<Report> => {
    const { address, topic, partitions, records, valueBytes, codec } = load;
    const printed = await output(
      program,
      [
        ...['-run', kind, '-brokers', address, '-topic', topic, '-partitions', `${partitions}`],
        ...['-records', `${records}`, '-size', `${valueBytes}`, '-codec', codec, ...more],
      ],
      { withinMs },
    );
    const report = JSON.parse(printed.trim().split('\n').at(-1)!) as Report;
    if ((report.failed ?? 0) > 0) throw new Error(`${kind}: ${report.failed} records failed`);
    return report;
  };
  const rate = ({ recordsPerSecond }: Report): number => {
    if (recordsPerSecond === undefined) throw new Error(`${program} printed no recordsPerSecond`);
    return recordsPerSecond;
  };
  const latency = ({ us }: Report): Latency => {
    if (us === undefined) throw new Error(`${program} printed no us`);
    return { p50: us.p50 / 1_000, p99: us.p99 / 1_000 };
  };
  return {
    name: 'an external load generator',
    produce: async (load) => rate(await run('produce', load)),
    acknowledged: async (load) => latency(await run('ack', load)),
    consume: async (load, readers) => rate(await run('fanout', load, '-readers', `${readers}`)),
    delivered: async (load) => latency(await run('e2e', load, '-rate', '0')),
  };
}
