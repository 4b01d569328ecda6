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

  /** @throws ClientError RK9207 */
  producer(options?: ProducerOptions): Producer {
    return this.#keep(new Producer(this.view, options));
  }

  /** A member of a group; `start()` lets it join. @throws ClientError RK9207 */
  consumer(options: ConsumerOptions, events: ConsumerEvents): Consumer {
    return this.#keep(new Consumer(this.view, options, events));
  }

  admin(): Admin {
    return new Admin(this.view);
  }

  /** Closes producers and consumers in an orderly way for at most `deadlineMs`, then the connections. */
  async close(deadlineMs = 5_000): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const members = [...this.#members].map((member) =>
      member instanceof Producer ? member.close(deadlineMs) : member.close(),
    );
    await Promise.race([
      Promise.allSettled(members),
      new Promise((resolve) => (timer = setTimeout(resolve, deadlineMs))),
    ]);
    clearTimeout(timer);
    this.view.close();
  }

  #keep<M extends Producer | Consumer>(member: M): M {
    for (const each of this.#members) if (each.isClosed) this.#members.delete(each);
    this.#members.add(member);
    return member;
  }
}

function parseBroker(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port === 0 || port > 65_535)
    throw new ClientError('RK9207', `broker '${text}', not host:port`);
  return { host: match[1] ?? match[2]!, port };
}
