import { jsonCodec } from './codec.ts';
import type { RetryPolicy } from './backoff.ts';
import type { RookeryContext } from './context.ts';
import type { DriverConnection, DriverSubscription, InRecord, Lane, Sink } from './driver.ts';
import { RookeryError } from './errors.ts';
import { LaneWorker, type LaneHandler } from './lane-worker.ts';
import type { Logger } from './logger.ts';
import type { Topic } from './topic.ts';

/** One handler and what it wants to handle. */
export interface Handler {
  /** What it is called in logs and errors: `Class.method`. */
  readonly name: string;
  readonly topic: Topic<never>;
  readonly group: string;
  readonly connection: string;
  readonly from: 'earliest' | 'latest';
  readonly retry: RetryPolicy;
  readonly handle: (payload: unknown, context: RookeryContext) => unknown;
}

export interface SubscriberOptions {
  readonly connection: DriverConnection;
  readonly connectionName: string;
  readonly group: string;
  readonly instanceId: string | null;
  readonly handlers: readonly Handler[];
  readonly logger: Logger;
  /** How long the record in hand may take when its lane goes away. */
  readonly drainMs: number;
}

/** The handlers of one group on one connection: one membership, records routed to their handlers by topic. */
export class Subscriber implements Sink {
  readonly #options: SubscriberOptions;
  readonly #workers = new Map<Lane, LaneWorker>();
  readonly #handlers = new Map<string, LaneHandler>();
  #subscription: DriverSubscription | null = null;
  #isDraining = false;

  /** @throws RookeryError RK2002 when two handlers want the same records, or want to begin at different ends */
  constructor(options: SubscriberOptions) {
    this.#options = options;
    const byTopic = new Map<string, Handler>();
    for (const handler of options.handlers) {
      const other = byTopic.get(handler.topic.name);
      if (other !== undefined) {
        const detail = `${other.name} and ${handler.name} both handle '${handler.topic.name}' in group '${options.group}'`;
        throw new RookeryError('RK2002', `${detail}; give one of them a group of its own`);
      }
      byTopic.set(handler.topic.name, handler);
      if (handler.from !== options.handlers[0]!.from) {
        const detail = `${options.handlers[0]!.name} and ${handler.name} of group '${options.group}' begin at different ends`;
        throw new RookeryError('RK2002', detail);
      }
    }
  }

  /** Loads codecs, then joins the group. @throws RookeryError RK2002 */
  async start(): Promise<void> {
    const { handlers, connection, group, instanceId } = this.#options;
    for (const { topic, retry, handle } of handlers)
      this.#handlers.set(topic.name, { codec: await jsonCodec(topic), retry, handle });
    if (this.#isDraining) return;
    const topics = [...this.#handlers.keys()];
    this.#subscription = connection.subscribe({ group, topics, from: handlers[0]!.from, instanceId }, this);
  }

  /** No new records; what is in hand is finished and acknowledged. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    this.#subscription?.stop();
    await this.#finish([...this.#workers.keys()]);
  }

  async close(): Promise<void> {
    await this.#subscription?.close();
  }

  assigned(lanes: readonly Lane[]): void {
    if (this.#isDraining) return;
    const { logger, group, connectionName } = this.#options;
    const deps = { subscription: () => this.#subscription!, group, connection: connectionName, logger };
    for (const lane of lanes) {
      const worker = new LaneWorker(lane, this.#handlers.get(lane.topic)!, deps);
      this.#workers.set(lane, worker);
      worker.start();
    }
    if (lanes.length > 0) logger.info(`group '${group}' reads ${describe(lanes)}`, { group });
  }

  revoking(lanes: readonly Lane[]): Promise<void> {
    return this.#finish(lanes);
  }

  lost(lanes: readonly Lane[]): void {
    for (const lane of lanes) {
      this.#workers.get(lane)?.lose();
      this.#workers.delete(lane);
    }
    const { logger, group } = this.#options;
    logger.warn(`group '${group}' has lost ${describe(lanes)}`, { group });
  }

  records(lane: Lane, records: readonly InRecord[]): void {
    this.#workers.get(lane)?.take(records);
  }

  troubled(error: Error): void {
    const { logger, group, connectionName } = this.#options;
    logger.warn(`group '${group}' on '${connectionName}': ${error.message}`, { group, err: error });
  }

  failed(error: Error): void {
    const { logger, group, connectionName } = this.#options;
    logger.error(`group '${group}' on '${connectionName}' has ended: ${error.message}`, {
      group,
      err: error,
    });
  }

  async #finish(lanes: readonly Lane[]): Promise<void> {
    const workers = lanes.flatMap((lane) => this.#workers.get(lane) ?? []);
    for (const lane of lanes) this.#workers.delete(lane);
    await Promise.all(workers.map((worker) => worker.drain(this.#options.drainMs)));
  }
}

/** `orders 0–3, payments 1` */
function describe(lanes: readonly Lane[]): string {
  const byTopic = Map.groupBy(lanes, ({ topic }) => topic);
  return [...byTopic]
    .map(([topic, of]) => `${topic} ${of.map(({ partition }) => partition).join(' ')}`)
    .join(', ');
}
