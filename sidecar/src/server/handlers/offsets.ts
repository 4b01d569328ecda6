import { ErrorCode, listOffsets, offsetForLeaderEpoch, type Request } from '@rookery/wire';
import { Quarantined } from '../../log/log-reader.ts';
import { NotServed, type Partition } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { isSystemError } from '../../vfs/file-system.ts';
import { handler, type Answer, type Handler } from '../handler.ts';

// ListOffsets — where a partition begins and ends, and where a time is in it.
//
// Behaviour
//   · −1 is the high watermark (read_committed: the last stable offset), −2 the log start; a time finds the first record at or after it, decoding only
//     the one batch that holds it; nothing found is offset −1.
//   · Nothing is tiered: the earliest local offset (−4) is the log start, the tiered ones (−5, −6) are −1.
// Version notes
//   v4 checks the leader epoch · v7 −3, the record with the largest timestamp · v8 −4 · v9 −5 · v11 −6.

const readCommitted = 1;
const latest = -1;
const earliest = -2;
const maxTimestamp = -3;
const earliestLocal = -4;
const latestTiered = -5;
const earliestPendingUpload = -6;
/** From which version on a number below 0 may stand for a place; no other one may at all. */
const placeSince: Readonly<Record<number, number>> = {
  [latest]: 1,
  [earliest]: 1,
  [maxTimestamp]: 7,
  [earliestLocal]: 8,
  [latestTiered]: 9,
  [earliestPendingUpload]: 11,
};

interface Found {
  readonly timestamp: number;
  readonly offset: number;
  readonly leaderEpoch: number;
}

const nothing: Found = { timestamp: -1, offset: -1, leaderEpoch: -1 };

export function listOffsetsHandler(deps: { replicas: ReplicaManager }): Handler {
  type PartitionAnswer = NonNullable<Answer<typeof listOffsets>['topics']>[number]['partitions'][number];
  const find = async (
    name: string,
    asked: Request<typeof listOffsets>['topics'][number]['partitions'][number],
    isolationLevel: number,
    version: number,
  ): Promise<PartitionAnswer> => {
    const { partitionIndex } = asked;
    const refused = (errorCode: number): PartitionAnswer => ({ partitionIndex, errorCode, ...nothing });
    const partition = deps.replicas.find(name, partitionIndex);
    if (partition === null) return refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
    // Taken for a time, an unknown place would send its reader to the beginning without a word.
    if (asked.timestamp < 0 && version < (placeSince[asked.timestamp] ?? Infinity))
      return refused(ErrorCode.UNSUPPORTED_VERSION);
    try {
      partition.checkLeader(asked.currentLeaderEpoch);
      const found = await lookUp(partition, asked.timestamp, isolationLevel === readCommitted);
      return { partitionIndex, errorCode: 0, ...found };
    } catch (error) {
      if (error instanceof NotServed) return refused(ErrorCode[error.error]);
      if (error instanceof Quarantined || isSystemError(error)) return refused(ErrorCode.KAFKA_STORAGE_ERROR);
      throw error;
    }
  };
  return handler<typeof listOffsets>({
    api: listOffsets,
    async handle(request, { version }) {
      const { isolationLevel } = request;
      const topics = request.topics.map(async ({ name, partitions }) => ({
        name,
        partitions: await Promise.all(partitions.map((asked) => find(name, asked, isolationLevel, version))),
      }));
      return { topics: await Promise.all(topics) };
    },
  });
}

async function lookUp(partition: Partition, timestamp: number, isCommitted: boolean): Promise<Found> {
  const { log, highWatermark, lastStableOffset } = partition;
  const end = isCommitted ? lastStableOffset : highWatermark;
  switch (timestamp) {
    case latest:
      return { timestamp: -1, offset: end, leaderEpoch: log.latestEpoch };
    case earliest:
    case earliestLocal:
      return { timestamp: -1, offset: log.logStartOffset, leaderEpoch: log.epochOf(log.logStartOffset) };
    case latestTiered:
    case earliestPendingUpload:
      return nothing;
    default: {
      const found =
        timestamp === maxTimestamp
          ? await log.offsetOfMaxTimestamp()
          : await log.offsetForTimestamp(timestamp);
      return found === null || found.offset >= end ? nothing : found;
    }
  }
}

// OffsetForLeaderEpoch — where an epoch ended, so that a client whose epoch is old finds out what was cut off.

export function offsetForLeaderEpochHandler(deps: { replicas: ReplicaManager }): Handler {
  return handler<typeof offsetForLeaderEpoch>({
    api: offsetForLeaderEpoch,
    handle: (request) => ({
      topics: request.topics.map(({ topic, partitions }) => ({
        topic,
        partitions: partitions.map(({ partition: index, currentLeaderEpoch, leaderEpoch }) => {
          const refused = (errorCode: number) => ({
            partition: index,
            errorCode,
            leaderEpoch: -1,
            endOffset: -1,
          });
          const partition = deps.replicas.find(topic, index);
          if (partition === null) return refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
          try {
            partition.checkLeader(currentLeaderEpoch);
          } catch (error) {
            if (error instanceof NotServed) return refused(ErrorCode[error.error]);
            throw error;
          }
          return { partition: index, errorCode: 0, ...partition.log.endOffsetForEpoch(leaderEpoch) };
        }),
      })),
    }),
  });
}
