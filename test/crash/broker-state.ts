import { FileMetaStore } from '@rookery/sidecar/rooms/cluster/file-meta-store';
import { ProducerIds } from '@rookery/sidecar/rooms/cluster/producer-ids';
import { Config } from '@rookery/sidecar/rooms/config';
import { EventBus } from '@rookery/sidecar/rooms/events';
import { GroupCoordinator } from '@rookery/sidecar/rooms/groups/group-coordinator';
import type { OffsetsPartition } from '@rookery/sidecar/rooms/groups/group-shard';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { ManualClock } from '@rookery/sidecar/rooms/manual-clock';
import type { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { RecordBatch, type ErrorName } from '@rookery/wire';
import { dataDirectory, Machine } from './machine.ts';

const offsetsTopic = '__consumer_offsets';

/** As the broker keeps it, with segments so small that commits roll and are compacted. */
const config: LogConfig = {
  ...new Config({}).logConfig({}),
  segmentBytes: 1_500,
  indexIntervalBytes: 300,
  fileDeleteDelayMs: 700,
  flushMode: 'sync',
  isCompacted: true,
  isDeleted: false,
  minCleanableDirtyRatio: 0.01,
  deleteRetentionMs: 1_000,
};

const settings = {
  partitions: 1,
  sessionTimeoutMinMs: 6_000,
  sessionTimeoutMaxMs: 1_800_000,
  sizeMax: 100,
  initialDelayMs: 0,
  metadataBytesMax: 4_096,
  retentionMs: 1e12,
  retentionCheckMs: 1e12,
};

/** A broker as far as it knows anything that is not a record: the metadata journal, producer ids, groups. */
export class StatefulBroker {
  readonly machine: Machine;
  readonly store: FileMetaStore;
  readonly #ids: ProducerIds;
  readonly #groups: GroupCoordinator;

  private constructor(machine: Machine, store: FileMetaStore) {
    this.machine = machine;
    this.store = store;
    this.#ids = new ProducerIds(store);
    this.#groups = new GroupCoordinator({
      settings,
      clock: machine.clock,
      events: new EventBus(),
      partition: async () => offsetsPartition(machine),
      topicName: () => undefined,
      topicId: () => undefined,
      hasPartition: () => true,
    });
  }

  static async boot(disk: MemoryFileSystem, now: number): Promise<StatefulBroker> {
    const clock = new ManualClock({ now });
    const machine = await Machine.boot(disk, () => config, clock);
    if (machine.log(offsetsTopic) === undefined) machine.create(offsetsTopic);
    const opening = FileMetaStore.open(disk, `${dataDirectory}/metadata.journal`, clock);
    return new StatefulBroker(machine, await finished(machine, opening));
  }

  nextProducerId(): Promise<number> {
    return this.#ids.next();
  }

  /** Whether the commit was acknowledged. */
  async commit(group: string, partition: number, offset: number): Promise<boolean> {
    const partitions = [
      { partitionIndex: partition, committedOffset: offset, committedLeaderEpoch: -1, committedMetadata: '' },
    ];
    const asked = { groupId: group, generationIdOrMemberEpoch: -1, memberId: '', groupInstanceId: null };
    const topics = [{ name: 'orders', partitions }];
    const answer = await this.#groups.offsetCommit({ ...asked, topics } as never, { version: 7 });
    return [...answer.topics][0]!.partitions[0]!.errorCode === 0;
  }

  /** −1 where nothing is known. */
  async committed(group: string, partition: number): Promise<number> {
    const topics = [{ name: 'orders', partitionIndexes: [partition] }];
    const asked = { groupId: group, topics, requireStable: false };
    const answer = await this.finish(this.#groups.offsetFetch(asked as never, { version: 7 }));
    return [...answer.topics!][0]!.partitions[0]!.committedOffset;
  }

  finish<T>(work: Promise<T>): Promise<T> {
    return finished(this.machine, work);
  }
}

/** Lets turns and syncs go on until the work is done. */
async function finished<T>(machine: Machine, work: Promise<T>): Promise<T> {
  let isDone = false;
  work.then(
    () => (isDone = true),
    () => (isDone = true),
  );
  do await machine.settle();
  while (!isDone);
  return work;
}

function offsetsPartition(machine: Machine): OffsetsPartition {
  const log = machine.log(offsetsTopic)!;
  const waiting: { readonly end: number; readonly resolve: (error: ErrorName | null) => void }[] = [];
  const follow = log.onDurable;
  log.onDurable = () => {
    follow();
    while (waiting.length > 0 && waiting[0]!.end <= log.durableEndOffset) waiting.shift()!.resolve(null);
  };
  return {
    append: (batch) =>
      new Promise((resolve) => {
        const { lastOffset } = log.appendAsLeader(RecordBatch.split([batch]), 0, 'coordinator');
        waiting.push({ end: lastOffset + 1, resolve });
      }),
    readAll: (take) => log.readChecked(log.highWatermark, take),
  };
}
