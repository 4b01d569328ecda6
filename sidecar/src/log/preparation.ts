import {
  decompressedMax,
  eachRecord,
  RecordBatch,
  recompressBatch,
  WireError,
  type CompressionCodec,
} from '@rookery/wire';
import type { LogConfig } from '../log-config.ts';
import { AppendRefused, blame, timestampProblem } from './append-checks.ts';

/**
 * What a topic asks of a batch's records before the batch may be appended: plain values, so that another thread
 * can see to it.
 */
export interface Demand {
  /** The codec that the records must be in; null leaves them as they came. */
  readonly codec: CompressionCodec | null;
  readonly level: number | null;
  readonly needsKeys: boolean;
  /** The first and the last time that a record may carry; null where the broker gives the time. */
  readonly times: {
    readonly nowMs: number;
    readonly beforeMaxMs: number;
    readonly afterMaxMs: number;
  } | null;
  /** The most bytes that the records may decompress to. */
  readonly decompressedMax: number;
}

/** Sees to a demand. @throws AppendRefused */
export type Prepare = (batch: RecordBatch, demand: Demand) => Promise<RecordBatch>;

/** Whether batches of such a topic can have anything to prepare: most have not, and go by on this alone. */
export function looksIntoRecords(config: LogConfig): boolean {
  if (config.isInternal) return false;
  return config.compressionType !== 'producer' || config.isCompacted || limitsEarliest(config);
}

/** Kafka's default is the largest 64-bit number: no limit. The latest time is in the header. */
const limitsEarliest = ({ timestampType, timestampBeforeMaxMs }: LogConfig): boolean =>
  timestampType === 'CreateTime' && timestampBeforeMaxMs <= Number.MAX_SAFE_INTEGER;

/**
 * What the topic asks of this batch; null when it may be appended as it came.
 *
 * @param batch one that has passed `checkAppend`
 * @param now the broker's clock in milliseconds
 */
export function demandOf(batch: RecordBatch, config: LogConfig, now: number): Demand | null {
  const codec = codecToBe(batch, config);
  const asksForTimes = limitsEarliest(config);
  if (codec === null && !config.isCompacted && !asksForTimes) return null;
  return {
    codec,
    level: config.compressionLevel,
    needsKeys: config.isCompacted,
    times:
      config.timestampType === 'LogAppendTime'
        ? null
        : {
            nowMs: now,
            beforeMaxMs: config.timestampBeforeMaxMs,
            afterMaxMs: config.timestampAfterMaxMs,
          },
    // What is stored as it comes out of its codec would be too large for the log before it is for memory.
    decompressedMax: codec === 'none' ? Math.min(config.maxMessageBytes, decompressedMax) : decompressedMax,
  };
}

/** As Kafka does: what is in the right codec already keeps the level that its producer chose. */
function codecToBe({ codec }: RecordBatch, { compressionType }: LogConfig): CompressionCodec | null {
  if (compressionType === 'producer') return null;
  const wanted = compressionType === 'uncompressed' ? 'none' : compressionType;
  return wanted === codec ? null : wanted;
}

/** What may be decompressed and walked between two turns of the event loop. */
const loopBytesMax = 16 * 1024;
const loopDecompressedMax = 64 * 1024;

/**
 * Sees to a demand here and now if that is a trifle.
 *
 * @returns null when it is not: then it is another thread's work
 * @throws AppendRefused
 */
export function prepareAtOnce(batch: RecordBatch, demand: Demand): RecordBatch | null {
  if (demand.codec !== null || batch.sizeInBytes > loopBytesMax) return null;
  try {
    checkRecords(batch, demand, loopDecompressedMax);
  } catch (error) {
    if (error instanceof WireError && error.code === 'RK9105') return null;
    throw refusalOf(error);
  }
  return batch;
}

/**
 * The batch as the topic wants it: the same one when only its records had to be looked at. All records are walked
 * in any case, since nobody will look at them again before they are read.
 *
 * @throws AppendRefused
 */
export function prepare(batch: RecordBatch, demand: Demand): RecordBatch {
  const { codec, level } = demand;
  try {
    if (codec === null) {
      checkRecords(batch, demand, demand.decompressedMax);
      return batch;
    }
    const plain = read(recompressBatch(batch, 'none', { outputMax: demand.decompressedMax }));
    checkRecords(plain, demand, demand.decompressedMax);
    return codec === 'none' ? plain : read(recompressBatch(plain, codec, { level }));
  } catch (error) {
    throw refusalOf(error);
  }
}

const read = (bytes: Buffer): RecordBatch => RecordBatch.split([bytes])[0]!;

/** @throws AppendRefused, WireError for records that are none */
function checkRecords(batch: RecordBatch, { needsKeys, times }: Demand, outputMax: number): void {
  let isUntimely = false;
  const named = blame(eachRecord(batch, outputMax), ({ key, timestamp }) => {
    if (needsKeys && key === null) return 'a compacted topic needs a key';
    if (times === null) return null;
    const problem = timestampProblem(timestamp, times.nowMs, times);
    isUntimely ||= problem !== null;
    return problem;
  });
  if (named.length === 0) return;
  // Kafka's order: one wrong time gives the whole answer its name.
  const [error, what] = isUntimely
    ? (['INVALID_TIMESTAMP', 'are too far from the broker’s clock'] as const)
    : (['INVALID_RECORD', 'have no key, which a compacted topic needs'] as const);
  throw new AppendRefused(error, `one or more records ${what}`, named);
}

/** The batch passed its CRC, so what is wrong with it is its producer's doing and comes back with every retry. */
function refusalOf(error: unknown): unknown {
  if (!(error instanceof WireError)) return error;
  return new AppendRefused(error.code === 'RK9105' ? 'MESSAGE_TOO_LARGE' : 'INVALID_RECORD', error.message);
}
