import type { RetryPolicy } from './backoff.ts';
import type { Codec } from './codec.ts';
import { RookeryContext, type Delivery } from './context.ts';
import type { DriverSubscription, InRecord, Lane } from './driver.ts';
import { isPermanent, RookeryError } from './errors.ts';
import type { Logger } from './logger.ts';
import { within } from './within.ts';

export interface LaneHandler {
  /** What it is called in logs. */
  readonly name: string;
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

/** Records ahead of the handler, those that were asked for and have not come yet included. */
const aheadMax = 2_000;
/** Bytes of records that have come and wait. What is one batch too much is taken, nothing after it. */
const aheadBytesMax = 1024 * 1024;
/** How often a lane says how far it is, at the most: one commit covers everything before it. */
const ackEveryMs = 100;
/** How long after a failure it says so again. */
const ackAgainMs = 1_000;
/** How long a lane that goes away waits for its last acknowledgement. */
const lastAckMs = 2_000;
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
  readonly #delivery: Delivery;
  #queue: InRecord[] = [];
  #head = 0;
  #queuedBytes = 0;
  /** Asked for, and not here yet. */
  #expected = 0;
  /** The offset after the last record that is done; −1 before the first. */
  #done = -1;
  #acked = -1;
  #ackTimer: NodeJS.Timeout | null = null;
  #acking: Promise<void> | null = null;
  #running: Promise<void> | null = null;
  #draining: Promise<void> | null = null;
  #isStopped = false;
  #wakeRetry: (() => void) | null = null;

  constructor(lane: Lane, handler: LaneHandler, deps: LaneDeps) {
    this.lane = lane;
    this.#handler = handler;
    this.#deps = deps;
    const { group, connection } = deps;
    this.#delivery = { lane, group, connection, signal: this.#abort.signal };
  }

  start(): void {
    this.#request(aheadMax);
  }

  take(records: readonly InRecord[]): void {
    if (this.#isStopped) return;
    this.#expected -= records.length;
    for (const record of records) {
      this.#queue.push(record);
      this.#queuedBytes += sizeOf(record);
    }
    if (this.#queuedBytes > aheadBytesMax && this.#expected > 0) this.#request(-this.#expected);
    this.#running ??= this.#run();
  }

  /**
   * Lets the record in hand finish and acknowledges what is done; the rest will be delivered again.
   * @param deadlineMs after it the handler is told by its signal, and no longer waited for
   */
  drain(deadlineMs: number): Promise<void> {
    this.#draining ??= this.#drain(deadlineMs);
    return this.#draining;
  }

  /** The lane is another's already: nothing may be acknowledged. */
  lose(): void {
    this.#isStopped = true;
    clearTimeout(this.#ackTimer ?? undefined);
    this.#abort.abort(gone(this.lane));
    this.#wakeRetry?.();
  }

  async #drain(deadlineMs: number): Promise<void> {
    this.#isStopped = true;
    this.#wakeRetry?.();
    if (!(await within(deadlineMs, this.#running))) {
      this.#warn(`${this.#handler.name} was not done in ${deadlineMs} ms and is given up`, this.#done, null);
      this.#abort.abort(gone(this.lane));
    }
    if (!(await within(lastAckMs, this.#acknowledge())))
      this.#warn('the position was not kept in time', this.#done, null);
    this.#abort.abort(gone(this.lane));
  }

  async #run(): Promise<void> {
    // In a step of its own: what the driver delivers together is queued together.
    await Promise.resolve();
    let sliceEnds = performance.now() + sliceMs;
    while (this.#head < this.#queue.length && !this.#isStopped) {
      const record = this.#queue[this.#head]!;
      const handled = this.#handle(record);
      if (handled !== true && !(await handled)) break;
      this.#settle(record);
      if (performance.now() > sliceEnds) {
        await new Promise((resolve) => setImmediate(resolve));
        sliceEnds = performance.now() + sliceMs;
      }
    }
    // Not a step later: records that came in between would wait for nobody.
    this.#running = null;
  }

  /** True when the record is done with; a promise of that where the handler takes its time, false when the lane has gone. */
  #handle(record: InRecord): true | Promise<boolean> {
    let result: unknown;
    try {
      result = this.#attempt(record, 1);
    } catch (error) {
      return this.#retry(record, error);
    }
    return isThenable(result) ? this.#finish(record, result) : true;
  }

  #attempt(record: InRecord, attempt: number): unknown {
    const { codec } = this.#handler;
    const payload = record.value === null ? null : codec.decode(record.value);
    return this.#handler.handle(payload, new RookeryContext(this.#delivery, record, attempt));
  }

  async #finish(record: InRecord, result: PromiseLike<unknown>): Promise<boolean> {
    try {
      await result;
    } catch (error) {
      return this.#retry(record, error);
    }
    return !this.#abort.signal.aborted;
  }

  /** Tries again after a pause each time, in the end lets the record go with a line in the log. */
  async #retry(record: InRecord, first: unknown): Promise<boolean> {
    const { name, retry } = this.#handler;
    let error = first;
    for (let attempt = 1; !this.#abort.signal.aborted; attempt++) {
      const where = `${this.lane.topic}/${this.lane.partition}@${record.offset}`;
      const fields = { ...this.#fields(record.offset, error), handler: name, attempt };
      if (isPermanent(error) || attempt >= retry.attempts) {
        const after = attempt === 1 ? 'one attempt' : `${attempt} attempts`;
        this.#deps.logger.error(`${name} skipped ${where} after ${after}`, fields);
        return true;
      }
      this.#deps.logger.warn(
        `${name} failed at ${where}, attempt ${attempt} of ${retry.attempts}, trying again`,
        fields,
      );
      if (!this.#isStopped) await this.#pause(retry.delayMs(attempt));
      // It will be delivered again, to whoever has the lane then.
      if (this.#isStopped) return false;
      try {
        await this.#attempt(record, attempt + 1);
        return !this.#abort.signal.aborted;
      } catch (again) {
        error = again;
      }
    }
    return false;
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wakeRetry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wakeRetry = null;
  }

  /** The record is done: asks for more when half of what may be ahead is used up, and acknowledges before long. */
  #settle(record: InRecord): void {
    this.#done = record.offset + 1;
    this.#head++;
    this.#queuedBytes -= sizeOf(record);
    if (this.#isStopped) return;
    const ahead = this.#queue.length - this.#head + this.#expected;
    if (ahead <= aheadMax / 2 && this.#queuedBytes <= aheadBytesMax / 2) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
      this.#request(aheadMax - ahead);
    }
    this.#acknowledgeIn(ackEveryMs);
  }

  /** @param count less than 0 takes back what has not come */
  #request(count: number): void {
    this.#expected += count;
    this.#deps.subscription().request(this.lane, count);
  }

  #acknowledgeIn(ms: number): void {
    this.#ackTimer ??= setTimeout(() => void this.#acknowledge(), ms);
  }

  /** Resolves when everything that is done now has been acknowledged, or that has failed. */
  #acknowledge(): Promise<void> {
    clearTimeout(this.#ackTimer ?? undefined);
    this.#ackTimer = null;
    this.#acking ??= this.#ackWhatIsDone();
    return this.#acking;
  }

  async #ackWhatIsDone(): Promise<void> {
    // In a step of its own, so that `#acking` is set before it is reset.
    await Promise.resolve();
    while (this.#done > this.#acked && !this.#isLost) {
      const done = this.#done;
      try {
        await this.#deps.subscription().ack(this.lane, done);
        this.#acked = done;
      } catch (error) {
        this.#warn('the position could not be kept', done, error);
        if (!this.#isStopped) this.#acknowledgeIn(ackAgainMs);
        break;
      }
    }
    this.#acking = null;
  }

  /** Without being drained it is only aborted when the lane has been lost. */
  get #isLost(): boolean {
    return this.#draining === null && this.#abort.signal.aborted;
  }

  #warn(message: string, offset: number, error: unknown): void {
    const { topic, partition } = this.lane;
    this.#deps.logger.warn(`${topic}/${partition}@${offset}: ${message}`, this.#fields(offset, error));
  }

  #fields(offset: number, err: unknown): object {
    const { topic, partition } = this.lane;
    return { topic, partition, offset, group: this.#deps.group, err };
  }
}

function sizeOf({ key, value, headers }: InRecord): number {
  let size = 64 + (key?.length ?? 0) + (value?.length ?? 0);
  for (const header of headers) size += 64 + header.key.length + (header.value?.length ?? 0);
  return size;
}

const gone = ({ topic, partition }: Lane): RookeryError =>
  new RookeryError('RK5005', `${topic}/${partition}`, { topic, partition });

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as { then?: unknown } | null | undefined)?.then === 'function';
