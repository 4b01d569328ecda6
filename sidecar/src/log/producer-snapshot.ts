import { crc32c } from '@rookery/wire';
import { readFile, writeAtomically, type FileSystem } from '../vfs/file-system.ts';
import { readInt64, writeInt64 } from './int64.ts';

/**
 * A log's producers as of an offset, in Kafka's form: `version:i16 crc:u32 count:i32`, then an entry a
 * producer. The CRC-32C covers what follows it. docs/format/producer-snapshot.md.
 */
export interface ProducerSnapshot {
  readonly producerId: number;
  readonly producerEpoch: number;
  readonly lastSequence: number;
  readonly lastOffset: number;
  /** From the first to the last offset of the last batch. */
  readonly offsetDelta: number;
  readonly timestamp: number;
  readonly coordinatorEpoch: number;
  /** Where the open transaction began; −1 for none. */
  readonly transactionFirstOffset: number;
}

const version = 1;
const crcAt = 2;
const countAt = 6;
const headerSize = 10;
const entrySize = 46;
export const snapshotSuffix = '.snapshot';

export const snapshotPath = (directory: string, offset: number): string =>
  `${directory}/${String(offset).padStart(20, '0')}${snapshotSuffix}`;

/** Offsets of the snapshots in a directory, the newest first. */
export function snapshotOffsets(names: readonly string[]): number[] {
  return names
    .filter((name) => /^\d{20}\.snapshot$/.test(name))
    .map((name) => Number(name.slice(0, -snapshotSuffix.length)))
    .sort((a, b) => b - a);
}

export function encodeSnapshot(producers: readonly ProducerSnapshot[]): Buffer {
  const bytes = Buffer.alloc(headerSize + producers.length * entrySize);
  bytes.writeInt16BE(version, 0);
  bytes.writeInt32BE(producers.length, countAt);
  producers.forEach((producer, i) => {
    const at = headerSize + i * entrySize;
    writeInt64(bytes, at, producer.producerId);
    bytes.writeInt16BE(producer.producerEpoch, at + 8);
    bytes.writeInt32BE(producer.lastSequence, at + 10);
    writeInt64(bytes, at + 14, producer.lastOffset);
    bytes.writeInt32BE(producer.offsetDelta, at + 22);
    writeInt64(bytes, at + 26, producer.timestamp);
    bytes.writeInt32BE(producer.coordinatorEpoch, at + 34);
    writeInt64(bytes, at + 38, producer.transactionFirstOffset);
  });
  bytes.writeUInt32BE(crc32c([bytes.subarray(countAt)]), crcAt);
  return bytes;
}

/** Null for bytes that are no snapshot: an older one and more of the log tell the same. */
export function decodeSnapshot(bytes: Buffer): ProducerSnapshot[] | null {
  if (bytes.length < headerSize || bytes.readInt16BE(0) !== version) return null;
  const count = bytes.readInt32BE(countAt);
  if (count < 0 || bytes.length !== headerSize + count * entrySize) return null;
  if (bytes.readUInt32BE(crcAt) !== crc32c([bytes.subarray(countAt)])) return null;
  return Array.from({ length: count }, (_, i) => {
    const at = headerSize + i * entrySize;
    return {
      producerId: readInt64(bytes, at),
      producerEpoch: bytes.readInt16BE(at + 8),
      lastSequence: bytes.readInt32BE(at + 10),
      lastOffset: readInt64(bytes, at + 14),
      offsetDelta: bytes.readInt32BE(at + 22),
      timestamp: readInt64(bytes, at + 26),
      coordinatorEpoch: bytes.readInt32BE(at + 34),
      transactionFirstOffset: readInt64(bytes, at + 38),
    };
  });
}

export function readSnapshot(fs: FileSystem, directory: string, offset: number): ProducerSnapshot[] | null {
  const bytes = readFile(fs, snapshotPath(directory, offset));
  return bytes === null ? null : decodeSnapshot(bytes);
}

export const writeSnapshot = (
  fs: FileSystem,
  directory: string,
  offset: number,
  bytes: Buffer,
): Promise<void> => writeAtomically(fs, snapshotPath(directory, offset), bytes);
