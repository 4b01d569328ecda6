import { spawnSync } from 'node:child_process';
import { startSidecar, type SidecarOptions, type SidecarProcess } from '@rookery/testing';
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { peersScript, startKafka, type KafkaOptions, type KafkaProcess } from './kafka-process.ts';

// What a test file says at its top: which real programs it needs, and which brokers shall run while it does.

/** What `scripts/peers.sh install` brings. */
export type Peer = 'kcat' | 'kafka';

/**
 * Says that the tests of this file, or of the `describe` around the call, need other people's programs. Where one
 * is missing they are skipped with the reason; in CI they fail instead, since there nobody reads what was skipped.
 * @returns whether all are there, for hooks that need them
 */
export function requirePeer(...peers: Peer[]): boolean {
  const missing = peers.map(missingPeer).filter((reason) => reason !== null);
  if (missing.length === 0) return true;
  const reason = missing.join('; ');
  if (process.env['CI'] === 'true') throw new Error(reason);
  beforeEach((context) => context.skip(reason));
  return false;
}

/** Of a broker that hooks start: its process, once they ran. */
export interface Running<Process> {
  readonly address: string;
  readonly process: Process;
}

/** A real Kafka of the tests that follow, from the first of them to the last. */
export function kafka(options?: KafkaOptions): Running<KafkaProcess> {
  return requirePeer('kafka', 'kcat')
    ? during(
        () => startKafka(options),
        (broker) => broker.address,
      )
    : never();
}

/** A sidecar of the tests that follow, from the first of them to the last. */
export function sidecar(options?: SidecarOptions): Running<SidecarProcess> {
  return during(
    () => startSidecar(options),
    (broker) => broker.kafka,
  );
}

function during<Process extends { stop(): Promise<unknown> }>(
  start: () => Promise<Process>,
  addressOf: (process: Process) => string,
): Running<Process> {
  let process: Process | null = null;
  const started = (): Process => {
    if (process === null) throw new Error('the broker runs while tests do, not before');
    return process;
  };
  beforeAll(async () => {
    process = await start();
  });
  afterAll(async () => {
    await process?.stop();
  });
  return {
    get address() {
      return addressOf(started());
    },
    get process() {
      return started();
    },
  };
}

/** Stands where every test is skipped. */
const never = (): Running<never> => ({
  get address(): never {
    throw new Error('skipped');
  },
  get process(): never {
    throw new Error('skipped');
  },
});

const known = new Map<Peer, string | null>();

function missingPeer(peer: Peer): string | null {
  let reason = known.get(peer);
  if (reason === undefined) {
    const found = spawnSync(peersScript, ['has', peer], { encoding: 'utf8' });
    reason = found.status === 0 ? null : found.stderr.trim();
    known.set(peer, reason);
  }
  return reason;
}
