import { api, array, int16, int32, int64, int8, string } from '../schema.ts';

// ListOffsets — where a partition begins and ends, and where a time is in it.
//   v2 isolation level · v4 leader epoch · v6 flexible · v7 largest timestamp · v8 v9 v11 tiered storage · v10 timeout
export const listOffsets = api({
  key: 2,
  name: 'ListOffsets',
  versions: [1, 11],
  flexibleFrom: 6,
  request: {
    replicaId: int32,
    isolationLevel: int8.since(2),
    topics: array({
      name: string,
      partitions: array({
        partitionIndex: int32,
        currentLeaderEpoch: int32.since(4).default(-1),
        timestamp: int64,
      }),
    }),
    timeoutMs: int32.since(10),
  },
  response: {
    throttleTimeMs: int32.since(2),
    topics: array({
      name: string,
      partitions: array({
        partitionIndex: int32,
        errorCode: int16,
        timestamp: int64.default(-1),
        offset: int64.default(-1),
        leaderEpoch: int32.since(4).default(-1),
      }),
    }),
  },
});

// OffsetForLeaderEpoch — where a leader epoch ended.
//   v3 the asker says which replica it is · v4 flexible
export const offsetForLeaderEpoch = api({
  key: 23,
  name: 'OffsetForLeaderEpoch',
  versions: [2, 4],
  flexibleFrom: 4,
  request: {
    replicaId: int32.since(3).default(-2),
    topics: array({
      topic: string,
      partitions: array({ partition: int32, currentLeaderEpoch: int32.default(-1), leaderEpoch: int32 }),
    }),
  },
  response: {
    throttleTimeMs: int32.default(0),
    topics: array({
      topic: string,
      partitions: array({
        errorCode: int16,
        partition: int32,
        leaderEpoch: int32.default(-1),
        endOffset: int64.default(-1),
      }),
    }),
  },
});
