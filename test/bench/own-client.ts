import { Client, type AssignedPartition, type Producer } from '@rookery/client';
import { quantile } from './figures.ts';
import type { Latency, Load, LoadGenerator } from './load-generator.ts';

/** Neither code that is not compiled yet nor a group that is not formed yet belongs to a latency. */
const warmUpRecords = 500;
/** Records handed to a producer and not settled: enough to fill batches on every partition. */
const unsettledMax = 50_000;
/** Records handed in before anything else gets its turn. */
const burstMax = 5_000;
/** Records asked for ahead. */
const credits = 20_000;

/** The project's own client, inside this process: what a Node service gets from either broker. */
export const ownClient: LoadGenerator = {
  name: 'the client of this repository',

  produce: (load) =>
    withClient(load, async (client) => {
      const producer = client.producer({ codec: load.codec, lingerMs: 5 });
      await producer.partitionsOf(load.topic);
      const started = performance.now();
      await produceAll(producer, load);
      return perSecond(load.records, started);
    }),

  acknowledged: (load) =>
    withClient(load, (client) => {
      const producer = client.producer();
      const value = valueOf(load);
      return timed(load.records, () => producer.send(load.topic, { value, partition: 0 }));
    }),

  async consume(load, readers) {
    const started = performance.now();
    await Promise.all(Array.from({ length: readers }, (_, reader) => readAll(load, reader)));
    return perSecond(load.records * readers, started);
  },

  delivered: (load) =>
    withClient(load, async (client) => {
      const producer = client.producer();
      const value = valueOf(load);
      let arrived = (): void => {};
      const failed = reading(client, load, { group: 'delivered', credits: 1, read: () => arrived() });
      return await timed(load.records, async () => {
        const delivery = new Promise<void>((resolve) => (arrived = resolve));
        const sent = producer.send(load.topic, { value, partition: 0 });
        await Promise.race([Promise.all([delivery, sent]), failed]);
      });
    }),
};

const valueOf = ({ valueBytes }: Load): Buffer => Buffer.alloc(valueBytes, 'x');

const perSecond = (count: number, started: number): number => (count * 1_000) / (performance.now() - started);

async function withClient<T>({ address }: Load, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ brokers: [address] });
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

/** Resolves when every record is acknowledged. */
function produceAll(producer: Producer, load: Load): Promise<void> {
  const { topic, partitions, records } = load;
  const value = valueOf(load);
  return new Promise((resolve, reject) => {
    let sent = 0;
    let settled = 0;
    const receipt = {
      delivered(): void {
        if (++settled === records) resolve();
      },
      failed: reject,
    };
    const pump = (): void => {
      const burst = Math.min(unsettledMax - (sent - settled), records - sent, burstMax);
      for (let i = 0; i < burst; i++, sent++)
        producer.append(topic, sent % partitions, { value, timestamp: Date.now() }, receipt);
      if (sent < records) setImmediate(pump);
    };
    pump();
  });
}

/** One reader's way through the whole topic. */
function readAll(load: Load, reader: number): Promise<void> {
  return withClient(load, async (client) => {
    let count = 0;
    let finish = (): void => {};
    const finished = new Promise<void>((resolve) => (finish = resolve));
    const failed = reading(client, load, {
      group: `reader-${reader}`,
      credits,
      read(records) {
        count += records;
        if (count >= load.records) finish();
      },
    });
    await Promise.race([finished, failed]);
  });
}

/** Reads on until the client is closed. @returns a promise that only ever rejects */
function reading(
  client: Client,
  { topic }: Load,
  how: { readonly group: string; readonly credits: number; read(records: number): void },
): Promise<never> {
  return new Promise((_, failed) => {
    const consumer = client.consumer(
      { group: `${topic}-${how.group}`, topics: [topic] },
      {
        assigned(partitions: readonly AssignedPartition[]) {
          for (const partition of partitions) consumer.request(partition, how.credits);
        },
        async revoking() {},
        lost() {},
        records(partition, records) {
          consumer.request(partition, records.length);
          how.read(records.length);
        },
        troubled() {},
        failed,
      },
    );
    consumer.start();
  });
}

async function timed(count: number, once: () => Promise<unknown>): Promise<Latency> {
  const times: number[] = [];
  for (let i = 0; i < warmUpRecords + count; i++) {
    const started = performance.now();
    await once();
    if (i >= warmUpRecords) times.push(performance.now() - started);
  }
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
}
