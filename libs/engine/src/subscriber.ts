import { jsonCodec } from './codec.ts';
import type { RetryPolicy } from './backoff.ts';
import type { RookeryContext } from './context.ts';
import type { DriverConnection, DriverSubscription, InRecord, Lane, Sink } from './driver.ts';
import { LaneWorker, type LaneHandler } from './lane-worker.ts';
import type { Logger } from './logger.ts';
import type { Topic } from './topic.ts';
import { within } from './within.ts';

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

/** How long leaving the group may take. */
const leaveMs = 2_000;

/** The handlers of one group on one connection: one membership, records routed to their handlers by topic. */
export class Subscriber implements Sink {
  readonly #options: SubscriberOptions;
  readonly #workers = new Map<Lane, LaneWorker>();
  readonly #handlers = new Map<string, LaneHandler>();
  #subscription: DriverSubscription | null = null;
  #isDraining = false;

  constructor(options: SubscriberOptions) {
    this.#options = options;
  }

  get handlers(): readonly Handler[] {
    return this.#options.handlers;
  }

  /** Loads codecs. @throws RookeryError RK2002, naming the handler */
  async prepare(): Promise<void> {
    for (const { name, topic, retry, handle } of this.#options.handlers) {
      const codec = await jsonCodec(topic);
      this.#handlers.set(topic.name, { name, codec, retry, handle });
    }
  }

  /** Joins the group. */
  start(): void {
    if (this.#isDraining) return;
    const { handlers, connection, group, instanceId } = this.#options;
    const topics = [...this.#handlers.keys()];
    this.#subscription = connection.subscribe({ group, topics, from: handlers[0]!.from, instanceId }, this);
  }

  /** No new records; what is in hand is finished and acknowledged. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    this.#subscription?.stop();
    await this.#finish([...this.#workers.keys()]);
  }

  /** Leaves the group; a broker that has gone is not waited for. */
  async close(): Promise<void> {
    const { logger, group } = this.#options;
    if (this.#subscription === null || (await within(leaveMs, this.#subscription.close()))) return;
    logger.warn(`group '${group}' could not be left in ${leaveMs} ms; its session will run out`, { group });
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
    await Promise.all(workers.map((worker) => worker.drain(this.#options.drainMs)));
    for (const lane of lanes) this.#workers.delete(lane);
  }
}

/** `orders 0–3, payments 1` */
function describe(lanes: readonly Lane[]): string {
  const byTopic = Map.groupBy(lanes, ({ topic }) => topic);
  return [...byTopic]
    .map(([topic, of]) => `${topic} ${of.map(({ partition }) => partition).join(' ')}`)
    .join(', ');
}
