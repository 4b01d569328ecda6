import { deleteRecords, ErrorCode, type ErrorName } from '@rookery/wire';
import type { Config } from '../../config.ts';
import type { ClusterImage } from '../../cluster/cluster-image.ts';
import { OffsetOutOfRange } from '../../log/log-reader.ts';
import { NotServed } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { handler, type Answer, type Handler } from '../handler.ts';

// DeleteRecords — moves the start of partitions, so that what stands before it can be read no more.
//
// Behaviour
//   · −1 means everything up to the high watermark. The answer leaves when the new start is on disk; segments
//     that are wholly before it go after file.delete.delay.ms.
//   · A topic that is only compacted keeps its records: POLICY_VIOLATION.

type PartitionAnswer = Answer<typeof deleteRecords>['topics'][number]['partitions'][number];

const everything = -1;

interface DeleteRecordsDeps {
  readonly replicas: ReplicaManager;
  readonly image: () => ClusterImage;
  readonly config: Config;
}

export function deleteRecordsHandler(deps: DeleteRecordsDeps): Handler {
  return handler<typeof deleteRecords>({
    api: deleteRecords,
    async handle({ topics }) {
      const answers = topics.map(async ({ name, partitions }) => ({
        name,
        partitions: await Promise.all(
          partitions.map(({ partitionIndex, offset }) => deleteBefore(deps, name, partitionIndex, offset)),
        ),
      }));
      return { topics: await Promise.all(answers) };
    },
  });
}

async function deleteBefore(
  { replicas, image, config }: DeleteRecordsDeps,
  name: string,
  partitionIndex: number,
  offset: number,
): Promise<PartitionAnswer> {
  const refused = (error: ErrorName): PartitionAnswer => ({
    partitionIndex,
    lowWatermark: -1,
    errorCode: ErrorCode[error],
  });
  const partition = replicas.find(name, partitionIndex);
  const topic = image().topicByName(name);
  if (partition === null || topic === undefined) return refused('UNKNOWN_TOPIC_OR_PARTITION');
  const { isCompacted, isDeleted } = config.logConfig(topic.configs);
  if (isCompacted && !isDeleted) return refused('POLICY_VIOLATION');
  if (offset < everything) return refused('OFFSET_OUT_OF_RANGE');
  try {
    partition.checkLeader(-1);
    await partition.log.deleteBefore(offset === everything ? partition.highWatermark : offset);
  } catch (error) {
    if (error instanceof NotServed) return refused(error.error);
    if (error instanceof OffsetOutOfRange) return refused('OFFSET_OUT_OF_RANGE');
    return refused('KAFKA_STORAGE_ERROR');
  }
  return { partitionIndex, lowWatermark: partition.log.logStartOffset, errorCode: ErrorCode.NONE };
}
