import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeRecords, RecordBatch, type LogRecord } from '@rookery/wire';

/** The batches of a partition as they lie on disk, closed segments and the active one. */
export async function batchesOnDisk(dataDir: string, topic: string, partition = 0): Promise<RecordBatch[]> {
  const batches: RecordBatch[] = [];
  for (const segment of await segmentFiles(dataDir, topic, partition))
    batches.push(...RecordBatch.split([await readFile(segment)]));
  return batches;
}

export const recordsOnDisk = async (dataDir: string, topic: string, partition = 0): Promise<LogRecord[]> =>
  (await batchesOnDisk(dataDir, topic, partition)).flatMap((batch) => decodeRecords(batch));

/** The `.log` files of a partition, oldest first. */
export async function segmentFiles(dataDir: string, topic: string, partition = 0): Promise<string[]> {
  const directory = join(dataDir, `${topic}-${partition}`);
  const names = (await readdir(directory)).filter((name) => name.endsWith('.log')).sort();
  return names.map((name) => join(directory, name));
}
