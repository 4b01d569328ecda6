import {
  batchHeaderSize,
  eachRecord,
  WireError,
  type ErrorName,
  type LogRecord,
  type RecordBatch,
} from '@rookery/wire';
import type { LogConfig } from '../log-config.ts';

/** A record that is to blame, by its index in the batch. */
export interface RecordError {
  readonly index: number;
  readonly message: string;
}

/** The log does not take the batch, by the name of Kafka's error. */
export class AppendRefused extends Error {
  readonly error: ErrorName;
  readonly recordErrors: readonly RecordError[] | undefined;

  constructor(error: ErrorName, detail: string, recordErrors?: readonly RecordError[]) {
    super(detail);
    this.name = 'AppendRefused';
    this.error = error;
    this.recordErrors = recordErrors;
  }
}

/** Who appends: a client, or one of the broker's own coordinators, which alone write control batches. */
export type Origin = 'client' | 'coordinator';

/**
 * Whether a batch may be appended at all, by its header; what a topic asks of the records themselves is
 * `preparation.ts`.
 *
 * @param now the broker's clock in milliseconds
 * @throws AppendRefused
 */
export function checkAppend(batch: RecordBatch, config: LogConfig, now: number, origin: Origin): void {
  const { sizeInBytes } = batch;
  if (batch.magic !== 2)
    throw new AppendRefused(
      batch.magic === 0 || batch.magic === 1 ? 'INVALID_RECORD' : 'CORRUPT_MESSAGE',
      `magic ${batch.magic}, only 2 is stored`,
    );
  if (sizeInBytes > config.maxMessageBytes) {
    throw new AppendRefused(
      'MESSAGE_TOO_LARGE',
      `a batch of ${sizeInBytes} bytes, max.message.bytes is ${config.maxMessageBytes}`,
    );
  }
  if (sizeInBytes > config.segmentBytes) {
    throw new AppendRefused(
      'RECORD_LIST_TOO_LARGE',
      `a batch of ${sizeInBytes} bytes, segment.bytes is ${config.segmentBytes}`,
    );
  }
  if (!batch.checkCrc()) throw new AppendRefused('CORRUPT_MESSAGE', 'the batch fails its CRC');
  const { recordCount, lastOffsetDelta } = batch;
  if (recordCount <= 0 || lastOffsetDelta !== recordCount - 1) {
    throw new AppendRefused(
      'INVALID_RECORD',
      `${recordCount} records with a last offset delta of ${lastOffsetDelta}`,
    );
  }
  checkNumbers(batch);
  if (origin === 'client') checkClient(batch);
  checkProducer(batch);
  checkCodec(batch);
  if (config.timestampType === 'CreateTime') checkTimestamps(batch, config, now);
}

/** The CRC is right, so a 64-bit number past 2^53 is what the producer meant: to try again would not help it. */
function checkNumbers(batch: RecordBatch): void {
  const names = ['baseOffset', 'producerId', 'baseTimestamp', 'maxTimestamp'] as const;
  for (const name of names) {
    try {
      void batch[name];
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      const isTime = name === 'baseTimestamp' || name === 'maxTimestamp';
      throw new AppendRefused(isTime ? 'INVALID_TIMESTAMP' : 'INVALID_RECORD', `${name}: ${error.message}`);
    }
  }
}

/** What only the broker itself may write. */
function checkClient(batch: RecordBatch): void {
  if (batch.isControl) throw new AppendRefused('INVALID_RECORD', 'clients may not write control batches');
  if (batch.isTransactional) throw new AppendRefused('INVALID_TXN_STATE', 'transactions are not served');
  if (batch.baseOffset !== 0)
    throw new AppendRefused('INVALID_RECORD', `a base offset of ${batch.baseOffset}`);
  if (batch.timestampType !== 'CreateTime')
    throw new AppendRefused('INVALID_TIMESTAMP', 'only the broker gives batches the time of their append');
  // With it the base timestamp is the time at which tombstones may go: compaction's to say.
  if (batch.hasDeleteHorizon) throw new AppendRefused('INVALID_RECORD', 'a batch with a delete horizon');
}

/** Either no producer, or one with an epoch and a sequence number. */
function checkProducer({ producerId, producerEpoch, baseSequence, isControl }: RecordBatch): void {
  const isWhole = producerId >= 0 && producerEpoch >= 0 && (baseSequence >= 0 || isControl);
  if (producerId === -1 || isWhole) return;
  throw new AppendRefused(
    'INVALID_RECORD',
    `producer ${producerId} with epoch ${producerEpoch} and sequence ${baseSequence}`,
  );
}

/** The fewest bytes that a record takes. */
const recordSizeMin = 7;

function checkCodec(batch: RecordBatch): void {
  const codec = batch.attributes & 0x07;
  if (codec > 4) throw new AppendRefused('UNSUPPORTED_COMPRESSION_TYPE', `codec ${codec}`);
  if (codec === 0 && batch.recordCount * recordSizeMin > batch.sizeInBytes - batchHeaderSize) {
    throw new AppendRefused('INVALID_RECORD', `${batch.recordCount} records in ${batch.sizeInBytes} bytes`);
  }
}

function checkTimestamps(batch: RecordBatch, config: LogConfig, now: number): void {
  const { timestampBeforeMaxMs: beforeMaxMs, timestampAfterMaxMs: afterMaxMs } = config;
  const problem = timestampProblem(batch.maxTimestamp, now, { beforeMaxMs, afterMaxMs });
  if (problem !== null)
    throw new AppendRefused('INVALID_TIMESTAMP', problem, untimely(batch, now, { beforeMaxMs, afterMaxMs }));
}

/** As many records as an answer names: a batch can hold millions. */
const namedMax = 100;

/** The records of a batch that are to blame, each with what is wrong with it. @throws WireError */
export function blame(
  records: Iterable<LogRecord>,
  problemOf: (record: LogRecord) => string | null,
): RecordError[] {
  const named: RecordError[] = [];
  let index = 0;
  for (const record of records) {
    const message = problemOf(record);
    if (message !== null && named.length < namedMax) named.push({ index, message });
    index++;
  }
  return named;
}

/** Which records are to blame. Nobody can tell where they are compressed, for that is not undone on the loop. */
function untimely(batch: RecordBatch, now: number, limits: TimeLimits): RecordError[] | undefined {
  if (batch.codec !== 'none') return undefined;
  try {
    return blame(eachRecord(batch), ({ timestamp }) => timestampProblem(timestamp, now, limits));
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return undefined;
  }
}

interface TimeLimits {
  readonly beforeMaxMs: number;
  readonly afterMaxMs: number;
}

/** Why a topic takes no record of this time; null when it does. */
export function timestampProblem(
  timestamp: number,
  now: number,
  { beforeMaxMs, afterMaxMs }: TimeLimits,
): string | null {
  // −1 means that the producer gave no time; Kafka lets it pass.
  if (timestamp === -1 || (now - timestamp <= beforeMaxMs && timestamp - now <= afterMaxMs)) return null;
  return `timestamp ${timestamp} is too far from the broker's ${now}`;
}
