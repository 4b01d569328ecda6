import {
  decodeRecords,
  errorName,
  fetch,
  listOffsets,
  RecordBatch,
  WireError,
  zeroUuid,
  type LogRecord,
  type Response,
} from '@rookery/wire';
import { Backoff } from './backoff.ts';
import type { ClusterView } from './cluster-view.ts';
import { BrokerError, ClientError } from './errors.ts';

export interface FetcherOptions {
  /** Names the connections that only this fetcher uses. */
  readonly purpose: string;
  /** Where a partition begins without a committed position, or when its position is gone. */
  readonly from: 'earliest' | 'latest' | 'none';
  /** Milliseconds that a broker may hold a fetch for which it has nothing. */
  readonly maxWaitMs: number;
  /** Bytes of one partition in one answer. */
  readonly partitionBytesMax: number;
  /** Bytes of one answer. */
  readonly fetchBytesMax: number;
  /** Bytes of undelivered batches of one partition beyond which it is not fetched. */
  readonly prefetchBytes: number;
}

export interface FetcherEvents {
  /** Records in the order of the log, never more than were asked for. */
  records(partition: FetchedPartition, records: LogRecord[], leaderEpoch: number): void;
  /** The partition is tried again; what came before is not lost. */
  troubled(partition: FetchedPartition, error: Error): void;
}

/** A partition that is being read. Whoever added it keeps this object: it is its own handle. */
export interface FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  /** The next offset to deliver. */
  readonly position: number;
}

class Reading implements FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  position: number;
  /** The next offset to fetch: ahead of `position` by what is held. */
  fetchOffset: number;
  lastEpoch: number;
  credits = 0;
  held: RecordBatch[] = [];
  heldBytes = 0;
  /** Decoded, and more than was asked for. */
  ready: LogRecord[] = [];
  readyEpoch = -1;
  isOut = false;
  isRemoved = false;
  notBefore = 0;
  /** Changes with every seek: what was asked for before it is dropped. */
  version = 0;
  isReset: boolean;
  readonly backoff = new Backoff(50, 1_000);

  constructor(topic: string, partition: number, offset: number, leaderEpoch: number) {
    this.topic = topic;
    this.partition = partition;
    this.position = offset;
    this.fetchOffset = offset;
    this.lastEpoch = leaderEpoch;
    this.isReset = offset < 0;
  }
}

const earliest = -2;
const latest = -1;
/** How long a broker may hold a fetch from which partitions were left out that soon take more. */
const shortWaitMs = 5;
const idleMs = 50;

/**
 * Reads partitions: one fetch at a time to each broker that leads any of them, records delivered as far as they
 * were asked for. A partition whose records wait undelivered is left out until they are gone.
 */
export class Fetcher {
  readonly #view: ClusterView;
  readonly #options: FetcherOptions;
  readonly #events: FetcherEvents;
  readonly #readings = new Set<Reading>();
  readonly #busy = new Set<number>();
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #isDue = false;
  #isStopped = false;

  constructor(view: ClusterView, options: FetcherOptions, events: FetcherEvents) {
    this.#view = view;
    this.#options = options;
    this.#events = events;
  }

  /** @param offset −1: wherever `from` says */
  add(topic: string, partition: number, offset: number, leaderEpoch = -1): FetchedPartition {
    const reading = new Reading(topic, partition, offset, leaderEpoch);
    this.#readings.add(reading);
    this.#schedule();
    return reading;
  }

  /** Nothing of it is delivered once this returns. */
  remove(partition: FetchedPartition): void {
    const reading = partition as Reading;
    reading.isRemoved = true;
    reading.version++;
    this.#readings.delete(reading);
  }

  /** Asks for so many more records. */
  request(partition: FetchedPartition, count: number): void {
    const reading = partition as Reading;
    reading.credits += count;
    if (reading.ready.length > 0 || reading.held.length > 0) queueMicrotask(() => this.#deliver(reading));
    else this.#schedule();
  }

  seek(partition: FetchedPartition, offset: number): void {
    const reading = partition as Reading;
    reading.version++;
    reading.position = offset;
    reading.fetchOffset = offset;
    reading.isReset = offset < 0;
    reading.held = [];
    reading.heldBytes = 0;
    reading.ready = [];
    this.#schedule();
  }

  /** Fetches no more. What is held may still be asked for. */
  stop(): void {
    this.#isStopped = true;
    this.#closing.abort();
    clearTimeout(this.#timer ?? undefined);
    this.#timer = null;
  }

  #schedule(): void {
    if (this.#isDue || this.#isStopped) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      this.#look();
    });
  }

  /** Starts a fetch to every broker that has something to read and is not being asked already. */
  #look(): void {
    if (this.#isStopped) return;
    const now = performance.now();
    const byLeader = new Map<number, { wanted: Reading[]; leftOut: boolean }>();
    let mustLookAgain = false;
    for (const reading of this.#readings) {
      if (reading.isOut) continue;
      if (reading.notBefore > now) {
        mustLookAgain = true;
        continue;
      }
      const leader = this.#view.leaderOf(reading.topic, reading.partition);
      if (leader === undefined) {
        this.#later(reading, null);
        mustLookAgain = true;
        continue;
      }
      const of = byLeader.get(leader.leader) ?? { wanted: [], leftOut: false };
      byLeader.set(leader.leader, of);
      if (reading.heldBytes < this.#options.prefetchBytes) of.wanted.push(reading);
      else of.leftOut = true;
    }
    for (const [nodeId, { wanted, leftOut }] of byLeader) {
      if (wanted.length > 0 && !this.#busy.has(nodeId)) void this.#fetch(nodeId, wanted, leftOut);
    }
    if (mustLookAgain) {
      this.#timer ??= setTimeout(() => {
        this.#timer = null;
        this.#look();
      }, idleMs);
    }
  }

  async #fetch(nodeId: number, wanted: readonly Reading[], leftOut: boolean): Promise<void> {
    this.#busy.add(nodeId);
    const asked = wanted.map((reading) => ({ reading, version: reading.version }));
    for (const reading of wanted) reading.isOut = true;
    try {
      const lost = wanted.filter(({ isReset }) => isReset);
      // A position first: nothing can be fetched without one.
      if (lost.length > 0) await this.#reset(nodeId, lost);
      else this.#take(asked, await this.#ask(nodeId, wanted, leftOut));
    } catch (error) {
      if (!this.#isStopped) for (const reading of wanted) this.#later(reading, error as Error);
    }
    this.#busy.delete(nodeId);
    for (const reading of wanted) {
      reading.isOut = false;
      this.#deliver(reading);
    }
    this.#schedule();
  }

  async #ask(nodeId: number, wanted: readonly Reading[], leftOut: boolean): Promise<Response<typeof fetch>> {
    const { maxWaitMs, partitionBytesMax, fetchBytesMax } = this.#options;
    const connection = await this.#view.broker(nodeId, this.#options.purpose);
    const topics = new Map<string, Reading[]>();
    for (const reading of wanted) {
      const of = topics.get(reading.topic);
      if (of === undefined) topics.set(reading.topic, [reading]);
      else of.push(reading);
    }
    const hasIds = [...topics.keys()].every((topic) => this.#view.topic(topic)?.id != null);
    const waitMs = leftOut ? shortWaitMs : maxWaitMs;
    return connection.request(
      fetch,
      (version) => ({
        maxWaitMs: waitMs,
        minBytes: 1,
        maxBytes: fetchBytesMax,
        isolationLevel: 0,
        // Session 0 in epoch −1: every fetch names everything it wants.
        ...(version >= 7 ? { sessionId: 0, sessionEpoch: -1, forgottenTopicsData: [] } : {}),
        ...(version >= 11 ? { rackId: '' } : {}),
        topics: [...topics].map(([topic, readings]) => ({
          topic,
          topicId: this.#view.topic(topic)?.id ?? zeroUuid,
          partitions: readings.map(({ partition, fetchOffset }) => ({
            partition,
            fetchOffset,
            currentLeaderEpoch: this.#view.leaderOf(topic, partition)?.leaderEpoch ?? -1,
            partitionMaxBytes: partitionBytesMax,
          })),
        })),
      }),
      { timeoutMs: waitMs + 30_000, versionMax: hasIds ? 17 : 12 },
    );
  }

  #take(
    asked: readonly { readonly reading: Reading; readonly version: number }[],
    response: Response<typeof fetch>,
  ): void {
    if (response.errorCode) throw new BrokerError(errorName(response.errorCode), 'Fetch');
    const answers = new Map<string, NonNullable<typeof response.responses>[number]['partitions'][number]>();
    for (const { topic, topicId, partitions } of response.responses ?? []) {
      const name = topic === '' ? this.#view.nameOf(topicId) : topic;
      for (const answer of partitions) answers.set(`${name}/${answer.partitionIndex}`, answer);
    }
    for (const { reading, version } of asked) {
      const answer = answers.get(`${reading.topic}/${reading.partition}`);
      if (answer === undefined || reading.version !== version) continue;
      if (answer.errorCode !== 0) this.#takeError(reading, answer.errorCode);
      else this.#takeBatches(reading, answer.records ?? []);
    }
  }

  #takeBatches(reading: Reading, chunks: readonly Buffer[]): void {
    const bytes = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    try {
      let position = 0;
      // The last batch may be cut where the answer ended; it comes whole with the next one.
      for (
        let batch = RecordBatch.read(bytes, 0);
        batch !== null;
        batch = RecordBatch.read(bytes, position)
      ) {
        position += batch.sizeInBytes;
        if (batch.nextOffset <= reading.fetchOffset) continue;
        if (batch.magic === 2 && !batch.checkCrc())
          throw new WireError('RK9102', `at offset ${batch.baseOffset}`);
        reading.fetchOffset = batch.nextOffset;
        if (batch.magic < 2)
          throw new ClientError('RK9204', `records of format ${batch.magic} at offset ${batch.baseOffset}`);
        reading.held.push(batch);
        reading.heldBytes += batch.sizeInBytes;
      }
      reading.backoff.reset();
    } catch (error) {
      this.#later(reading, error as Error);
    }
  }

  #takeError(reading: Reading, errorCode: number): void {
    const error = errorName(errorCode);
    const failure = new BrokerError(
      error,
      `Fetch of ${reading.topic}-${reading.partition} at ${reading.fetchOffset}`,
    );
    if (error !== 'OFFSET_OUT_OF_RANGE') return this.#later(reading, failure);
    this.#events.troubled(reading, failure);
    if (this.#options.from === 'none') reading.notBefore = Infinity;
    else reading.isReset = true;
  }

  /** Finds where the partitions begin or end, for those that have no position. */
  async #reset(nodeId: number, lost: readonly Reading[]): Promise<void> {
    const { from } = this.#options;
    if (from === 'none') {
      for (const reading of lost) {
        reading.notBefore = Infinity;
        this.#events.troubled(
          reading,
          new ClientError('RK9207', `${name(reading)} has no position to read from`),
        );
      }
      return;
    }
    const connection = await this.#view.broker(nodeId);
    const response = await connection.request(
      listOffsets,
      {
        replicaId: -1,
        isolationLevel: 0,
        timeoutMs: 30_000,
        topics: lost.map(({ topic, partition }) => ({
          name: topic,
          partitions: [{ partitionIndex: partition, timestamp: from === 'earliest' ? earliest : latest }],
        })),
      },
      { versionMax: 10 },
    );
    for (const { name: topic, partitions } of response.topics) {
      for (const { partitionIndex, errorCode, offset } of partitions) {
        const reading = lost.find((each) => each.topic === topic && each.partition === partitionIndex);
        if (reading === undefined || !reading.isReset) continue;
        if (errorCode !== 0) {
          this.#later(reading, new BrokerError(errorName(errorCode), `ListOffsets of ${name(reading)}`));
          continue;
        }
        reading.isReset = false;
        reading.position = offset;
        reading.fetchOffset = offset;
        reading.held = [];
        reading.heldBytes = 0;
        reading.ready = [];
      }
    }
  }

  #later(reading: Reading, error: Error | null): void {
    reading.notBefore = performance.now() + reading.backoff.next();
    this.#view.want([reading.topic]);
    this.#view.refreshInBackground();
    if (error !== null && !reading.isRemoved) this.#events.troubled(reading, error);
  }

  /** Hands over what is held, as far as it was asked for. */
  #deliver(reading: Reading): void {
    while (reading.credits > 0 && !reading.isRemoved) {
      if (reading.ready.length === 0 && !this.#decode(reading)) break;
      const count = Math.min(reading.credits, reading.ready.length);
      const records = count === reading.ready.length ? reading.ready : reading.ready.splice(0, count);
      if (records === reading.ready) reading.ready = [];
      reading.credits -= records.length;
      reading.position = records.at(-1)!.offset + 1;
      this.#events.records(reading, records, reading.readyEpoch);
    }
    if (!reading.isRemoved && reading.heldBytes < this.#options.prefetchBytes) this.#schedule();
  }

  /** Opens held batches until one has records that are wanted; false when none has. */
  #decode(reading: Reading): boolean {
    for (let batch = reading.held[0]; batch !== undefined; batch = reading.held[0]) {
      let records: LogRecord[];
      try {
        records = batch.isControl ? [] : decodeRecords(batch);
      } catch (error) {
        // What cannot be read is not skipped: the position stays in front of it, and the owner decides.
        reading.fetchOffset = reading.position;
        reading.held = [];
        reading.heldBytes = 0;
        this.#later(reading, error as Error);
        return false;
      }
      reading.held.shift();
      reading.heldBytes -= batch.sizeInBytes;
      // Brokers answer with whole batches: what stands before the position has been delivered already.
      const from = records.findIndex(({ offset }) => offset >= reading.position);
      if (from < 0) {
        reading.position = Math.max(reading.position, batch.nextOffset);
        continue;
      }
      reading.ready = from === 0 ? records : records.slice(from);
      reading.readyEpoch = batch.partitionLeaderEpoch;
      return true;
    }
    return false;
  }
}

const name = ({ topic, partition }: FetchedPartition): string => `${topic}-${partition}`;
