import { api, array, int16, int32, int64, int8, records, string, struct, uuid } from '../schema.ts';

// Fetch — whole record batches from each partition named.
//   v5 log start offset · v7 sessions · v9 leader epoch · v12 flexible, diverging epochs · v13 topics by id
//   v15 replica state · v16 leader hints · v17 directory id · v18 high watermark of the follower
export const fetch = api({
  key: 1,
  name: 'Fetch',
  versions: [4, 18],
  flexibleFrom: 12,
  request: {
    clusterId: string.since(12).nullable(12).default(null).tagged(0, 12),
    replicaId: int32.until(14).default(-1),
    replicaState: struct({ replicaId: int32.default(-1), replicaEpoch: int64.default(-1) })
      .since(15)
      .tagged(1, 15),
    maxWaitMs: int32,
    minBytes: int32,
    maxBytes: int32.default(2147483647),
    isolationLevel: int8,
    sessionId: int32.since(7),
    sessionEpoch: int32.since(7).default(-1),
    topics: array({
      topic: string.until(12),
      topicId: uuid.since(13),
      partitions: array({
        partition: int32,
        currentLeaderEpoch: int32.since(9).default(-1),
        fetchOffset: int64,
        lastFetchedEpoch: int32.since(12).default(-1),
        logStartOffset: int64.since(5).default(-1),
        partitionMaxBytes: int32,
        replicaDirectoryId: uuid.since(17).tagged(0, 17),
        // Kafka says 2^63−1: no follower, no limit.
        highWatermark: int64.since(18).default(Number.MAX_SAFE_INTEGER).tagged(1, 18),
      }),
    }),
    forgottenTopicsData: array({
      topic: string.until(12),
      topicId: uuid.since(13),
      partitions: array(int32),
    }).since(7),
    rackId: string.since(11),
  },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16.since(7),
    sessionId: int32.since(7),
    responses: array({
      topic: string.until(12),
      topicId: uuid.since(13),
      partitions: array({
        partitionIndex: int32,
        errorCode: int16,
        highWatermark: int64,
        lastStableOffset: int64.default(-1),
        logStartOffset: int64.since(5).default(-1),
        divergingEpoch: struct({ epoch: int32.default(-1), endOffset: int64.default(-1) })
          .since(12)
          .tagged(0, 12),
        currentLeader: struct({ leaderId: int32.default(-1), leaderEpoch: int32.default(-1) })
          .since(12)
          .tagged(1, 12),
        snapshotId: struct({ endOffset: int64.default(-1), epoch: int32.default(-1) })
          .since(12)
          .tagged(2, 12),
        abortedTransactions: array({ producerId: int64, firstOffset: int64 }).nullable(),
        preferredReadReplica: int32.since(11).default(-1),
        records: records.nullable(),
      }),
    }),
    nodeEndpoints: array({ nodeId: int32, host: string, port: int32, rack: string.nullable().default(null) })
      .since(16)
      .tagged(0, 16),
  },
});
