import {
  encodeBatch,
  RecordBatch,
  type CompressionCodec,
  type ErrorName,
  type NewRecord,
} from '@rookery/wire';
import { Backoff } from './backoff.ts';
import type { Connection } from './connection.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';

/** Whoever hands in a record is told here how it went; one call, exactly once. */
export interface Receipt {
  /**
   * @param offset −1 where the broker does not say: acks=0, or a batch that it has known for long
   * @param timestamp milliseconds: the record's own, or the broker's where the topic says so
   */
  delivered(offset: number, timestamp: number): void;
  failed(error: ClientError): void;
}

/** Who an idempotent producer is to one partition's leader. */
export interface ProducerIdentity {
  readonly producerId: number;
  readonly epoch: number;
}

/** Records that will leave together, in the order in which they came. */
interface Draft {
  readonly records: NewRecord[];
  readonly receipts: Receipt[];
  sizeInBytes: number;
  readonly openedAt: number;
}

/** Records that have left together, or have tried to. */
export interface Batch {
  readonly records: readonly NewRecord[];
  /** Emptied once they have been told. */
  receipts: readonly Receipt[];
  /** Bytes that its records take of the producer's buffer. */
  readonly sizeInBytes: number;
  readonly deadline: number;
  readonly bytes: Buffer;
  /** −1 without an identity. */
  sequence: number;
  /** Which batch of the lane it is. */
  place: number;
  isOut: boolean;
  /** It may lie in the log already: a broker was sent it, and did not say. */
  outcomeUnknown: boolean;
}

export interface LaneOptions {
  readonly codec: CompressionCodec;
  readonly batchBytesMax: number;
  readonly deliveryTimeoutMs: number;
  /** Batches that may be unanswered at once: no more than the broker remembers. */
  readonly outMax: number;
  readonly isIdempotent: boolean;
  /** Bytes that are no longer waiting. */
  released(sizeInBytes: number): void;
}

const epochMax = 0x7fff;
const sequenceEnd = 0x80000000;
/** A batch expires as a whole by its oldest record, so young records do not join old ones. */
const draftAgeMaxMs = 1_000;

/**
 * The records of one partition on their way: drafts that are still to be sent, and batches that have been. What
 * must be sent again goes alone and from the front, so that nothing overtakes it. An idempotent lane numbers its
 * batches; a number that will never arrive leaves a gap that the broker would refuse for ever, so after one the
 * lane waits for its answers and begins again under the next epoch.
 */
export class ProducerLane {
  readonly topic: string;
  readonly partition: number;
  readonly #options: LaneOptions;
  #drafts: Draft[] = [];
  /** In the order of the log. */
  #batches: Batch[] = [];
  #out = 0;
  #connection: Connection | null = null;
  #identity: ProducerIdentity | null = null;
  #nextSequence = 0;
  #nextPlace = 0;
  #hasGap = false;
  readonly #backoff = new Backoff(20, 1_000);
  /** When the lane may try again. */
  notBefore = 0;

  constructor(topic: string, partition: number, options: LaneOptions) {
    this.topic = topic;
    this.partition = partition;
    this.#options = options;
  }

  get isEmpty(): boolean {
    return this.#drafts.length === 0 && this.#batches.length === 0;
  }

  /** Whether there is more than the broker has to answer first. */
  get hasMore(): boolean {
    return this.#drafts.length > 0 || this.#out < this.#batches.length;
  }

  /** Whether a batch is full: nothing is won by waiting for more records. */
  get isFull(): boolean {
    return this.#drafts.length > 1;
  }

  get needsIdentity(): boolean {
    return this.#options.isIdempotent && this.#identity === null;
  }

  append(record: NewRecord, receipt: Receipt, sizeInBytes: number, now: number): void {
    let draft = this.#drafts.at(-1);
    if (
      draft === undefined ||
      draft.sizeInBytes + sizeInBytes > this.#options.batchBytesMax ||
      now - draft.openedAt > draftAgeMaxMs
    ) {
      draft = { records: [], receipts: [], sizeInBytes: 0, openedAt: now };
      this.#drafts.push(draft);
    }
    draft.records.push(record);
    draft.receipts.push(receipt);
    draft.sizeInBytes += sizeInBytes;
  }

  /** From now on batches are numbered as this producer's. */
  identify(identity: ProducerIdentity): void {
    this.#identity = identity;
    this.#nextSequence = 0;
    this.#hasGap = false;
    for (const batch of this.#batches) this.#stamp(batch);
  }

  /** The batch that may leave on this connection now; null when it must wait for answers, or for an identity. */
  next(connection: Connection): Batch | null {
    if (this.#hasGap && !this.#closeGap()) return null;
    if (this.needsIdentity) return null;
    if (this.#out < this.#batches.length) {
      // Something has to be sent again.
      return this.#out > 0 ? null : this.#leave(this.#batches[0]!, connection);
    }
    // Two connections keep no order between them.
    if (this.#out > 0 && this.#connection !== connection) return null;
    // Counted from the oldest without an acknowledgement, not by what is out: one that is sent again may be in the
    // log already, and if it were pushed out of what the broker remembers, that could not be told any more.
    const oldest = this.#batches[0];
    if (oldest !== undefined && this.#nextPlace - oldest.place >= this.#options.outMax) return null;
    const draft = this.#drafts.shift();
    if (draft === undefined) return null;
    const batch = this.#seal(draft);
    if (batch === null) return this.next(connection);
    this.#batches.push(batch);
    return this.#leave(batch, connection);
  }

  /** @param offset −1 where it is not known */
  delivered(batch: Batch, offset: number, logAppendTime: number): void {
    this.#returned(batch);
    this.#remove(batch);
    this.#backoff.reset();
    this.#options.released(batch.sizeInBytes);
    const { receipts, records } = batch;
    batch.receipts = [];
    for (let i = 0; i < receipts.length; i++) {
      const timestamp = logAppendTime < 0 ? records[i]!.timestamp : logAppendTime;
      try {
        receipts[i]!.delivered(offset < 0 ? -1 : offset + i, timestamp);
      } catch (error) {
        surface(error);
      }
    }
  }

  /** The batch was not acknowledged: it is kept for another attempt where that may help, or fails. */
  refused(batch: Batch, error: unknown, now: number): void {
    this.#returned(batch);
    batch.outcomeUnknown ||= leavesUnknown(error);
    const verdict = judge(error, {
      isNumbered: batch.sequence >= 0,
      isFirst: batch === this.#batches[0],
      count: batch.records.length,
    });
    if (verdict === 'was delivered') return this.delivered(batch, -1, -1);
    if (verdict === 'fail') return this.#fail(batch, this.#final(error, batch.outcomeUnknown));
    if (verdict === 'number anew') this.#hasGap = true;
    // A batch without receipts has expired while it was out.
    if (batch.deadline <= now || batch.receipts.length === 0)
      return this.#fail(batch, this.#late(error, batch.outcomeUnknown));
    if (verdict === 'split') return this.#split(batch);
    this.pause(now);
  }

  /** Tells those whose time is up. What is out stays in its place, for its answer decides how to go on. */
  expire(now: number): void {
    for (const batch of this.#batches.filter(({ deadline }) => deadline <= now)) {
      if (!batch.isOut) this.#fail(batch, this.#late(null, batch.outcomeUnknown));
      else this.#tell(batch, this.#late(null, true));
    }
    while (this.#drafts.length > 0 && this.#drafts[0]!.openedAt + this.#options.deliveryTimeoutMs <= now)
      this.#drop(this.#drafts.shift()!, this.#late(null, false));
  }

  /** Waits before the next attempt. */
  pause(now: number): void {
    this.notBefore = now + this.#backoff.next();
  }

  /** Fails everything that is not out. */
  failWaiting(error: ClientError): void {
    for (const batch of this.#batches.filter(({ isOut }) => !isOut)) this.#fail(batch, error);
    for (const draft of this.#drafts.splice(0)) this.#drop(draft, error);
  }

  /** Fails everything. */
  abandon(reason: ClientError): void {
    for (const batch of this.#batches)
      this.#tell(batch, this.#final(reason, batch.isOut || batch.outcomeUnknown));
    this.failWaiting(reason);
  }

  #seal({ records, receipts, sizeInBytes, openedAt }: Draft): Batch | null {
    const { codec, deliveryTimeoutMs } = this.#options;
    const sequence = this.#identity === null ? -1 : this.#nextSequence;
    try {
      const bytes = encodeBatch(records, {
        codec,
        ...(this.#identity === null
          ? {}
          : {
              producerId: this.#identity.producerId,
              producerEpoch: this.#identity.epoch,
              baseSequence: sequence,
            }),
      });
      if (this.#identity !== null) this.#nextSequence = (sequence + records.length) % sequenceEnd;
      const deadline = openedAt + deliveryTimeoutMs;
      const place = this.#nextPlace++;
      return {
        records,
        receipts,
        sizeInBytes,
        deadline,
        bytes,
        sequence,
        place,
        isOut: false,
        outcomeUnknown: false,
      };
    } catch (error) {
      const detail = `${this.#name}: ${(error as Error).message}`;
      this.#drop(
        { records, receipts, sizeInBytes, openedAt },
        new ClientError('RK9207', detail, { cause: error }),
      );
      return null;
    }
  }

  #leave(batch: Batch, connection: Connection): Batch {
    batch.isOut = true;
    this.#out++;
    this.#connection = connection;
    return batch;
  }

  #returned(batch: Batch): void {
    batch.isOut = false;
    this.#out--;
  }

  #remove(batch: Batch): void {
    this.#batches.splice(this.#batches.indexOf(batch), 1);
  }

  /** The broker takes fewer bytes at once: two halves in its place, with the same numbers between them. */
  #split(batch: Batch): void {
    const middle = batch.records.length >> 1;
    const half = (from: number, to: number): Batch => {
      const records = batch.records.slice(from, to);
      const sequence = batch.sequence < 0 ? -1 : (batch.sequence + from) % sequenceEnd;
      const { codec } = this.#options;
      const bytes = encodeBatch(records, { codec });
      const sizeInBytes = from === 0 ? batch.sizeInBytes >> 1 : batch.sizeInBytes - (batch.sizeInBytes >> 1);
      const made = {
        ...batch,
        records,
        receipts: batch.receipts.slice(from, to),
        sizeInBytes,
        bytes,
        sequence,
        place: from === 0 ? batch.place : batch.place + 1,
      };
      if (sequence >= 0) this.#writeNumber(made);
      return made;
    };
    const at = this.#batches.indexOf(batch);
    for (const later of this.#batches.slice(at + 1)) later.place++;
    this.#nextPlace++;
    this.#batches.splice(at, 1, half(0, middle), half(middle, batch.records.length));
  }

  /** @returns whether the lane may go on at once */
  #closeGap(): boolean {
    // Answers to come may still be about the numbers given so far.
    if (this.#out > 0) return false;
    this.#hasGap = false;
    const { producerId, epoch } = this.#identity!;
    if (epoch === epochMax) {
      this.#identity = null;
      return false;
    }
    this.identify({ producerId, epoch: epoch + 1 });
    return true;
  }

  #stamp(batch: Batch): void {
    batch.sequence = this.#nextSequence;
    this.#nextSequence = (batch.sequence + batch.records.length) % sequenceEnd;
    this.#writeNumber(batch);
  }

  #writeNumber({ bytes, sequence }: Batch): void {
    const { producerId, epoch } = this.#identity!;
    RecordBatch.read(bytes, 0)!.setProducer({ producerId, producerEpoch: epoch, baseSequence: sequence });
  }

  #fail(batch: Batch, error: ClientError): void {
    this.#remove(batch);
    if (batch.sequence >= 0) this.#hasGap = true;
    this.#tell(batch, error);
    this.#options.released(batch.sizeInBytes);
  }

  #tell(batch: Batch, error: ClientError): void {
    const { receipts } = batch;
    batch.receipts = [];
    tellFailed(receipts, error);
  }

  #drop({ receipts, sizeInBytes }: Draft, error: ClientError): void {
    this.#options.released(sizeInBytes);
    tellFailed(receipts, error);
  }

  #late(cause: unknown, outcomeUnknown: boolean): ClientError {
    const why = cause === null ? '' : `: ${(cause as Error).message}`;
    const detail = `${this.#name} in ${this.#options.deliveryTimeoutMs} ms${why}`;
    return new ClientError('RK9209', detail, { ...(cause === null ? {} : { cause }), outcomeUnknown });
  }

  #final(error: unknown, outcomeUnknown: boolean): ClientError {
    if (error instanceof ClientError && error.outcomeUnknown === outcomeUnknown) return error;
    const detail = `${this.#name}: ${(error as Error).message}`;
    const options = { cause: error, outcomeUnknown };
    if (error instanceof BrokerError) return new BrokerError(error.error, detail, options);
    return new ClientError(error instanceof ClientError ? error.code : 'RK9202', detail, options);
  }

  get #name(): string {
    return `${this.topic}-${this.partition}`;
  }
}

function tellFailed(receipts: readonly Receipt[], error: ClientError): void {
  for (const receipt of receipts) {
    try {
      receipt.failed(error);
    } catch (thrown) {
      surface(thrown);
    }
  }
}

/** What a receipt throws is its owner's mistake: it comes up as one, and the records behind it are told all the same. */
function surface(error: unknown): void {
  process.nextTick(() => {
    throw error;
  });
}

/** Whether the batch may be in the log although it was not acknowledged. */
function leavesUnknown(error: unknown): boolean {
  if (!(error instanceof BrokerError)) return error instanceof ClientError && error.outcomeUnknown;
  return error.error === 'NOT_ENOUGH_REPLICAS_AFTER_APPEND' || error.error === 'REQUEST_TIMED_OUT';
}

type Verdict = 'was delivered' | 'again' | 'number anew' | 'split' | 'fail';

/** What to do with a batch that was not acknowledged. Source of the rules for numbered ones: Kafka's producer. */
function judge(
  error: unknown,
  batch: { readonly isNumbered: boolean; readonly isFirst: boolean; readonly count: number },
): Verdict {
  const refusal: ErrorName | null = error instanceof BrokerError ? error.error : null;
  switch (refusal) {
    case 'MESSAGE_TOO_LARGE':
    case 'RECORD_LIST_TOO_LARGE':
      return batch.count > 1 ? 'split' : 'fail';
    case 'DUPLICATE_SEQUENCE_NUMBER':
      // It was appended so long ago that the broker has forgotten where.
      return batch.isNumbered ? 'was delivered' : 'fail';
    case 'OUT_OF_ORDER_SEQUENCE_NUMBER':
      if (!batch.isNumbered) return 'fail';
      // Behind one that has not arrived either it only has to wait; in front there is nothing to wait for.
      return batch.isFirst ? 'number anew' : 'again';
    case 'UNKNOWN_PRODUCER_ID':
      return batch.isNumbered ? 'number anew' : 'fail';
    default:
      return isRetriableError(error) ? 'again' : 'fail';
  }
}
