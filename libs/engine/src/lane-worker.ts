import type { RetryPolicy } from './backoff.ts';
import type { Codec } from './codec.ts';
import { RookeryContext } from './context.ts';
import type { DriverSubscription, InRecord, Lane } from './driver.ts';
import { isPermanent, RookeryError } from './errors.ts';
import type { Logger } from './logger.ts';

export interface LaneHandler {
  readonly codec: Codec;
  readonly retry: RetryPolicy;
  handle(payload: unknown, context: RookeryContext): unknown;
}

export interface LaneDeps {
  readonly subscription: () => DriverSubscription;
  readonly group: string;
  readonly connection: string;
  readonly logger: Logger;
}

/** Records asked for ahead of the handler. */
const credits = 2_000;
/** How often a lane says how far it is, at the most: one commit covers everything before it. */
const ackEveryMs = 100;
/** How long a lane whose handler never waits may keep the event loop. */
const sliceMs = 10;

/**
 * One lane's records, one after another: decoded, handled, retried in line, acknowledged behind. A record is
 * acknowledged only when its handler is done with it and with everything before it.
 */
export class LaneWorker {
  readonly lane: Lane;
  readonly #handler: LaneHandler;
  readonly #deps: LaneDeps;
  readonly #abort = new AbortController();
  #queue: InRecord[] = [];
  #head = 0;
  #owed = 0;
  /** The offset after the last record that is done; −1 before the first. */
  #done = -1;
  #acked = -1;
  #ackTimer: NodeJS.Timeout | null = null;
  #acking: Promise<void> | null = null;
  #running: Promise<void> | null = null;
  #isStopped = false;

  constructor(lane: Lane, handler: LaneHandler, deps: LaneDeps) {
    this.lane = lane;
    this.#handler = handler;
    this.#deps = deps;
  }

  start(): void {
    this.#deps.subscription().request(this.lane, credits);
  }

  take(records: readonly InRecord[]): void {
    if (this.#isStopped) return;
    for (const record of records) this.#queue.push(record);
    this.#running ??= this.#run();
  }

  /**
   * Lets the record in hand finish and acknowledges what is done; the rest will be delivered again.
   * @param deadlineMs after it the handler is told by its signal, and no longer waited for
   */
  async drain(deadlineMs: number): Promise<void> {
    this.#isStopped = true;
    this.#wakeRetry?.();
    const late = setTimeout(() => this.#abort.abort(gone(this.lane)), deadlineMs);
    await Promise.race([
      this.#running,
      new Promise((resolve) => this.#abort.signal.addEventListener('abort', resolve)),
    ]);
    clearTimeout(late);
    await this.#ackNow();
    this.#abort.abort(gone(this.lane));
  }

  /** The lane is another's already: nothing may be acknowledged. */
  lose(): void {
    this.#isStopped = true;
    this.#done = this.#acked;
    clearTimeout(this.#ackTimer ?? undefined);
    this.#abort.abort(gone(this.lane));
    this.#wakeRetry?.();
  }

  async #run(): Promise<void> {
    // In a turn of its own: what the driver delivers together is queued together.
    await Promise.resolve();
    let sliceEnds = performance.now() + sliceMs;
    while (this.#head < this.#queue.length && !this.#isStopped) {
      const record = this.#queue[this.#head++]!;
      const handled = this.#handle(record, 1);
      if (handled !== true && !(await handled)) break;
      this.#done = record.offset + 1;
      this.#settle();
      if (performance.now() > sliceEnds) {
        await new Promise((resolve) => setImmediate(resolve));
        sliceEnds = performance.now() + sliceMs;
      }
    }
    // Not a turn later: records that came in between would wait for nobody.
    this.#running = null;
  }

  /** One attempt. True when the record is done with; a promise where the handler takes its time. */
  #handle(record: InRecord, attempt: number): true | Promise<boolean> {
    try {
      const { codec } = this.#handler;
      const payload = record.value === null ? null : codec.decode(record.value);
      const context = new RookeryContext(this.lane, record, {
        ...this.#deps,
        attempt,
        signal: this.#abort.signal,
      });
      const result = this.#handler.handle(payload, context);
      if (!isThenable(result)) return true;
      return Promise.resolve(result).then(
        () => true as const,
        (error: unknown) => this.#afterFailure(record, attempt, error),
      );
    } catch (error) {
      return this.#afterFailure(record, attempt, error);
    }
  }

  /** Tries again after a pause, or lets the record go with a line in the log. False when the lane stopped first. */
  async #afterFailure(record: InRecord, attempt: number, error: unknown): Promise<boolean> {
    const { attempts, delayMs } = this.#handler.retry;
    const { topic, partition } = this.lane;
    const { logger, group } = this.#deps;
    const fields = { topic, partition, offset: record.offset, group, attempt, err: error };
    if (isPermanent(error) || attempt >= attempts) {
      logger.error(
        `skipped ${topic}/${partition}@${record.offset} after ${attempt} of ${attempts} attempts`,
        fields,
      );
      return true;
    }
    logger.warn(`attempt ${attempt} of ${attempts} at ${topic}/${partition}@${record.offset} failed`, fields);
    await this.#pause(delayMs(attempt));
    if (this.#isStopped) return false;
    return this.#handle(record, attempt + 1);
  }

  #wakeRetry: (() => void) | null = null;

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wakeRetry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** After each record: asks for more when half of what was asked for is used up, and acknowledges before long. */
  #settle(): void {
    this.#owed++;
    if (this.#owed >= credits / 2) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
      this.#deps.subscription().request(this.lane, this.#owed);
      this.#owed = 0;
    }
    this.#ackTimer ??= setTimeout(() => {
      this.#ackTimer = null;
      void this.#ackNow();
    }, ackEveryMs);
  }

  async #ackNow(): Promise<void> {
    clearTimeout(this.#ackTimer ?? undefined);
    this.#ackTimer = null;
    await this.#acking;
    if (this.#done <= this.#acked) return;
    const done = this.#done;
    this.#acking = this.#deps
      .subscription()
      .ack(this.lane, done)
      .then(
        () => void (this.#acked = Math.max(this.#acked, done)),
        (error: unknown) => {
          const { topic, partition } = this.lane;
          this.#deps.logger.warn(`the position of ${topic}/${partition} could not be kept`, {
            topic,
            partition,
            offset: done,
            group: this.#deps.group,
            err: error,
          });
        },
      );
    await this.#acking;
    this.#acking = null;
  }
}

const gone = ({ topic, partition }: Lane): RookeryError =>
  new RookeryError('RK5005', `${topic}/${partition}`, { topic, partition });

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as { then?: unknown } | null | undefined)?.then === 'function';
