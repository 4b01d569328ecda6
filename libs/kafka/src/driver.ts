import {
  BrokerError,
  Client,
  ClientError,
  type AssignedPartition,
  type Consumer,
  type Producer,
  type Receipt,
} from '@rookery/client';
import {
  RookeryError,
  type Capabilities,
  type ConnectionStatus,
  type DeliveryReceipt,
  type Driver,
  type DriverConnection,
  type DriverEnv,
  type DriverSubscription,
  type Lane,
  type OutRecord,
  type Sink,
  type SubscriptionSpec,
  type TopicSpec,
} from '@rookery/engine';
import { setTimeout as sleep } from 'node:timers/promises';
import { engineError } from './engine-error.ts';

export interface KafkaOptions {
  /** Where to begin, `host:port` each; the other brokers are learned from these. */
  readonly brokers: readonly string[];
  /** Compression of what is published. */
  readonly compression?: 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd';
  readonly acks?: 'all' | 1 | 0;
  /** Milliseconds after which a silent member of a group is given up. */
  readonly sessionTimeoutMs?: number;
}

const capabilities: Capabilities = {
  consumerGroups: true,
  keys: true,
  headers: true,
  tombstones: true,
  topicAdmin: true,
  staticMembership: true,
};

const retryMs = 200;

/** A driver for any broker that speaks Kafka's protocol. */
export class KafkaDriver implements Driver {
  readonly name: string;
  readonly capabilities = capabilities;
  readonly #options: KafkaOptions;

  constructor(name: string, options: KafkaOptions) {
    this.name = name;
    this.#options = options;
  }

  connect(env: DriverEnv): DriverConnection {
    return new KafkaConnection(this.#options, env);
  }
}

class KafkaConnection implements DriverConnection {
  readonly #options: KafkaOptions;
  readonly #client: Client;
  readonly #producer: Producer;

  constructor(options: KafkaOptions, env: DriverEnv) {
    this.#options = options;
    try {
      this.#client = new Client({ brokers: options.brokers, clientId: env.clientId });
    } catch (error) {
      throw new RookeryError('RK2002', (error as Error).message, {}, { cause: error });
    }
    this.#producer = this.#client.producer({
      deliveryTimeoutMs: env.publishTimeoutMs,
      codec: options.compression ?? 'none',
      acks: options.acks ?? 'all',
      // The engine bounds what is unsettled.
      bufferBytesMax: Infinity,
    });
  }

  get status(): ConnectionStatus {
    return this.#client.status;
  }

  onStatus(listener: (status: ConnectionStatus, error: unknown) => void): void {
    this.#client.view.onStatus(listener);
  }

  describe(): string {
    return this.#options.brokers.join(',');
  }

  async lanes(topic: string, signal: AbortSignal): Promise<number> {
    try {
      return await this.#producer.partitionsOf(topic, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw engineError(error, { topic });
    }
  }

  lanesNow(topic: string): number {
    return this.#client.view.topic(topic)?.partitions.length ?? 0;
  }

  place(topic: string, key: Uint8Array | null, lanes: number): number {
    return this.#producer.place(topic, key, lanes);
  }

  produce(topic: string, lane: number, record: OutRecord, receipt: DeliveryReceipt): void {
    this.#producer.append(topic, lane, record, new ProduceReceipt(receipt, topic, lane));
  }

  async ensureTopics(topics: readonly TopicSpec[], signal: AbortSignal): Promise<void> {
    const admin = this.#client.admin();
    const wanted = topics.map(({ name, partitions, configs }) => ({
      name,
      partitions: partitions ?? -1,
      configs,
    }));
    for (;;) {
      try {
        for (const { name, error, message } of await admin.createTopics(wanted, signal)) {
          if (error === 'NONE' || error === 'TOPIC_ALREADY_EXISTS') continue;
          throw new BrokerError(error, `topic '${name}'${message === null ? '' : `: ${message}`}`);
        }
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof ClientError && error.retriable))
          throw new RookeryError('RK2003', (error as Error).message, {}, { cause: error });
        await sleep(retryMs, undefined, { signal }).catch(() => signal.throwIfAborted());
      }
    }
  }

  subscribe(spec: SubscriptionSpec, sink: Sink): DriverSubscription {
    const { group, topics, from, instanceId } = spec;
    const { sessionTimeoutMs } = this.#options;
    const consumer = this.#client.consumer(
      {
        group,
        topics,
        from,
        ...(instanceId === null ? {} : { instanceId: `${instanceId}-${group}` }),
        ...(sessionTimeoutMs === undefined ? {} : { sessionTimeoutMs }),
      },
      sink,
    );
    consumer.start();
    return new KafkaSubscription(consumer);
  }

  close(deadlineMs: number): Promise<void> {
    return this.#client.close(deadlineMs);
  }
}

/** A receipt as the client tells it, told on with the engine's errors. One is made for each record. */
class ProduceReceipt implements Receipt {
  readonly #receipt: DeliveryReceipt;
  readonly #topic: string;
  readonly #partition: number;

  constructor(receipt: DeliveryReceipt, topic: string, partition: number) {
    this.#receipt = receipt;
    this.#topic = topic;
    this.#partition = partition;
  }

  delivered(offset: number, timestamp: number): void {
    this.#receipt.delivered(offset, timestamp);
  }

  failed(error: ClientError): void {
    this.#receipt.failed(engineError(error, { topic: this.#topic, partition: this.#partition }));
  }
}

/** Lanes are the client's assigned partitions themselves: one that has gone is another object. */
class KafkaSubscription implements DriverSubscription {
  readonly #consumer: Consumer;

  constructor(consumer: Consumer) {
    this.#consumer = consumer;
  }

  request(lane: Lane, count: number): void {
    this.#consumer.request(lane as AssignedPartition, count);
  }

  async ack(lane: Lane, next: number): Promise<void> {
    try {
      await this.#consumer.commit(lane as AssignedPartition, next);
    } catch (error) {
      throw engineError(error, { topic: lane.topic, partition: lane.partition });
    }
  }

  stop(): void {
    this.#consumer.stop();
  }

  close(): Promise<void> {
    return this.#consumer.close();
  }
}
