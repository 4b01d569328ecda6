import { kafkaTool } from '../support/kafka-process.ts';
import { kafkaJvm } from './contenders.ts';
import type { Latency, LoadGenerator } from './load-generator.ts';
import { ownClient } from './own-client.ts';

const withinMs = 900_000;

/** Batches as large as a broker takes by default, and time to fill them: what both brokers are fastest with. */
const producerOptions = ['acks=all', 'batch.size=1048576', 'linger.ms=5', 'buffer.memory=134217728'];

/**
 * Kafka's own performance tools. They count latencies in whole milliseconds, too coarse for one record at a time:
 * there the percentiles come from the project's own client, and the mean, where it has one, from Kafka's tool.
 */
export const kafkaTools: LoadGenerator = {
  name: 'Kafka’s performance tools',

  async produce({ address, topic, records, valueBytes, codec }) {
    const printed = await tool('ProducerPerformance', [
      ...['--bootstrap-server', address, '--topic', topic, '--num-records', `${records}`],
      ...['--record-size', `${valueBytes}`, '--throughput', '-1'],
      ...[...producerOptions, `compression.type=${codec}`].flatMap((each) => ['--command-property', each]),
    ]);
    const sums = [...printed.matchAll(/^(\d+) records sent, ([\d.]+) records\/sec/gm)].at(-1);
    if (Number(sums?.[1]) !== records) throw new Error(`of ${records} records not all were sent: ${printed}`);
    return Number(sums![2]);
  },

  acknowledged: ownClient.acknowledged,

  async consume({ address, topic, records }, readers) {
    const args = ['--bootstrap-server', address, '--topic', topic, '--num-records', `${records}`];
    const printed = await Promise.all(
      Array.from({ length: readers }, () => tool('ConsumerPerformance', [...args, '--timeout', '60000'])),
    );
    const reads = printed.map(parseRead);
    const short = reads.find((read) => read.records < records);
    if (short !== undefined) throw new Error(`${short.records} of ${records} records were read`);
    const spanMs =
      Math.max(...reads.map(({ endMs }) => endMs)) - Math.min(...reads.map(({ fromMs }) => fromMs));
    return (reads.reduce((sum, read) => sum + read.records, 0) * 1_000) / spanMs;
  },

  async delivered(load): Promise<Latency> {
    const { address, topic, records, valueBytes } = load;
    const printed = await tool('EndToEndLatency', [
      ...['--bootstrap-server', address, '--topic', `${topic}-mean`, '--num-records', `${records}`],
      ...['--record-size', `${valueBytes}`, '--producer-acks', 'all'],
    ]);
    const mean = Number(/^Avg latency: ([\d.]+) ms/m.exec(printed)?.[1]);
    return { ...(await ownClient.delivered(load)), mean };
  },
};

const tool = (name: string, args: readonly string[]): Promise<string> =>
  kafkaTool(`org.apache.kafka.tools.${name}`, args, {
    withinMs,
    environment: { ...kafkaJvm, KAFKA_HEAP_OPTS: '-Xmx512M' },
  });

/** One line of commas: start, end, MB, MB/s, records, records/s, milliseconds until there was something to read… */
function parseRead(printed: string): { records: number; fromMs: number; endMs: number } {
  const cells = printed.trim().split('\n').at(-1)!.split(', ');
  const at = (text: string): number => Date.parse(text.replace(' ', 'T').replace(/:(\d+)$/, '.$1'));
  return { records: Number(cells[4]), fromMs: at(cells[0]!) + Number(cells[6]), endMs: at(cells[1]!) };
}
