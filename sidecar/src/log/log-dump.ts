import { batchHeaderSize, batchOverhead, RecordBatch, WireError } from '@rookery/wire';
import { readFile, type File, type FileSystem } from '../vfs/file-system.ts';
import { decodeSnapshot } from './producer-snapshot.ts';

/** What is in a file of a log, a line each; of a broken one as much as can be read. Null when there is no file. */
export function dump(fs: FileSystem, path: string): Iterable<string> | null {
  if (!fs.exists(path)) return null;
  const name = path.slice(path.lastIndexOf('/') + 1).replace(/\.(swap|cleaned|deleted)$/, '');
  const base = Number(/^\d{20}/.exec(name)?.[0] ?? 0);
  if (name.endsWith('.log')) return batches(fs, path);
  const bytes = readFile(fs, path)!;
  if (name.endsWith('.index'))
    return entries(bytes, 8, (e) => `offset ${base + e.readInt32BE(0)} position ${e.readInt32BE(4)}`);
  if (name.endsWith('.timeindex'))
    return entries(bytes, 12, (e) => `timestamp ${e.readBigInt64BE(0)} offset ${base + e.readInt32BE(8)}`);
  if (name.endsWith('.txnindex')) {
    return entries(
      bytes,
      34,
      (e) =>
        `producerId ${e.readBigInt64BE(2)} firstOffset ${e.readBigInt64BE(10)} lastOffset ${e.readBigInt64BE(18)} lastStableOffset ${e.readBigInt64BE(26)}`,
    );
  }
  if (name.endsWith('.snapshot')) return snapshot(bytes);
  return bytes.toString('utf8').trimEnd().split('\n');
}

function* entries(bytes: Buffer, size: number, say: (entry: Buffer) => string): Generator<string> {
  let at = 0;
  for (; at + size <= bytes.length; at += size) yield say(bytes.subarray(at, at + size));
  if (at < bytes.length) yield `! ${bytes.length - at} bytes at position ${at} are no whole entry`;
}

function* snapshot(bytes: Buffer): Generator<string> {
  const producers = decodeSnapshot(bytes);
  if (producers === null) return yield `! ${bytes.length} bytes are no whole snapshot`;
  for (const producer of producers)
    yield Object.entries(producer)
      .map(([name, value]) => `${name} ${value}`)
      .join(' ');
}

function* batches(fs: FileSystem, path: string): Generator<string> {
  const log = fs.open(path, 'read');
  try {
    const size = log.size();
    let position = 0;
    while (position < size) {
      const line = batchAt(log, position, size);
      yield `position ${position} ${line.text}`;
      if (line.sizeInBytes === null) return yield `! ${size - position} bytes from there on are no batch`;
      position += line.sizeInBytes;
    }
  } finally {
    log.release();
  }
}

function batchAt(log: File, position: number, size: number): { text: string; sizeInBytes: number | null } {
  const header = Buffer.alloc(batchHeaderSize);
  const read = log.readNow(header, position);
  const length = batchOverhead + (read >= batchOverhead ? header.readInt32BE(8) : 0);
  if (length < batchHeaderSize || position + length > size)
    return { text: `! a batch of ${length} bytes does not fit`, sizeInBytes: null };
  const bytes = Buffer.alloc(length);
  log.readNow(bytes, position);
  try {
    const [batch] = RecordBatch.split([bytes]) as [RecordBatch];
    const { baseOffset, lastOffset, recordCount, partitionLeaderEpoch, maxTimestamp, producerId } = batch;
    const kinds = [batch.isTransactional ? 'transactional' : '', batch.isControl ? 'control' : ''];
    const words = [
      `baseOffset ${baseOffset} lastOffset ${lastOffset} records ${recordCount}`,
      `size ${length} epoch ${partitionLeaderEpoch} maxTimestamp ${maxTimestamp}`,
      `producerId ${producerId} epoch ${batch.producerEpoch} sequence ${batch.baseSequence}`,
      ...kinds.filter((kind) => kind !== ''),
      batch.magic === 2 && batch.checkCrc() ? 'crc ok' : '! crc WRONG',
    ];
    return { text: words.join(' '), sizeInBytes: length };
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    return { text: `! ${error.message}`, sizeInBytes: length };
  }
}
