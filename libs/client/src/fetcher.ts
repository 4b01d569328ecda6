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
import { sleep } from './waiting.ts';

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
  /** The leader epoch of what was fetched last, −1 when it is not known: a leader that has other records in it says so. */
  fetchedEpoch: number;
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
    this.fetchedEpoch = leaderEpoch;
    this.isReset = offset < 0;
  }

  /** Goes on at another offset: what was fetched and not delivered is dropped. */
  moveTo(offset: number, leaderEpoch: number): void {
    this.version++;
    this.isReset = offset < 0;
    this.position = offset;
    this.fetchOffset = offset;
    this.fetchedEpoch = leaderEpoch;
    this.dropHeld();
    this.ready = [];
    this.notBefore = 0;
  }

  dropHeld(): void {
    this.held = [];
    this.heldBytes = 0;
  }

  get hasUndelivered(): boolean {
    return this.ready.length > 0 || this.held.length > 0;
  }
}

/** One broker that is being read from. */
interface Source {
  isBusy: boolean;
  /** Milliseconds that the next fetch may be held from which partitions are left out. */
  shortWaitMs: number;
  /** For answers that come early and bring nothing. */
  readonly backoff: Backoff;
}

const earliest = -2;
const latest = -1;
/** How long a broker may hold a fetch from which partitions were left out that may soon take more, at first. */
const shortWaitMs = 5;
const idleMs = 50;
const requestSlackMs = 30_000;

/**
 * Reads partitions: one fetch at a time to each broker that leads any of them, records delivered as far as they
 * were asked for. A partition whose records wait undelivered is left out until they are gone.
 */
export class Fetcher {
  readonly #view: ClusterView;
  readonly #options: FetcherOptions;
  readonly #events: FetcherEvents;
  readonly #readings = new Set<Reading>();
  readonly #sources = new Map<number, Source>();
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | null = null;
  #isDue = false;

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

  /** Takes back what was asked for and has not been delivered. */
  pause(partition: FetchedPartition): void {
    (partition as Reading).credits = 0;
  }

  /** @param offset −1: wherever `from` says */
  seek(partition: FetchedPartition, offset: number): void {
    (partition as Reading).moveTo(offset, -1);
    this.#schedule();
  }

  /** Fetches no more. What is held may still be asked for. */
  stop(): void {
    this.#closing.abort();
    clearTimeout(this.#timer ?? undefined);
    this.#timer = null;
  }

  get #isStopped(): boolean {
    return this.#closing.signal.aborted;
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
    if (this.#isStopped || this.#view.signal.aborted) return;
    const now = performance.now();
    const byLeader = new Map<number, { wanted: Reading[]; leftOut: boolean }>();
    let mustLookAgain = false;
    for (const reading of this.#readings) {
      if (reading.isOut || reading.notBefore === Infinity) continue;
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
      if (this.#takesMore(reading)) of.wanted.push(reading);
      else of.leftOut = true;
    }
    for (const [nodeId, { wanted, leftOut }] of byLeader) {
      if (wanted.length > 0 && !this.#source(nodeId).isBusy) void this.#serve(nodeId, wanted, leftOut);
    }
    if (mustLookAgain) {
      this.#timer ??= setTimeout(() => {
        this.#timer = null;
        this.#look();
      }, idleMs);
    }
  }

  /** One whose position is gone first delivers what it has: that was good when it was fetched. */
  #takesMore(reading: Reading): boolean {
    if (reading.isReset) return !reading.hasUndelivered;
    return reading.heldBytes < this.#options.prefetchBytes;
  }

  #source(nodeId: number): Source {
    let source = this.#sources.get(nodeId);
    if (source === undefined)
      this.#sources.set(nodeId, (source = { isBusy: false, shortWaitMs, backoff: new Backoff(10, 1_000) }));
    return source;
  }

  async #serve(nodeId: number, wanted: readonly Reading[], leftOut: boolean): Promise<void> {
    const source = this.#source(nodeId);
    source.isBusy = true;
    for (const reading of wanted) reading.isOut = true;
    try {
      const lost = wanted.filter(({ isReset }) => isReset);
      // A position first: nothing can be fetched without one.
      if (lost.length > 0) await this.#reset(nodeId, lost);
      else await this.#fetch(nodeId, source, wanted, leftOut);
    } catch (error) {
      if (!this.#isStopped) for (const reading of wanted) this.#later(reading, error as Error);
    }
    source.isBusy = false;
    for (const reading of wanted) reading.isOut = false;
    for (const reading of wanted) this.#deliver(reading);
    this.#schedule();
  }

  async #fetch(nodeId: number, source: Source, wanted: readonly Reading[], leftOut: boolean): Promise<void> {
    const { maxWaitMs } = this.#options;
    const waitMs = leftOut ? Math.min(source.shortWaitMs, maxWaitMs) : maxWaitMs;
    const asked = wanted.map((reading) => ({ reading, version: reading.version }));
    const since = performance.now();
    const response = await this.#ask(nodeId, wanted, waitMs);
    if (this.#take(asked, response) > 0) {
      source.backoff.reset();
      return;
    }
    // A partition that stays left out is not being read: it need not keep the others' fetches short.
    source.shortWaitMs = Math.min(source.shortWaitMs * 2, maxWaitMs);
    // Nothing, and that before the time: a broker that does not hold fetches must not be asked in a tight loop.
    if (performance.now() - since < waitMs / 2) await sleep(source.backoff.next(), this.#closing.signal);
    else source.backoff.reset();
  }

  async #ask(nodeId: number, wanted: readonly Reading[], waitMs: number): Promise<Response<typeof fetch>> {
    const { partitionBytesMax, fetchBytesMax } = this.#options;
    const connection = await this.#view.broker(nodeId, this.#options.purpose);
    const topics = new Map<string, Reading[]>();
    for (const reading of wanted) {
      const of = topics.get(reading.topic);
      if (of === undefined) topics.set(reading.topic, [reading]);
      else of.push(reading);
    }
    const hasIds = [...topics.keys()].every((topic) => this.#view.topic(topic)?.id != null);
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
          partitions: readings.map(({ partition, fetchOffset, fetchedEpoch }) => ({
            partition,
            fetchOffset,
            lastFetchedEpoch: fetchedEpoch,
            currentLeaderEpoch: this.#view.leaderOf(topic, partition)?.leaderEpoch ?? -1,
            partitionMaxBytes: partitionBytesMax,
          })),
        })),
      }),
      { timeoutMs: waitMs + requestSlackMs, versionMax: hasIds ? 17 : 12 },
    );
  }

  /** @returns how many bytes of records came */
  #take(
    asked: readonly { readonly reading: Reading; readonly version: number }[],
    response: Response<typeof fetch>,
  ): number {
    if (response.errorCode) throw new BrokerError(errorName(response.errorCode), 'Fetch');
    const answers = new Map<string, NonNullable<typeof response.responses>[number]['partitions'][number]>();
    for (const { topic, topicId, partitions } of response.responses ?? []) {
      const topicName = topic === '' ? this.#view.nameOf(topicId) : topic;
      for (const answer of partitions) answers.set(`${topicName}/${answer.partitionIndex}`, answer);
    }
    let bytes = 0;
    for (const { reading, version } of asked) {
      const answer = answers.get(`${reading.topic}/${reading.partition}`);
      if (reading.version !== version) continue;
      // A broker may leave out what has nothing new only within a session, and we have none.
      if (answer === undefined) this.#later(reading, senseless(reading, 'is not in the answer'));
      else if (answer.errorCode !== 0) this.#takeError(reading, answer.errorCode);
      else if ((answer.divergingEpoch?.endOffset ?? -1) >= 0)
        this.#goBack(reading, answer.divergingEpoch!.endOffset, answer.divergingEpoch!.epoch);
      else bytes += this.#takeBatches(reading, answer.records ?? []);
    }
    return bytes;
  }

  #takeBatches(reading: Reading, chunks: readonly Buffer[]): number {
    const bytes = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    if (bytes.length === 0) return 0;
    const before = reading.fetchOffset;
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
        if (batch.magic !== 2)
          throw new ClientError(
            'RK9204',
            `${name(reading)}: records of format ${batch.magic} at offset ${batch.baseOffset}`,
          );
        if (!batch.checkCrc()) throw new WireError('RK9102', `at offset ${batch.baseOffset}`);
        reading.fetchOffset = batch.nextOffset;
        reading.fetchedEpoch = batch.partitionLeaderEpoch;
        reading.held.push(batch);
        reading.heldBytes += batch.sizeInBytes;
      }
      if (reading.fetchOffset === before)
        throw senseless(reading, `${bytes.length} bytes, but no batch that reaches past offset ${before}`);
      reading.backoff.reset();
    } catch (error) {
      const { message } = error as Error;
      this.#later(reading, error instanceof ClientError ? error : senseless(reading, message, error));
    }
    return bytes.length;
  }

  #takeError(reading: Reading, errorCode: number): void {
    const error = errorName(errorCode);
    const failure = new BrokerError(error, `Fetch of ${name(reading)} at ${reading.fetchOffset}`);
    if (error !== 'OFFSET_OUT_OF_RANGE') return this.#later(reading, failure);
    this.#events.troubled(reading, failure);
    if (this.#options.from === 'none') reading.notBefore = Infinity;
    else reading.isReset = true;
  }

  /** The leader's log parts from what was read before this offset: records that were read are not in it any more. */
  #goBack(reading: Reading, endOffset: number, epoch: number): void {
    const offset = Math.min(endOffset, reading.fetchOffset);
    const detail = `${name(reading)}: the log has lost what was read from offset ${offset} to ${reading.fetchOffset}`;
    reading.moveTo(offset, epoch);
    this.#later(reading, new ClientError('RK9211', detail));
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
        // It may have been sought or removed meanwhile.
        if (reading === undefined || !reading.isReset || reading.isRemoved) continue;
        if (errorCode !== 0) {
          this.#later(reading, new BrokerError(errorName(errorCode), `ListOffsets of ${name(reading)}`));
          continue;
        }
        reading.moveTo(offset, -1);
      }
    }
    for (const reading of lost)
      if (reading.isReset && reading.notBefore <= performance.now())
        this.#later(reading, senseless(reading, 'is not in the answer to ListOffsets'));
  }

  #later(reading: Reading, error: Error | null): void {
    reading.notBefore = performance.now() + reading.backoff.next();
    this.#view.want([reading.topic]);
    this.#view.refreshInBackground();
    if (error !== null && !reading.isRemoved) this.#events.troubled(reading, error);
  }

  /** Hands over what is held, as far as it was asked for. */
  #deliver(reading: Reading): void {
    const wasLeftOut = !this.#takesMore(reading);
    while (reading.credits > 0 && !reading.isRemoved) {
      if (reading.ready.length === 0 && !this.#decode(reading)) break;
      const count = Math.min(reading.credits, reading.ready.length);
      const records = count === reading.ready.length ? reading.ready : reading.ready.splice(0, count);
      if (records === reading.ready) reading.ready = [];
      reading.credits -= records.length;
      reading.position = records.at(-1)!.offset + 1;
      this.#events.records(reading, records, reading.readyEpoch);
    }
    if (reading.isRemoved || reading.isOut || !this.#takesMore(reading)) return;
    if (wasLeftOut) for (const source of this.#sources.values()) source.shortWaitMs = shortWaitMs;
    this.#schedule();
  }

  /** Opens held batches until one has records that are wanted; false when none has. */
  #decode(reading: Reading): boolean {
    for (let batch = reading.held[0]; batch !== undefined; batch = reading.held[0]) {
      let records: LogRecord[];
      try {
        records = batch.isControl ? [] : recordsOf(batch);
      } catch (error) {
        // What cannot be read is not skipped: the position stays in front of it, and the owner decides.
        reading.version++;
        reading.fetchOffset = reading.position;
        reading.fetchedEpoch = -1;
        reading.dropHeld();
        this.#later(reading, senseless(reading, (error as Error).message, error));
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

/** @throws WireError, ClientError when the records are not what the batch's header says */
function recordsOf(batch: RecordBatch): LogRecord[] {
  const records = decodeRecords(batch);
  let next = batch.baseOffset;
  for (const { offset } of records) {
    if (offset < next || offset >= batch.nextOffset)
      throw new ClientError(
        'RK9211',
        `offset ${offset} in the batch of ${batch.baseOffset} to ${batch.lastOffset}`,
      );
    next = offset + 1;
  }
  return records;
}

const senseless = (reading: FetchedPartition, detail: string, cause?: unknown): ClientError =>
  new ClientError('RK9211', `${name(reading)}: ${detail}`, cause === undefined ? {} : { cause });

const name = ({ topic, partition }: FetchedPartition): string => `${topic}-${partition}`;
