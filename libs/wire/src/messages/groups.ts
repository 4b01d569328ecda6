import { api, array, bool, bytes, int16, int32, int64, int8, string, uuid } from '../schema.ts';

// FindCoordinator — which broker looks after a group or a transactional id.
//   v1 key type · v3 flexible · v4 several keys at once
export const findCoordinator = api({
  key: 10,
  name: 'FindCoordinator',
  versions: [0, 6],
  flexibleFrom: 3,
  request: { key: string.until(3), keyType: int8.since(1), coordinatorKeys: array(string).since(4) },
  response: {
    throttleTimeMs: int32.since(1),
    errorCode: int16.until(3),
    errorMessage: string.since(1).until(3).nullable(1),
    nodeId: int32.until(3),
    host: string.until(3),
    port: int32.until(3),
    coordinators: array({
      key: string,
      nodeId: int32,
      host: string,
      port: int32,
      errorCode: int16,
      errorMessage: string.nullable(),
    }).since(4),
  },
});

// JoinGroup — a member asks to be in the next generation of its group.
//   v1 rebalance timeout · v4 a member id must be fetched first · v5 static members · v6 flexible · v7 protocol type · v8 reason · v9 skip assignment
export const joinGroup = api({
  key: 11,
  name: 'JoinGroup',
  versions: [0, 9],
  flexibleFrom: 6,
  request: {
    groupId: string,
    sessionTimeoutMs: int32,
    rebalanceTimeoutMs: int32.since(1).default(-1),
    memberId: string,
    groupInstanceId: string.since(5).nullable(5).default(null),
    protocolType: string,
    protocols: array({ name: string, metadata: bytes }),
    reason: string.since(8).nullable(8).default(null),
  },
  response: {
    throttleTimeMs: int32.since(2),
    errorCode: int16,
    generationId: int32.default(-1),
    protocolType: string.since(7).nullable(7).default(null),
    protocolName: string.nullable(7),
    leader: string,
    skipAssignment: bool.since(9),
    memberId: string,
    members: array({
      memberId: string,
      groupInstanceId: string.since(5).nullable(5).default(null),
      metadata: bytes,
    }),
  },
});

// SyncGroup — the leader hands in the assignment, everyone gets their part.
//   v3 static members · v4 flexible · v5 protocol type and name
export const syncGroup = api({
  key: 14,
  name: 'SyncGroup',
  versions: [0, 5],
  flexibleFrom: 4,
  request: {
    groupId: string,
    generationId: int32,
    memberId: string,
    groupInstanceId: string.since(3).nullable(3).default(null),
    protocolType: string.since(5).nullable(5).default(null),
    protocolName: string.since(5).nullable(5).default(null),
    assignments: array({ memberId: string, assignment: bytes }),
  },
  response: {
    throttleTimeMs: int32.since(1),
    errorCode: int16,
    protocolType: string.since(5).nullable(5).default(null),
    protocolName: string.since(5).nullable(5).default(null),
    assignment: bytes,
  },
});

// Heartbeat — a member is alive, and learns whether a rebalance is on.
//   v3 static members · v4 flexible
export const heartbeat = api({
  key: 12,
  name: 'Heartbeat',
  versions: [0, 4],
  flexibleFrom: 4,
  request: {
    groupId: string,
    generationId: int32,
    memberId: string,
    groupInstanceId: string.since(3).nullable(3).default(null),
  },
  response: { throttleTimeMs: int32.since(1), errorCode: int16 },
});

// LeaveGroup — members leave their group.
//   v3 several at once · v4 flexible · v5 reason
export const leaveGroup = api({
  key: 13,
  name: 'LeaveGroup',
  versions: [0, 5],
  flexibleFrom: 4,
  request: {
    groupId: string,
    memberId: string.until(2),
    members: array({
      memberId: string,
      groupInstanceId: string.nullable().default(null),
      reason: string.since(5).nullable(5).default(null),
    }).since(3),
  },
  response: {
    throttleTimeMs: int32.since(1),
    errorCode: int16,
    members: array({ memberId: string, groupInstanceId: string.nullable(), errorCode: int16 }).since(3),
  },
});

// OffsetCommit — how far a group has read.
//   v6 leader epoch · v7 static members · v8 flexible · v10 topics by id
export const offsetCommit = api({
  key: 8,
  name: 'OffsetCommit',
  versions: [2, 10],
  flexibleFrom: 8,
  request: {
    groupId: string,
    generationIdOrMemberEpoch: int32.default(-1),
    memberId: string,
    groupInstanceId: string.since(7).nullable(7).default(null),
    retentionTimeMs: int64.until(4).default(-1),
    topics: array({
      name: string.until(9),
      topicId: uuid.since(10),
      partitions: array({
        partitionIndex: int32,
        committedOffset: int64,
        committedLeaderEpoch: int32.since(6).default(-1),
        committedMetadata: string.nullable(),
      }),
    }),
  },
  response: {
    throttleTimeMs: int32.since(3),
    topics: array({
      name: string.until(9),
      topicId: uuid.since(10),
      partitions: array({ partitionIndex: int32, errorCode: int16 }),
    }),
  },
});

// OffsetFetch — how far groups have read.
//   v2 every topic, a top-level error · v5 leader epoch · v6 flexible · v7 only stable offsets · v8 several groups · v9 member epochs · v10 topics by id
export const offsetFetch = api({
  key: 9,
  name: 'OffsetFetch',
  versions: [1, 10],
  flexibleFrom: 6,
  request: {
    groupId: string.until(7),
    topics: array({ name: string, partitionIndexes: array(int32) })
      .until(7)
      .nullable(2),
    groups: array({
      groupId: string,
      memberId: string.since(9).nullable(9).default(null),
      memberEpoch: int32.since(9).default(-1),
      topics: array({
        name: string.until(9),
        topicId: uuid.since(10),
        partitionIndexes: array(int32),
      }).nullable(),
    }).since(8),
    requireStable: bool.since(7),
  },
  response: {
    throttleTimeMs: int32.since(3),
    topics: array({
      name: string,
      partitions: array({
        partitionIndex: int32,
        committedOffset: int64,
        committedLeaderEpoch: int32.since(5).default(-1),
        metadata: string.nullable(),
        errorCode: int16,
      }),
    }).until(7),
    errorCode: int16.since(2).until(7),
    groups: array({
      groupId: string,
      topics: array({
        name: string.until(9),
        topicId: uuid.since(10),
        partitions: array({
          partitionIndex: int32,
          committedOffset: int64,
          committedLeaderEpoch: int32.default(-1),
          metadata: string.nullable(),
          errorCode: int16,
        }),
      }),
      errorCode: int16,
    }).since(8),
  },
});
