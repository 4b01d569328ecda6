import { RecordBatch, type ByteSpan, type ErrorName } from '@rookery/wire';
import { TopicRefused, type Topics } from '../cluster/topics.ts';
import { AppendRefused } from '../log/append-checks.ts';
import { NotServed, type Partition } from '../replication/partition.ts';
import type { ReplicaManager } from '../replication/replica-manager.ts';
import type { FileRegion } from '../vfs/file-region.ts';
import type { OffsetsPartition } from './group-shard.ts';

export const offsetsTopic = '__consumer_offsets';

/** Bytes read at once while a partition is loaded. */
const readBytes = 1024 * 1024;
const allInSyncReplicas = -1;

/** `__consumer_offsets` as the coordinator needs it: made with the first group, read whole, appended to. */
export class OffsetsTopic {
  readonly #topics: Topics;
  readonly #replicas: ReplicaManager;

  constructor(topics: Topics, replicas: ReplicaManager) {
    this.#topics = topics;
    this.#replicas = replicas;
  }

  /** Null when the partition is not led here. */
  async partition(index: number): Promise<OffsetsPartition | null> {
    let partition = this.#replicas.find(offsetsTopic, index);
    if (partition === null) {
      await this.#make();
      partition = this.#replicas.find(offsetsTopic, index);
    }
    if (partition === null || !partition.role.isLeader) return null;
    const led = partition;
    return { append: (batch) => append(led, batch), readAll: () => readAll(led) };
  }

  async #make(): Promise<void> {
    try {
      await this.#topics.create({ name: offsetsTopic });
    } catch (error) {
      // Two groups may be the first at once.
      if (!(error instanceof TopicRefused && error.error === 'TOPIC_ALREADY_EXISTS')) throw error;
    }
  }
}

function append(partition: Partition, batch: Buffer): Promise<ErrorName | null> {
  return new Promise((resolve, reject) => {
    try {
      const { lastOffset } = partition.appendAsLeader(RecordBatch.split([batch]), allInSyncReplicas);
      partition.whenCommitted(lastOffset, resolve);
    } catch (error) {
      if (error instanceof NotServed) resolve(error.error);
      else if (error instanceof AppendRefused) resolve(error.error ?? 'INVALID_RECORD');
      else reject(error as Error);
    }
  });
}

async function* readAll(partition: Partition): AsyncGenerator<RecordBatch> {
  let offset = partition.log.logStartOffset;
  const end = partition.highWatermark;
  while (offset < end) {
    const { spans } = partition.read({
      offset,
      maxBytes: readBytes,
      atLeastOne: true,
      currentLeaderEpoch: -1,
    });
    const bytes = Buffer.concat(spans.map(take));
    let position = 0;
    // The last batch may be cut by the size of the read; the next read begins with it.
    for (let batch = RecordBatch.read(bytes, 0); batch !== null; batch = RecordBatch.read(bytes, position)) {
      yield batch;
      position += batch.sizeInBytes;
      offset = batch.nextOffset;
    }
    if (position === 0) return;
  }
}

function take(span: ByteSpan): Buffer {
  if (span instanceof Uint8Array) return span as Buffer;
  const region = span as FileRegion;
  try {
    return region.readNow();
  } finally {
    region.release();
  }
}
