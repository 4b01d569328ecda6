import { RecordBatch, type ErrorName } from '@rookery/wire';
import { TopicRefused, type Topics } from '../cluster/topics.ts';
import { AppendRefused } from '../log/append-checks.ts';
import { NotServed, type Partition } from '../replication/partition.ts';
import type { ReplicaManager } from '../replication/replica-manager.ts';
import type { OffsetsPartition } from './group-shard.ts';

export const offsetsTopic = '__consumer_offsets';

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
    return {
      append: (batch) => append(led, batch),
      readAll: (take) => led.log.readChecked(led.highWatermark, take),
    };
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
