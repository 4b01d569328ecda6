import { Client, ClientError } from '@rookery/client';
import { systemClock } from '../clock.ts';

export interface BrokerFlags {
  readonly broker: string;
}

const connectTimeoutMs = 3_000;
const answersWithinMs = 15_000;

/**
 * Runs with a client of the broker named on the command line. A broker that is not there is said at once: who
 * sits at a terminal would rather know than wait.
 *
 * @throws ClientError
 */
export async function withClient<T>(
  { broker }: BrokerFlags,
  run: (client: Client) => Promise<T>,
): Promise<T> {
  // Who read what we print has gone, and there is nobody left to work for.
  process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => process.exit(code === 'EPIPE' ? 0 : 1));
  const client = new Client({
    brokers: [broker],
    clientId: 'rookery-cli',
    connectTimeoutMs,
    requestTimeoutMs: answersWithinMs,
  });
  try {
    await client.view.reach();
    return await run(client);
  } finally {
    await client.close();
  }
}

/** A signal for questions that are answered at once by a broker in order. */
export function inTime<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController();
  const timer = systemClock.after(answersWithinMs, () =>
    late.abort(new ClientError('RK9203', `the command took ${answersWithinMs} ms`)),
  );
  return run(late.signal).finally(() => timer.cancel());
}
