import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { afterAll, beforeAll } from 'vitest';
import { startKafka } from '../support/kafka-process.ts';
import { requirePeer } from '../support/peers.ts';
import { CutProxy } from './cut-proxy.ts';

export type BrokerKind = 'a sidecar' | 'Apache Kafka';

interface Started {
  readonly address: string;
  stop(): Promise<unknown>;
  /** Ends it as a crash does, where we can. */
  crash(): Promise<unknown>;
}

/** A broker that the tests of a `describe` share, behind a proxy that they may cut. */
export interface BrokerUnderTest {
  readonly address: string;
  readonly proxy: CutProxy;
  /** Ends it, and starts it again on what it left. */
  restart(): Promise<void>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

export function brokerUnderTest(kind: BrokerKind): BrokerUnderTest {
  let proxy: CutProxy;
  let dir: string;
  let broker: Started;
  const start = async (): Promise<void> => {
    const settings = { 'advertised.listeners': `PLAINTEXT://${proxy.address}` };
    broker = kind === 'a sidecar' ? await sidecarIn(dir, settings) : await kafkaIn(dir, settings);
    proxy.leadTo(broker.address);
  };
  const isThere = kind === 'a sidecar' || requirePeer('kafka', 'kcat');
  beforeAll(async () => {
    if (!isThere) return;
    proxy = await CutProxy.open();
    dir = await mkdtemp(join(tmpdir(), 'rookery-client-test-'));
    await start();
  }, 120_000);
  afterAll(async () => {
    if (!isThere) return;
    await broker.stop();
    await proxy.close();
    await rm(dir, { recursive: true, force: true });
  });
  return {
    get address() {
      return proxy.address;
    },
    get proxy() {
      return proxy;
    },
    start,
    async stop() {
      await broker.crash();
      proxy.cut();
    },
    async restart() {
      await broker.crash();
      proxy.cut();
      await start();
    },
  };
}

async function sidecarIn(dataDir: string, settings: Record<string, string>): Promise<Started> {
  const sidecar = await startSidecar({ dataDir, settings });
  return { address: sidecar.kafka, stop: () => sidecar.stop(), crash: () => sidecar.kill() };
}

async function kafkaIn(dir: string, settings: Record<string, string>): Promise<Started> {
  const kafka = await startKafka({ dir, settings });
  return { address: kafka.address, stop: () => kafka.stop(), crash: () => kafka.stop() };
}
