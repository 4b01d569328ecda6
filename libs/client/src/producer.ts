import {
  encodeBatch,
  errorName,
  partitionFor,
  produce,
  type CompressionCodec,
  type NewRecord,
  type Response,
} from '@rookery/wire';
import { Backoff } from './backoff.ts';
import type { ClusterView } from './cluster-view.ts';
import type { Connection } from './connection.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';

export interface ProducerOptions {
  readonly acks?: 'all' | 1 | 0;
  readonly codec?: CompressionCodec;
  /** Milliseconds to wait for more records; 0 sends at the end of the turn. */
  readonly lingerMs?: number;
  /** Bytes of records in one batch, before compression. */
  readonly batchBytesMax?: number;
  /** Requests that one broker may have unanswered. */
  readonly inFlightMax?: number;
  /** Bytes of records that may wait, over all partitions. */
  readonly bufferBytesMax?: number;
  /** Milliseconds from the call until a record is given up. */
  readonly deliveryTimeoutMs?: number;
}

/** Whoever hands in a record is told here how it went; one call, exactly once. */
export interface Receipt {
  /** @param timestamp milliseconds: the record's own, or the broker's where the topic says so */
  delivered(offset: number, timestamp: number): void;
  failed(error: ClientError): void;
}

interface Entry {
  readonly record: NewRecord;
  readonly receipt: Receipt;
  readonly sizeInBytes: number;
  readonly deadline: number;
}

interface Batch {
  readonly entries: readonly Entry[];
  readonly bytes: Buffer;
  /** It may lie in the log already: the broker was sent it, and did not say. */
  outcomeUnknown: boolean;
}

/** The records of one partition on their way: a queue, and at most one batch that is out. */
interface Lane {
  readonly topic: string;
  readonly partition: number;
  queue: Entry[];
  batch: Batch | null;
  isOut: boolean;
  notBefore: number;
  readonly backoff: Backoff;
}

const recordOverhead = 32;
const looksMs = 100;

/**
 * Sends records. Calls of one turn become one batch a partition and one request a broker. A partition has one
 * batch out at a time, so that a retry cannot overtake what came later; several partitions go side by side.
 */
export class Producer {
  readonly #view: ClusterView;
  readonly #options: Required<ProducerOptions>;
  readonly #lanes = new Map<string, Map<number, Lane>>();
  /** Lanes with something to send. */
  readonly #busy = new Set<Lane>();
  readonly #inFlight = new Map<number, number>();
  readonly #sticky = new Map<string, number>();
  #bufferedBytes = 0;
  #isDue = false;
  #lingers: NodeJS.Timeout | null = null;
  #looks: NodeJS.Timeout | null = null;
  #idle: (() => void)[] = [];
  #isClosed = false;

  constructor(view: ClusterView, options: ProducerOptions = {}) {
    this.#view = view;
    this.#options = {
      acks: 'all',
      codec: 'none',
      lingerMs: 0,
      batchBytesMax: 1_000_000,
      inFlightMax: 5,
      bufferBytesMax: 64 * 1024 * 1024,
      deliveryTimeoutMs: 120_000,
      ...options,
    };
  }

  /** How many partitions the topic has, as soon as that is known. */
  async partitionsOf(topic: string, signal?: AbortSignal): Promise<number> {
    return (await this.#view.waitForTopic(topic, signal)).partitions.length;
  }

  /**
   * Where a record goes: by its key as Kafka's Java client places it; without a key, where the others of its
   * batch go.
   */
  place(topic: string, key: Uint8Array | null, partitions: number): number {
    if (key !== null) return partitionFor(key, partitions);
    const sticky = this.#sticky.get(topic);
    if (sticky !== undefined && sticky < partitions) return sticky;
    const chosen = Math.floor(Math.random() * partitions);
    this.#sticky.set(topic, chosen);
    return chosen;
  }

  /** Hands in one record; the receipt is told later. Order within a partition is the order of the calls. */
  append(topic: string, partition: number, record: NewRecord, receipt: Receipt): void {
    if (this.#isClosed) return receipt.failed(new ClientError('RK9205', 'the producer'));
    const sizeInBytes = sizeOf(record);
    if (this.#bufferedBytes + sizeInBytes > this.#options.bufferBytesMax && this.#bufferedBytes > 0) {
      return receipt.failed(
        new ClientError('RK9206', `${this.#bufferedBytes} bytes for ${topic}-${partition}`),
      );
    }
    this.#bufferedBytes += sizeInBytes;
    const deadline = performance.now() + this.#options.deliveryTimeoutMs;
    const lane = this.#lane(topic, partition);
    lane.queue.push({ record, receipt, sizeInBytes, deadline });
    this.#busy.add(lane);
    this.#schedule();
  }

  /** The same as a promise, for one record or few: resolves with where it went. */
  async send(
    topic: string,
    record: Omit<NewRecord, 'timestamp'> & { readonly timestamp?: number; readonly partition?: number },
  ): Promise<{ partition: number; offset: number; timestamp: number }> {
    const partition =
      record.partition ?? this.place(topic, record.key ?? null, await this.partitionsOf(topic));
    const { timestamp = Date.now(), ...rest } = record;
    return new Promise((resolve, reject) => {
      this.append(
        topic,
        partition,
        { ...rest, timestamp },
        { delivered: (offset, at) => resolve({ partition, offset, timestamp: at }), failed: reject },
      );
    });
  }

  /** Resolves when everything handed in so far has been told its outcome. */
  flush(): Promise<void> {
    if (this.#busy.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Sends what waits, for at most `deadlineMs`; fails what is left. */
  async close(deadlineMs = 5_000): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([this.flush(), new Promise((resolve) => (timer = setTimeout(resolve, deadlineMs)))]);
    clearTimeout(timer);
    this.#stopTimers();
    for (const lane of [...this.#busy]) {
      const error = new ClientError('RK9205', `${lane.topic}-${lane.partition}`, {
        outcomeUnknown: lane.batch?.outcomeUnknown === true || lane.isOut,
      });
      if (lane.batch !== null) this.#fail(lane.batch.entries, error);
      this.#fail(lane.queue.splice(0), new ClientError('RK9205', `${lane.topic}-${lane.partition}`));
      lane.batch = null;
      this.#settleLane(lane);
    }
  }

  #lane(topic: string, partition: number): Lane {
    let lanes = this.#lanes.get(topic);
    if (lanes === undefined) this.#lanes.set(topic, (lanes = new Map()));
    let lane = lanes.get(partition);
    if (lane === undefined) {
      lane = {
        topic,
        partition,
        queue: [],
        batch: null,
        isOut: false,
        notBefore: 0,
        backoff: new Backoff(20, 1_000),
      };
      lanes.set(partition, lane);
    }
    return lane;
  }

  #schedule(): void {
    const { lingerMs } = this.#options;
    if (lingerMs > 0) {
      this.#lingers ??= setTimeout(() => {
        this.#lingers = null;
        this.#drain();
      }, lingerMs);
    } else if (!this.#isDue) {
      this.#isDue = true;
      setImmediate(() => {
        this.#isDue = false;
        this.#drain();
      });
    }
  }

  /** Sends every batch that may go now: one request for each broker that leads any of them. */
  #drain(): void {
    const now = performance.now();
    const byLeader = new Map<number, Lane[]>();
    let isWaiting = false;
    for (const lane of this.#busy) {
      if (lane.isOut) continue;
      const leader = lane.notBefore > now ? undefined : this.#view.leaderOf(lane.topic, lane.partition);
      if (leader === undefined) {
        isWaiting = true;
        if (lane.notBefore <= now) this.#find(lane);
        continue;
      }
      const lanes = byLeader.get(leader.leader);
      if (lanes === undefined) byLeader.set(leader.leader, [lane]);
      else lanes.push(lane);
    }
    for (const [nodeId, lanes] of byLeader) {
      if ((this.#inFlight.get(nodeId) ?? 0) < this.#options.inFlightMax) void this.#send(nodeId, lanes);
    }
    if (isWaiting) this.#lookAgain();
    if (this.#view.isStale) this.#view.refreshInBackground();
  }

  /** Asks for the partition's leader; what can never be sent fails. */
  #find(lane: Lane): void {
    lane.notBefore = performance.now() + lane.backoff.next();
    const known = this.#view.topic(lane.topic);
    if (known !== undefined && known.partitions[lane.partition] === undefined) {
      const detail = `${lane.topic} has ${known.partitions.length} partitions, not a ${lane.partition}`;
      this.#fail(lane.queue.splice(0), new ClientError('RK9207', detail));
      return this.#settleLane(lane);
    }
    const found = known === undefined ? this.#view.waitForTopic(lane.topic) : this.#view.refresh();
    found.then(
      () => {
        lane.notBefore = 0;
        this.#schedule();
      },
      (error: unknown) => {
        if (isRetriableError(error) || !(error instanceof ClientError)) return;
        this.#fail(lane.queue.splice(0), error);
        this.#settleLane(lane);
      },
    );
  }

  /** While something waits for a leader or a pause, somebody must look whether its time is up. */
  #lookAgain(): void {
    this.#looks ??= setTimeout(() => {
      this.#looks = null;
      const now = performance.now();
      for (const lane of [...this.#busy]) if (!lane.isOut) this.#expire(lane, now);
      this.#drain();
    }, looksMs);
  }

  #expire(lane: Lane, now: number): void {
    const detail = `${lane.topic}-${lane.partition} in ${this.#options.deliveryTimeoutMs} ms`;
    const { batch } = lane;
    if (batch !== null && batch.entries[0]!.deadline <= now) {
      lane.batch = null;
      const { outcomeUnknown } = batch;
      this.#fail(batch.entries, new ClientError('RK9209', detail, { outcomeUnknown }));
    }
    let late = 0;
    while (late < lane.queue.length && lane.queue[late]!.deadline <= now) late++;
    if (late > 0) this.#fail(lane.queue.splice(0, late), new ClientError('RK9209', detail));
    this.#settleLane(lane);
  }

  async #send(nodeId: number, lanes: readonly Lane[]): Promise<void> {
    this.#inFlight.set(nodeId, (this.#inFlight.get(nodeId) ?? 0) + 1);
    const { acks, deliveryTimeoutMs } = this.#options;
    for (const lane of lanes) {
      lane.isOut = true;
      lane.batch ??= this.#take(lane);
    }
    let connection: Connection | null = null;
    try {
      connection = await this.#view.broker(nodeId);
      const body = {
        acks: acks === 'all' ? -1 : acks,
        timeoutMs: Math.min(deliveryTimeoutMs, 30_000),
        topicData: byTopic(lanes),
      };
      // Version 13 names topics by id; names are what every broker understands.
      if (acks === 0) {
        connection.tell(produce, body);
        for (const lane of lanes) this.#deliver(lane, -1, -1);
      } else {
        this.#settle(lanes, await connection.request(produce, body, { versionMax: 12 }));
      }
    } catch (error) {
      for (const lane of lanes) {
        if (lane.batch === null) continue;
        // Without a connection nothing has left; on one that broke, anything may have arrived.
        lane.batch.outcomeUnknown ||= connection !== null;
        this.#retryOrFail(lane, error);
      }
    }
    this.#inFlight.set(nodeId, this.#inFlight.get(nodeId)! - 1);
    for (const lane of lanes) {
      lane.isOut = false;
      this.#settleLane(lane);
    }
    if (this.#busy.size > 0) this.#drain();
  }

  /** Makes a batch of the front of the queue. */
  #take(lane: Lane): Batch {
    const { batchBytesMax, codec } = this.#options;
    let size = 0;
    let count = 0;
    while (count < lane.queue.length) {
      size += lane.queue[count]!.sizeInBytes;
      if (size > batchBytesMax && count > 0) break;
      count++;
    }
    const entries = count === lane.queue.length ? lane.queue : lane.queue.splice(0, count);
    if (entries === lane.queue) lane.queue = [];
    // Records without a key stay together in one batch, then go on to another partition.
    if (this.#sticky.get(lane.topic) === lane.partition) this.#sticky.delete(lane.topic);
    const records = entries.map(({ record }) => record);
    return { entries, bytes: encodeBatch(records, { codec }), outcomeUnknown: false };
  }

  #settle(lanes: readonly Lane[], response: Response<typeof produce>): void {
    const answers = new Map<
      string,
      Response<typeof produce>['responses'][number]['partitionResponses'][number]
    >();
    for (const { name, partitionResponses } of response.responses)
      for (const answer of partitionResponses) answers.set(`${name}/${answer.index}`, answer);
    for (const lane of lanes) {
      const answer = answers.get(`${lane.topic}/${lane.partition}`);
      if (answer === undefined) {
        this.#retryOrFail(lane, new BrokerError('UNKNOWN_SERVER_ERROR', 'the answer left a partition out'));
      } else if (answer.errorCode === 0) {
        this.#deliver(lane, answer.baseOffset, answer.logAppendTimeMs);
      } else {
        const name = errorName(answer.errorCode);
        const detail = `${lane.topic}-${lane.partition}${answer.errorMessage ? `: ${answer.errorMessage}` : ''}`;
        this.#retryOrFail(lane, new BrokerError(name, detail));
      }
    }
  }

  #deliver(lane: Lane, baseOffset: number, logAppendTime: number): void {
    const { entries } = lane.batch!;
    lane.batch = null;
    lane.backoff.reset();
    for (let i = 0; i < entries.length; i++) {
      const { record, receipt, sizeInBytes } = entries[i]!;
      this.#bufferedBytes -= sizeInBytes;
      const offset = baseOffset < 0 ? baseOffset : baseOffset + i;
      receipt.delivered(offset, logAppendTime < 0 ? record.timestamp : logAppendTime);
    }
  }

  /** Keeps the batch in front for another attempt, where the error allows and time is left. */
  #retryOrFail(lane: Lane, error: unknown): void {
    const batch = lane.batch!;
    const now = performance.now();
    const mayRetry = isRetriableError(error) && !this.#view.signal.aborted;
    if (mayRetry && batch.entries[0]!.deadline > now) {
      lane.notBefore = now + lane.backoff.next();
      this.#view.refreshInBackground();
      return this.#lookAgain();
    }
    lane.batch = null;
    this.#fail(batch.entries, failure(error, mayRetry, lane, batch.outcomeUnknown));
  }

  #fail(entries: readonly Entry[], error: ClientError): void {
    for (const { receipt, sizeInBytes } of entries) {
      this.#bufferedBytes -= sizeInBytes;
      receipt.failed(error);
    }
  }

  #settleLane(lane: Lane): void {
    if (lane.isOut || lane.batch !== null || lane.queue.length > 0) return;
    this.#busy.delete(lane);
    if (this.#busy.size > 0) return;
    this.#stopTimers();
    for (const told of this.#idle.splice(0)) told();
  }

  #stopTimers(): void {
    clearTimeout(this.#lingers ?? undefined);
    clearTimeout(this.#looks ?? undefined);
    this.#lingers = null;
    this.#looks = null;
  }
}

function byTopic(lanes: readonly Lane[]) {
  const topics = new Map<string, { index: number; records: Buffer[] }[]>();
  for (const { topic, partition, batch } of lanes) {
    const partitions = topics.get(topic);
    const entry = { index: partition, records: [batch!.bytes] };
    if (partitions === undefined) topics.set(topic, [entry]);
    else partitions.push(entry);
  }
  return [...topics].map(([name, partitionData]) => ({ name, partitionData }));
}

function failure(error: unknown, wasLate: boolean, lane: Lane, outcomeUnknown: boolean): ClientError {
  const where = `${lane.topic}-${lane.partition}`;
  if (wasLate)
    return new ClientError('RK9209', `${where}: ${(error as Error).message}`, {
      cause: error,
      outcomeUnknown,
    });
  if (error instanceof ClientError) return error;
  return new ClientError('RK9202', `${where}: ${(error as Error).message}`, { cause: error, outcomeUnknown });
}

function sizeOf({ key, value, headers }: NewRecord): number {
  let size = recordOverhead + (key?.length ?? 0) + (value?.length ?? 0);
  if (headers !== undefined) {
    for (const header of headers) size += 8 + header.key.length * 3 + (header.value?.length ?? 0);
  }
  return size;
}
