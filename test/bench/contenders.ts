import { startSidecar } from '@rookery/testing';
import { startKafka } from '../support/kafka-process.ts';
import { WireConnection } from '../support/wire-connection.ts';
import { ageMs } from './process-cost.ts';

/** A broker that runs, with nothing in it yet. */
export interface RunningBroker {
  /** `host:port` */
  readonly address: string;
  readonly pid: number;
  /** From the start of its process until it answered a client for the first time. */
  readonly firstAnswerMs: number;
  /** Asks whatever an operator's monitoring asks, so that idle means idle and not unused. */
  observe(): Promise<void>;
  stop(): Promise<unknown>;
}

/** A broker that can be measured. */
export interface Contender {
  readonly name: 'Kafka' | 'Rookery';
  /** Whether its acknowledgements say that the disk has it. */
  readonly onDisk: boolean;
  start(): Promise<RunningBroker>;
}

/** What Kafka's own start script gives the JVM; the tests' Kafka starts faster and is slower later. */
export const kafkaJvm = {
  KAFKA_HEAP_OPTS: '-Xms1G -Xmx1G',
  KAFKA_JVM_PERFORMANCE_OPTS:
    '-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent',
};

/** Kafka as it comes: it acknowledges from the page cache. */
const kafka: Contender = {
  name: 'Kafka',
  onDisk: false,
  async start() {
    const { address, pid, stop } = await startKafka({ environment: kafkaJvm });
    return { address, pid, firstAnswerMs: ageMs(pid), async observe() {}, stop };
  },
};

const rookery = (mode: 'os' | 'sync'): Contender => ({
  name: 'Rookery',
  onDisk: mode === 'sync',
  async start() {
    const sidecar = await startSidecar({ settings: { 'flush.mode': mode } });
    const connection = await WireConnection.open(sidecar.kafka);
    await connection.versions();
    const firstAnswerMs = ageMs(sidecar.pid);
    connection.close();
    return {
      address: sidecar.kafka,
      pid: sidecar.pid,
      firstAnswerMs,
      async observe() {
        for (const path of ['/health/ready', '/metrics']) {
          const answer = await fetch(sidecar.admin + path);
          await answer.text();
        }
      },
      stop: () => sidecar.stop(),
    };
  },
});

/** Rookery in the mode in which Kafka runs, Rookery with the disk behind every acknowledgement, and Kafka. */
export const contenders: readonly Contender[] = [rookery('os'), rookery('sync'), kafka];
