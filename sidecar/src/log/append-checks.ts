import { batchHeaderSize, eachRecord, type ErrorName, type RecordBatch } from '@rookery/wire';
import type { LogConfig } from '../log-config.ts';

/** The log does not take the batch, by the name of Kafka's error. */
export class AppendRefused extends Error {
  readonly error: ErrorName;
  /** Records that are to blame, by their index in the batch. */
  readonly recordErrors: readonly { readonly index: number; readonly message: string }[] | undefined;

  constructor(
    error: ErrorName,
    detail: string,
    recordErrors?: readonly { index: number; message: string }[],
  ) {
    super(detail);
    this.name = 'AppendRefused';
    this.error = error;
    this.recordErrors = recordErrors;
  }
}

/** Who appends: a client, or one of the broker's own coordinators, which alone write control batches. */
export type Origin = 'client' | 'coordinator';

/**
 * Whether a batch may be appended at all. Only the header is looked at, but for compacted topics,
 * whose records must have keys.
 *
 * @param now the broker's clock in milliseconds
 * @throws AppendRefused
 */
export function checkAppend(batch: RecordBatch, config: LogConfig, now: number, origin: Origin): void {
  const { sizeInBytes } = batch;
  if (batch.magic !== 2)
    throw new AppendRefused('UNSUPPORTED_FOR_MESSAGE_FORMAT', `magic ${batch.magic}, only 2 is stored`);
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
  if (origin === 'client') {
    if (batch.isControl) throw new AppendRefused('INVALID_RECORD', 'clients may not write control batches');
    if (batch.isTransactional) throw new AppendRefused('INVALID_TXN_STATE', 'transactions are not served');
  }
  checkProducer(batch);
  checkCodec(batch);
  if (config.timestampType === 'CreateTime') checkTimestamps(batch, config, now);
  if (config.isCompacted) checkKeys(batch);
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
  const { maxTimestamp } = batch;
  const early = now - maxTimestamp > config.timestampBeforeMaxMs;
  const late = maxTimestamp - now > config.timestampAfterMaxMs;
  // −1 means that the producer gave no time; Kafka lets it pass.
  if (maxTimestamp === -1 || !(early || late)) return;
  throw new AppendRefused(
    'INVALID_TIMESTAMP',
    `timestamp ${maxTimestamp} is too far from the broker's ${now}`,
  );
}

/** As many records as an answer names: a batch can hold millions. */
const namedMax = 100;

function checkKeys(batch: RecordBatch): void {
  const unkeyed: { index: number; message: string }[] = [];
  let index = 0;
  for (const { key } of eachRecord(batch)) {
    if (key === null && unkeyed.length < namedMax) {
      unkeyed.push({ index, message: 'a compacted topic needs a key' });
    }
    index++;
  }
  if (unkeyed.length > 0) {
    throw new AppendRefused(
      'INVALID_RECORD',
      'one or more records have no key, which a compacted topic needs',
      unkeyed,
    );
  }
}
