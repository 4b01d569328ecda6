import {
  errorName,
  initProducerId,
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
import {
  ProducerLane,
  type Batch,
  type LaneOptions,
  type ProducerIdentity,
  type Receipt,
} from './producer-lane.ts';

export interface ProducerOptions {
  readonly acks?: 'all' | 1 | 0;
  /**
   * Whether the broker shall recognise a batch that it gets twice, so that retries neither repeat nor reorder
   * anything: on unless `acks` says otherwise, and off with a broker that gives no producer ids.
   */
  readonly idempotent?: boolean;
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

/** How a record went that was handed in by `send`. */
export interface Delivery {
  readonly partition: number;
  readonly offset: number;
  readonly timestamp: number;
}

/** A batch that is part of a request. */
interface Sent {
  readonly lane: ProducerLane;
  readonly batch: Batch;
}

type PartitionAnswer = Response<typeof produce>['responses'][number]['partitionResponses'][number];

const recordOverhead = 32;
const headerOverhead = 8;
/** How often somebody looks whether the time of anything that waits is up. */
const looksMs = 100;
/** Bytes of batches in one request, so that many partitions together stay far below what brokers take in. */
const requestBytesMax = 8 * 1024 * 1024;
/** Unanswered batches of one partition where the broker checks their order; it remembers five. */
const numberedOutMax = 5;

/**
 * Sends records. Calls of one turn become one batch a partition and one request a broker. The order within a
 * partition is the order of the calls, whatever is tried again; several partitions go side by side.
 */
export class Producer {
  readonly #view: ClusterView;
  readonly #options: Required<ProducerOptions>;
  readonly #laneOptions: LaneOptions;
  readonly #lanes = new Map<string, Map<number, ProducerLane>>();
  /** Lanes that are not empty: those that were served last stand last. */
  readonly #busy = new Set<ProducerLane>();
  readonly #inFlight = new Map<number, number>();
  /** Brokers whose connection is being waited for. */
  readonly #connecting = new Set<number>();
  readonly #sticky = new Map<string, number>();
  #isIdempotent: boolean;
  readonly #idempotentByChoice: boolean;
  #identity: ProducerIdentity | null = null;
  #isIdentifying = false;
  readonly #identityBackoff = new Backoff(20, 1_000);
  #bufferedBytes = 0;
  /** The time of this turn. */
  #now = 0;
  #isDue = false;
  #lingers: NodeJS.Timeout | null = null;
  #looks: NodeJS.Timeout | null = null;
  #looksAt = Infinity;
  #flushed: (() => void)[] = [];
  #closing: Promise<void> | null = null;

  /** @throws ClientError RK9207 */
  constructor(view: ClusterView, options: ProducerOptions = {}) {
    this.#view = view;
    this.#options = {
      acks: 'all',
      idempotent: (options.acks ?? 'all') === 'all',
      codec: 'none',
      lingerMs: 0,
      batchBytesMax: 1_000_000,
      inFlightMax: 5,
      bufferBytesMax: 64 * 1024 * 1024,
      deliveryTimeoutMs: 120_000,
      ...options,
    };
    checkOptions(this.#options);
    this.#isIdempotent = this.#options.idempotent;
    this.#idempotentByChoice = options.idempotent === true;
    const isIdempotent = (): boolean => this.#isIdempotent;
    this.#laneOptions = {
      codec: this.#options.codec,
      batchBytesMax: this.#options.batchBytesMax,
      deliveryTimeoutMs: this.#options.deliveryTimeoutMs,
      get isIdempotent() {
        return isIdempotent();
      },
      get outMax() {
        return isIdempotent() ? numberedOutMax : 1;
      },
      released: (sizeInBytes) => {
        this.#bufferedBytes -= sizeInBytes;
      },
    };
  }

  get isClosed(): boolean {
    return this.#closing !== null;
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
    if (this.#closing !== null) return receipt.failed(new ClientError('RK9205', 'the producer'));
    const sizeInBytes = sizeOf(record);
    if (sizeInBytes === null) {
      const detail = `a record for ${topic}-${partition}: bytes or null as key, value and header values, a whole number as timestamp`;
      return receipt.failed(new ClientError('RK9207', detail));
    }
    if (this.#bufferedBytes + sizeInBytes > this.#options.bufferBytesMax && this.#bufferedBytes > 0)
      return receipt.failed(
        new ClientError('RK9206', `${this.#bufferedBytes} bytes for ${topic}-${partition}`),
      );
    this.#bufferedBytes += sizeInBytes;
    const lane = this.#lane(topic, partition);
    if (!this.#isDue) this.#now = performance.now();
    lane.append(record, receipt, sizeInBytes, this.#now);
    this.#busy.add(lane);
    this.#schedule(lane.isFull);
  }

  /**
   * The same as a promise, for one record or few: resolves with where it went.
   * @throws ClientError
   */
  async send(
    topic: string,
    record: Omit<NewRecord, 'timestamp'> & { readonly timestamp?: number; readonly partition?: number },
  ): Promise<Delivery> {
    const { timestamp = Date.now(), partition: chosen, ...rest } = record;
    const partition = chosen ?? this.place(topic, record.key ?? null, await this.#partitionsInTime(topic));
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
    this.#schedule(true);
    return new Promise((resolve) => this.#flushed.push(resolve));
  }

  /** Sends what waits, for at most `deadlineMs`; fails what is left. */
  close(deadlineMs = 5_000): Promise<void> {
    this.#closing ??= this.#close(deadlineMs);
    return this.#closing;
  }

  async #close(deadlineMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([this.flush(), new Promise((resolve) => (timer = setTimeout(resolve, deadlineMs)))]);
    clearTimeout(timer);
    this.#abandon();
  }

  #abandon(): void {
    for (const lane of this.#busy) lane.abandon(new ClientError('RK9205', `${lane.topic}-${lane.partition}`));
    this.#busy.clear();
    this.#settle();
  }

  async #partitionsInTime(topic: string): Promise<number> {
    const { deliveryTimeoutMs } = this.#options;
    const known = this.#view.topic(topic);
    if (known !== undefined) return known.partitions.length;
    try {
      return await this.partitionsOf(topic, AbortSignal.timeout(deliveryTimeoutMs));
    } catch (error) {
      if (error instanceof ClientError) throw error;
      const why = this.#view.errorOf(topic)?.message ?? 'no broker has answered';
      throw new ClientError('RK9209', `${topic} in ${deliveryTimeoutMs} ms: ${why}`, { cause: error });
    }
  }

  #lane(topic: string, partition: number): ProducerLane {
    let lanes = this.#lanes.get(topic);
    if (lanes === undefined) this.#lanes.set(topic, (lanes = new Map()));
    let lane = lanes.get(partition);
    if (lane === undefined)
      lanes.set(partition, (lane = new ProducerLane(topic, partition, this.#laneOptions)));
    return lane;
  }

  #schedule(now: boolean): void {
    const { lingerMs } = this.#options;
    if (lingerMs > 0 && !now) {
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

  /** Serves every broker that leads a lane with something to send. */
  #drain(): void {
    if (this.#busy.size === 0) return;
    if (this.#view.signal.aborted) return this.#abandon();
    const now = performance.now();
    const leaders = new Set<number>();
    let soonest = now + looksMs;
    for (const lane of this.#busy) {
      if (!lane.hasMore) continue;
      if (lane.notBefore > now) {
        soonest = Math.min(soonest, lane.notBefore);
        continue;
      }
      const leader = this.#view.leaderOf(lane.topic, lane.partition);
      if (leader === undefined) this.#findLeader(lane, now);
      else if (lane.needsIdentity && this.#identity === null) void this.#identify();
      else leaders.add(leader.leader);
    }
    for (const nodeId of leaders) {
      if (this.#hasRoom(nodeId) && !this.#connecting.has(nodeId)) void this.#serve(nodeId);
    }
    this.#lookAt(soonest);
    this.#settle();
  }

  #hasRoom(nodeId: number): boolean {
    return (this.#inFlight.get(nodeId) ?? 0) < this.#options.inFlightMax;
  }

  /** Asks for the partition's leader; what can never be sent fails. */
  #findLeader(lane: ProducerLane, now: number): void {
    const { topic, partition } = lane;
    const known = this.#view.topic(topic);
    const refusal = this.#view.errorOf(topic);
    if (known !== undefined && !(partition in known.partitions)) {
      const detail = `${topic} has ${known.partitions.length} partitions, not a ${partition}`;
      lane.failWaiting(new ClientError('RK9207', detail));
    } else if (refusal !== undefined && !refusal.retriable) {
      lane.failWaiting(refusal);
      // What is handed in later shall be tried: the topic may be allowed by then.
      this.#view.refreshInBackground();
    } else {
      lane.pause(now);
      this.#view.want([topic]);
      this.#view.refresh().then(
        () => {
          // Without a leader still, the lane's pauses go on growing.
          if (this.#view.leaderOf(topic, partition) !== undefined) lane.notBefore = 0;
          this.#schedule(true);
        },
        (error: unknown) => {
          if (error instanceof ClientError && !error.retriable && !this.#view.signal.aborted)
            lane.failWaiting(error);
          this.#schedule(true);
        },
      );
    }
  }

  /** Has the cluster name this producer, for lanes that wait for that. */
  async #identify(): Promise<void> {
    if (this.#isIdentifying) return;
    this.#isIdentifying = true;
    try {
      const broker = await this.#view.anyBroker();
      const { errorCode, producerId, producerEpoch } = await broker.request(initProducerId, {
        transactionalId: null,
        transactionTimeoutMs: 60_000,
      });
      if (errorCode !== 0) throw new BrokerError(errorName(errorCode), 'InitProducerId');
      this.#identity = { producerId, epoch: producerEpoch };
      this.#identityBackoff.reset();
    } catch (error) {
      if (this.#view.signal.aborted) return;
      if (isUnserved(error) && !this.#idempotentByChoice) {
        this.#isIdempotent = false;
      } else {
        const now = performance.now();
        const notBefore = now + this.#identityBackoff.next();
        for (const lane of this.#busy) {
          if (!lane.needsIdentity) continue;
          if (error instanceof ClientError && !error.retriable) lane.failWaiting(error);
          else lane.notBefore = Math.max(lane.notBefore, notBefore);
        }
      }
    } finally {
      this.#isIdentifying = false;
    }
    this.#schedule(true);
  }

  /** Fills requests to a broker, as many as it may have unanswered. */
  async #serve(nodeId: number): Promise<void> {
    this.#connecting.add(nodeId);
    let connection: Connection;
    try {
      connection = await this.#view.broker(nodeId);
    } catch (error) {
      const now = performance.now();
      for (const lane of this.#lanesOf(nodeId)) {
        if (isRetriableError(error)) lane.pause(now);
        else lane.failWaiting(error as ClientError);
      }
      this.#view.refreshInBackground();
      return this.#schedule(true);
    } finally {
      this.#connecting.delete(nodeId);
    }
    while (this.#hasRoom(nodeId)) {
      const sent = this.#fill(nodeId, connection);
      if (sent.length === 0) break;
      void this.#send(nodeId, connection, sent);
    }
    this.#settle();
  }

  #lanesOf(nodeId: number): ProducerLane[] {
    const now = performance.now();
    return [...this.#busy].filter(
      (lane) =>
        lane.hasMore &&
        lane.notBefore <= now &&
        this.#view.leaderOf(lane.topic, lane.partition)?.leader === nodeId,
    );
  }

  #fill(nodeId: number, connection: Connection): Sent[] {
    const sent: Sent[] = [];
    let bytes = 0;
    for (const lane of this.#lanesOf(nodeId)) {
      if (lane.needsIdentity) {
        if (this.#identity === null) continue;
        lane.identify(this.#identity);
      }
      const batch = lane.next(connection);
      if (lane.needsIdentity) this.#renewIdentity();
      if (batch === null) continue;
      sent.push({ lane, batch });
      // Records without a key stay together in one batch, then go on to another partition.
      if (this.#sticky.get(lane.topic) === lane.partition) this.#sticky.delete(lane.topic);
      // To the end of the row: a lane that is never empty must not keep the others from being served.
      this.#busy.delete(lane);
      this.#busy.add(lane);
      bytes += batch.bytes.length;
      if (bytes >= requestBytesMax) break;
    }
    return sent;
  }

  /** A lane has used up the epochs of this identity. The others keep it until they have, too. */
  #renewIdentity(): void {
    this.#identity = null;
    this.#schedule(true);
  }

  async #send(nodeId: number, connection: Connection, sent: readonly Sent[]): Promise<void> {
    this.#inFlight.set(nodeId, (this.#inFlight.get(nodeId) ?? 0) + 1);
    const { acks, deliveryTimeoutMs } = this.#options;
    const body = {
      acks: acks === 'all' ? -1 : acks,
      timeoutMs: Math.min(deliveryTimeoutMs, 30_000),
      topicData: byTopic(sent),
    };
    try {
      // Version 13 names topics by id; names are what every broker understands.
      const options = { versionMax: 12 };
      if (acks === 0) {
        await connection.tell(produce, body, options);
        for (const { lane, batch } of sent) lane.delivered(batch, -1, -1);
      } else {
        this.#take(sent, await connection.request(produce, body, options));
      }
    } catch (error) {
      const now = performance.now();
      for (const { lane, batch } of sent) if (batch.isOut) lane.refused(batch, error, now);
      this.#view.refreshInBackground();
    }
    this.#inFlight.set(nodeId, this.#inFlight.get(nodeId)! - 1);
    this.#settle();
    this.#drain();
  }

  #take(sent: readonly Sent[], response: Response<typeof produce>): void {
    const answers = new Map<string, Map<number, PartitionAnswer>>();
    for (const { name, partitionResponses } of response.responses)
      answers.set(name, new Map(partitionResponses.map((answer) => [answer.index, answer])));
    const now = performance.now();
    let mustRefresh = false;
    for (const { lane, batch } of sent) {
      const { topic, partition } = lane;
      const answer = answers.get(topic)?.get(partition);
      if (answer?.errorCode === 0) {
        lane.delivered(batch, answer.baseOffset, answer.logAppendTimeMs);
        continue;
      }
      const where = `${topic}-${partition}`;
      const error =
        answer === undefined
          ? new ClientError('RK9211', `${where} is not in the answer`, { outcomeUnknown: true })
          : refusal(answer, where);
      mustRefresh ||= error.retriable;
      lane.refused(batch, error, now);
    }
    if (mustRefresh) this.#view.refreshInBackground();
  }

  /** While anything waits, somebody must look whether its time is up. */
  #lookAt(time: number): void {
    if (this.#looks !== null && this.#looksAt <= time) return;
    clearTimeout(this.#looks ?? undefined);
    this.#looksAt = time;
    this.#looks = setTimeout(
      () => {
        this.#looks = null;
        const now = performance.now();
        for (const lane of [...this.#busy]) lane.expire(now);
        this.#drain();
      },
      Math.max(1, time - performance.now()),
    );
  }

  /** Forgets lanes that have become empty; tells who waits for all of them. */
  #settle(): void {
    for (const lane of this.#busy) if (lane.isEmpty) this.#busy.delete(lane);
    if (this.#busy.size > 0) return;
    clearTimeout(this.#lingers ?? undefined);
    clearTimeout(this.#looks ?? undefined);
    this.#lingers = null;
    this.#looks = null;
    for (const told of this.#flushed.splice(0)) told();
  }
}

function checkOptions(options: Required<ProducerOptions>): void {
  if (options.idempotent && options.acks !== 'all')
    throw new ClientError('RK9207', `idempotent with acks=${options.acks}: it needs acks=all`);
  for (const name of ['batchBytesMax', 'inFlightMax', 'bufferBytesMax', 'deliveryTimeoutMs'] as const)
    if (!(options[name] > 0)) throw new ClientError('RK9207', `${name}=${options[name]}, not above 0`);
  if (!(options.lingerMs >= 0)) throw new ClientError('RK9207', `lingerMs=${options.lingerMs}, below 0`);
}

function byTopic(sent: readonly Sent[]) {
  const topics = new Map<string, { index: number; records: Buffer[] }[]>();
  for (const { lane, batch } of sent) {
    const partitions = topics.get(lane.topic);
    const entry = { index: lane.partition, records: [batch.bytes] };
    if (partitions === undefined) topics.set(lane.topic, [entry]);
    else partitions.push(entry);
  }
  return [...topics].map(([name, partitionData]) => ({ name, partitionData }));
}

function refusal({ errorCode, errorMessage }: PartitionAnswer, where: string): BrokerError {
  return new BrokerError(errorName(errorCode), `${where}${errorMessage ? `: ${errorMessage}` : ''}`);
}

const isUnserved = (error: unknown): boolean => error instanceof ClientError && error.code === 'RK9204';

const isBytes = (value: unknown): value is Uint8Array | null => value === null || value instanceof Uint8Array;

/** Bytes that a record takes of the buffer; null for what is no record. */
function sizeOf({ key = null, value, headers, timestamp }: NewRecord): number | null {
  if (!isBytes(key) || !isBytes(value) || !Number.isSafeInteger(timestamp)) return null;
  let size = recordOverhead + (key === null ? 0 : key.length) + (value === null ? 0 : value.length);
  if (headers === undefined) return size;
  for (const header of headers) {
    if (typeof header.key !== 'string' || !isBytes(header.value)) return null;
    // A UTF-16 unit becomes at most three bytes.
    size += headerOverhead + header.key.length * 3 + (header.value === null ? 0 : header.value.length);
  }
  return size;
}
