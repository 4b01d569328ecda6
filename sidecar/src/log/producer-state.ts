import type { RecordBatch } from '@rookery/wire';
import { assert } from '../invariant.ts';
import { AppendRefused } from './append-checks.ts';
import type { AbortedTransaction } from './transaction-index.ts';
import { decodeSnapshot, encodeSnapshot, type ProducerSnapshot } from './producer-snapshot.ts';

/** A batch that a producer sent, as far as a repetition of it can be told. */
export interface SentBatch {
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly lastOffset: number;
  readonly offsetDelta: number;
  readonly timestamp: number;
}

/** Outcome and place of a transaction that a control record ends. */
export interface TransactionEnd {
  readonly isAbort: boolean;
  readonly coordinatorEpoch: number;
}

interface Producer {
  epoch: number;
  coordinatorEpoch: number;
  lastTimestamp: number;
  /** −1 for none. */
  transactionFirstOffset: number;
  /** The last few, the newest last. */
  batches: SentBatch[];
}

/** As many requests as an idempotent producer may have in flight: a repetition is one of these. */
const batchesKept = 5;
const sequenceMax = 0x7fffffff;
/** Producers one log remembers; the one that was silent for longest is forgotten first. */
const producersMax = 100_000;

/**
 * What a log knows of its producers: which sequence number each must send next, its last batches, so that a
 * repetition is answered and not appended, and transactions that are open. All of it follows from the log;
 * snapshots only save reading it again.
 */
export class ProducerState {
  readonly #producers = new Map<number, Producer>();
  /** Open transactions by producer, in the order of their first offsets. */
  readonly #open = new Map<number, number>();
  /** Ended ones whose marker readers cannot see yet: their records are not stable either. */
  #ended: { readonly firstOffset: number; readonly lastOffset: number }[] = [];

  get size(): number {
    return this.#producers.size;
  }

  /** Where the earliest undecided transaction begins; null when there is none. */
  get firstUnstableOffset(): number | null {
    const open = this.#open.values().next().value ?? Infinity;
    const first = Math.min(open, this.#ended[0]?.firstOffset ?? Infinity);
    return first === Infinity ? null : first;
  }

  /**
   * Whether the batch comes in turn.
   *
   * @returns the batch that it repeats, null when it is new
   * @throws AppendRefused INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, DUPLICATE_SEQUENCE_NUMBER
   */
  check(batch: RecordBatch): SentBatch | null {
    const { producerId, producerEpoch, baseSequence } = batch;
    const producer = this.#producers.get(producerId);
    if (producer === undefined) return null;
    if (producerEpoch < producer.epoch) {
      throw new AppendRefused(
        'INVALID_PRODUCER_EPOCH',
        `producer ${producerId} has epoch ${producer.epoch}, the batch ${producerEpoch}`,
      );
    }
    const last = producer.batches.at(-1);
    if (producerEpoch > producer.epoch) {
      if (baseSequence === 0) return null;
      throw outOfOrder(batch, 'a new epoch begins with sequence 0');
    }
    const lastSequence = lastSequenceOf(batch);
    const repeated = producer.batches.find(
      (sent) => sent.firstSequence === baseSequence && sent.lastSequence === lastSequence,
    );
    if (repeated !== undefined) return repeated;
    // Where a marker was all so far, its epoch has begun, and so the first number is 0 as in any other.
    const next = last === undefined ? 0 : nextSequence(last.lastSequence);
    if (baseSequence === next) return null;
    throw outOfOrder(batch, `the next sequence is ${next}`);
  }

  /** Takes note of a batch of records that was appended, or read while recovering. */
  note(batch: RecordBatch): void {
    const { producerId, producerEpoch, maxTimestamp, lastOffset, lastOffsetDelta } = batch;
    assert(producerId >= 0 && !batch.isControl, 'a batch of a producer');
    const producer = this.#producer(producerId, producerEpoch);
    producer.lastTimestamp = maxTimestamp;
    producer.batches.push({
      firstSequence: batch.baseSequence,
      lastSequence: lastSequenceOf(batch),
      lastOffset,
      offsetDelta: lastOffsetDelta,
      timestamp: maxTimestamp,
    });
    if (producer.batches.length > batchesKept) producer.batches.shift();
    if (batch.isTransactional && producer.transactionFirstOffset < 0) {
      producer.transactionFirstOffset = batch.baseOffset;
      this.#open.set(producerId, batch.baseOffset);
    }
  }

  /**
   * Takes note of a marker that ended a producer's transaction.
   *
   * @returns the transaction as it must stand in the index when it was aborted, else null
   */
  end(batch: RecordBatch, { isAbort, coordinatorEpoch }: TransactionEnd): AbortedTransaction | null {
    const { producerId, producerEpoch, maxTimestamp, baseOffset } = batch;
    const producer = this.#producer(producerId, producerEpoch);
    producer.coordinatorEpoch = coordinatorEpoch;
    producer.lastTimestamp = maxTimestamp;
    const firstOffset = producer.transactionFirstOffset;
    if (firstOffset < 0) return null;
    producer.transactionFirstOffset = -1;
    this.#open.delete(producerId);
    // As the log alone tells it, whatever readers can see by now: so an index that is made again is the same.
    const lastStableOffset = this.#open.values().next().value ?? baseOffset + 1;
    this.#ended.push({ firstOffset, lastOffset: baseOffset });
    this.#ended.sort((a, b) => a.firstOffset - b.firstOffset);
    return isAbort ? { producerId, firstOffset, lastOffset: baseOffset, lastStableOffset } : null;
  }

  /** Markers below the high watermark can be seen: their transactions are decided for every reader. */
  settle(highWatermark: number): void {
    if (this.#ended.length === 0) return;
    this.#ended = this.#ended.filter(({ lastOffset }) => lastOffset >= highWatermark);
  }

  /** Forgets producers that were silent since before a time, unless they have a transaction open. */
  expire(before: number): void {
    for (const [id, { lastTimestamp, transactionFirstOffset }] of this.#producers)
      if (lastTimestamp < before && transactionFirstOffset < 0) this.#producers.delete(id);
  }

  encode(): Buffer {
    const entries: ProducerSnapshot[] = [];
    for (const [producerId, producer] of this.#producers) {
      const last = producer.batches.at(-1);
      entries.push({
        producerId,
        producerEpoch: producer.epoch,
        lastSequence: last?.lastSequence ?? -1,
        lastOffset: last?.lastOffset ?? -1,
        offsetDelta: last?.offsetDelta ?? 0,
        timestamp: producer.lastTimestamp,
        coordinatorEpoch: producer.coordinatorEpoch,
        transactionFirstOffset: producer.transactionFirstOffset,
      });
    }
    return encodeSnapshot(entries);
  }

  /** Begins again with what a snapshot says, or with nothing. */
  restore(entries: readonly ProducerSnapshot[]): void {
    this.#producers.clear();
    this.#open.clear();
    this.#ended = [];
    for (const entry of entries) {
      const { producerId, lastSequence, lastOffset, offsetDelta, timestamp, transactionFirstOffset } = entry;
      const firstSequence = sequenceMinus(lastSequence, offsetDelta);
      const last = { firstSequence, lastSequence, lastOffset, offsetDelta, timestamp };
      this.#producers.set(producerId, {
        epoch: entry.producerEpoch,
        coordinatorEpoch: entry.coordinatorEpoch,
        lastTimestamp: timestamp,
        transactionFirstOffset,
        batches: lastSequence < 0 ? [] : [last],
      });
    }
    const open = entries.filter(({ transactionFirstOffset }) => transactionFirstOffset >= 0);
    open.sort((a, b) => a.transactionFirstOffset - b.transactionFirstOffset);
    for (const { producerId, transactionFirstOffset } of open)
      this.#open.set(producerId, transactionFirstOffset);
  }

  /** Every producer, for who asks from outside. */
  describe(): ProducerSnapshot[] {
    return decodeSnapshot(this.encode())!;
  }

  /** The producer in this epoch, made or moved on to it; as the one that was heard of last. */
  #producer(producerId: number, epoch: number): Producer {
    let producer = this.#producers.get(producerId);
    if (producer === undefined) {
      producer = { epoch, coordinatorEpoch: -1, lastTimestamp: -1, transactionFirstOffset: -1, batches: [] };
      if (this.#producers.size >= producersMax) this.#forgetSilent();
    } else {
      this.#producers.delete(producerId);
    }
    this.#producers.set(producerId, producer);
    if (producer.epoch !== epoch) {
      producer.epoch = epoch;
      producer.batches = [];
    }
    return producer;
  }

  #forgetSilent(): void {
    for (const [id, { transactionFirstOffset }] of this.#producers) {
      if (transactionFirstOffset >= 0) continue;
      this.#producers.delete(id);
      return;
    }
  }
}

function lastSequenceOf({ baseSequence, lastOffsetDelta }: RecordBatch): number {
  const last = baseSequence + lastOffsetDelta;
  return last > sequenceMax ? last - sequenceMax - 1 : last;
}

const nextSequence = (sequence: number): number => (sequence === sequenceMax ? 0 : sequence + 1);

function sequenceMinus(sequence: number, delta: number): number {
  return sequence >= delta ? sequence - delta : sequence - delta + sequenceMax + 1;
}

const outOfOrder = ({ producerId, baseSequence }: RecordBatch, why: string): AppendRefused =>
  new AppendRefused('OUT_OF_ORDER_SEQUENCE_NUMBER', `producer ${producerId} sent ${baseSequence}: ${why}`);
