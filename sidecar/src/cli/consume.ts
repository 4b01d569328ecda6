import { BrokerError, Fetcher, isRetriableError, type Client, type FetchedPartition } from '@rookery/client';
import type { LogRecord } from '@rookery/wire';
import { SidecarError } from '../errors.ts';
import { wholeNumber } from './given.ts';
import { inTime, withClient, type BrokerFlags } from './with-client.ts';

export interface ConsumeFlags extends BrokerFlags {
  readonly from: string;
  readonly count?: string;
  readonly partition?: string;
  readonly keySeparator?: string;
}

/** Records of one partition that may be on their way to a reader that has not taken what came before. */
const window = 1000;

/** `rookery consume TOPIC`: prints records, outside of any group, until there were enough or it is stopped. */
export async function consume(topic: string, flags: ConsumeFlags): Promise<void> {
  const from = ['earliest', 'latest'].includes(flags.from)
    ? (flags.from as 'earliest' | 'latest')
    : wholeNumber('--from', flags.from);
  const count = flags.count === undefined ? Infinity : wholeNumber('--count', flags.count);
  const only = flags.partition === undefined ? null : wholeNumber('--partition', flags.partition);
  await withClient(flags, async (client) => {
    const partitions = await partitionsOf(client, topic, only);
    if (count > 0) await printRecords(client, { topic, partitions, from, count, ...separatorOf(flags) });
  });
}

const separatorOf = ({ keySeparator }: ConsumeFlags): { separator: Buffer | null } => ({
  separator: keySeparator === undefined ? null : Buffer.from(keySeparator),
});

const partitionsOf = (client: Client, topic: string, only: number | null): Promise<number[]> =>
  inTime(async (signal) => {
    // First, because to read a topic that is not there would create it.
    const leaders = await client.admin().leadersOf(topic, signal);
    if (only !== null && only >= leaders.length)
      throw new SidecarError('RK0101', `--partition ${only}: ${topic} has ${leaders.length}, from 0 on`);
    await client.view.waitForTopic(topic, signal);
    return only === null ? [...leaders.keys()] : [only];
  });

interface Wanted {
  readonly topic: string;
  readonly partitions: readonly number[];
  readonly from: 'earliest' | 'latest' | number;
  readonly count: number;
  readonly separator: Buffer | null;
}

async function printRecords(client: Client, wanted: Wanted): Promise<void> {
  const { topic, partitions, from, separator } = wanted;
  const ended = Promise.withResolvers<void>();
  let left = wanted.count;
  let said = '';
  const fetcher = new Fetcher(client.view, options(from), {
    records(partition, records) {
      const taken = records.slice(0, left);
      left -= taken.length;
      const more = (): void => fetcher.request(partition, records.length);
      const hasRoom = process.stdout.write(Buffer.concat(taken.flatMap((each) => lineOf(each, separator))));
      if (left === 0) ended.resolve();
      else if (hasRoom) more();
      else process.stdout.once('drain', more);
    },
    troubled(_: FetchedPartition, error) {
      if (!isRetriableError(error) || isGone(error)) return ended.reject(error);
      // Brokers come back: said once, and read on.
      if (error.message !== said) process.stderr.write(`rookery: ${error.message}; tried again\n`);
      said = error.message;
    },
  });
  for (const partition of partitions)
    fetcher.request(fetcher.add(topic, partition, typeof from === 'number' ? from : -1), window);
  try {
    await ended.promise;
  } finally {
    fetcher.stop();
  }
}

const options = (from: Wanted['from']) => ({
  purpose: 'consume',
  from: typeof from === 'number' ? ('none' as const) : from,
  maxWaitMs: 500,
  partitionBytesMax: 1024 * 1024,
  fetchBytesMax: 16 * 1024 * 1024,
  prefetchBytes: 1024 * 1024,
});

/** The topic has been deleted. */
const isGone = (error: Error): boolean =>
  error instanceof BrokerError && ['UNKNOWN_TOPIC_OR_PARTITION', 'UNKNOWN_TOPIC_ID'].includes(error.error);

const newline = Buffer.from('\n');

function lineOf({ key, value }: LogRecord, separator: Buffer | null): Buffer[] {
  const shown = value ?? Buffer.alloc(0);
  return separator === null ? [shown, newline] : [key ?? Buffer.alloc(0), separator, shown, newline];
}
