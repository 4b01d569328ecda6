import { Admin } from './admin.ts';
import { ClusterView, type Status } from './cluster-view.ts';
import type { Address } from './connection.ts';
import { Consumer, type ConsumerEvents, type ConsumerOptions } from './consumer.ts';
import { ClientError } from './errors.ts';
import { Producer, type ProducerOptions } from './producer.ts';

export interface ClientOptions {
  /** Where to begin, `host:port` each; the other brokers are learned from these. */
  readonly brokers: readonly string[];
  readonly clientId?: string;
  readonly connectTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
  readonly metadataMaxAgeMs?: number;
}

/** A client of one cluster: whatever it makes shares its connections. Nothing connects before it must. */
export class Client {
  readonly view: ClusterView;
  readonly #members = new Set<Producer | Consumer>();

  /** @throws ClientError RK9207 */
  constructor(options: ClientOptions) {
    this.view = new ClusterView({
      seeds: options.brokers.map(parseBroker),
      clientId: options.clientId ?? 'rookery',
      connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
      requestTimeoutMs: options.requestTimeoutMs ?? 30_000,
      metadataMaxAgeMs: options.metadataMaxAgeMs ?? 300_000,
    });
    if (options.brokers.length === 0) throw new ClientError('RK9207', 'brokers is empty');
  }

  get status(): Status {
    return this.view.status;
  }

  producer(options?: ProducerOptions): Producer {
    const producer = new Producer(this.view, options);
    this.#members.add(producer);
    return producer;
  }

  /** A member of a group; `start()` lets it join. */
  consumer(options: ConsumerOptions, events: ConsumerEvents): Consumer {
    const consumer = new Consumer(this.view, options, events);
    this.#members.add(consumer);
    return consumer;
  }

  admin(): Admin {
    return new Admin(this.view);
  }

  /** Closes producers and consumers in an orderly way for at most `deadlineMs`, then the connections. */
  async close(deadlineMs = 5_000): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const members = [...this.#members].map((member) => member.close());
    await Promise.race([
      Promise.allSettled(members),
      new Promise((resolve) => (timer = setTimeout(resolve, deadlineMs))),
    ]);
    clearTimeout(timer);
    await this.view.close();
    await Promise.allSettled(members);
  }
}

function parseBroker(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port === 0 || port > 65_535)
    throw new ClientError('RK9207', `broker '${text}', not host:port`);
  return { host: match[1] ?? match[2]!, port };
}
