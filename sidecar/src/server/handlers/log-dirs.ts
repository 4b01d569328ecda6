import { describeLogDirs, ErrorCode } from '@rookery/wire';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { handler, type Handler } from '../handler.ts';

// DescribeLogDirs — what lies in the data directory: the bytes of every partition, and how much room is left.
//
// Behaviour
//   · There is one directory. How large its disk is as a whole is nobody's business but the operator's: −1.
//   · Partitions that are not here are left out, as Kafka leaves them out.

interface LogDirsDeps {
  readonly replicas: ReplicaManager;
  readonly dataDir: string;
  readonly freeBytes: () => number;
}

export function describeLogDirsHandler({ replicas, dataDir, freeBytes }: LogDirsDeps): Handler {
  return handler<typeof describeLogDirs>({
    api: describeLogDirs,
    handle({ topics: asked }) {
      const wanted =
        asked === null ? null : new Map(asked.map((each) => [each.topic, new Set(each.partitions)]));
      const topics = new Map<string, { partitionIndex: number; partitionSize: number }[]>();
      for (const { log } of replicas.all()) {
        const { topic, partition: partitionIndex, sizeInBytes: partitionSize } = log;
        if (wanted !== null && wanted.get(topic)?.has(partitionIndex) !== true) continue;
        const partitions = topics.get(topic) ?? [];
        topics.set(topic, partitions);
        partitions.push({ partitionIndex, partitionSize });
      }
      const directory = {
        errorCode: ErrorCode.NONE,
        logDir: dataDir,
        topics: [...topics].map(([name, partitions]) => ({
          name,
          partitions: partitions.map((each) => ({ ...each, offsetLag: 0, isFutureKey: false })),
        })),
        totalBytes: -1,
        // A disk in memory knows no end.
        usableBytes: Math.min(freeBytes(), Number.MAX_SAFE_INTEGER),
      };
      return { errorCode: ErrorCode.NONE, results: [directory] };
    },
  });
}
