import { array, bytes, int32, int64, message, string, uuid } from '../schema.ts';

// What a group coordinator writes into `__consumer_offsets`, and what members put into their subscriptions.
// In both, two bytes of version stand before the fields.

/** Key of a committed offset. */
export const offsetCommitKey = message({
  name: 'OffsetCommitKey',
  versions: [0, 0],
  fields: { group: string, topic: string, partition: int32 },
});

/** A committed offset. */
export const offsetCommitValue = message({
  name: 'OffsetCommitValue',
  versions: [0, 4],
  flexibleFrom: 4,
  fields: {
    offset: int64,
    leaderEpoch: int32.since(3).default(-1),
    metadata: string,
    commitTimestamp: int64,
    expireTimestamp: int64.since(1).until(1).default(-1),
    topicId: uuid.since(4).tagged(0, 4),
  },
});

/** Key of a group. */
export const groupMetadataKey = message({
  name: 'GroupMetadataKey',
  versions: [0, 0],
  fields: { group: string },
});

/** A group of the classic protocol: its generation and its members. */
export const groupMetadataValue = message({
  name: 'GroupMetadataValue',
  versions: [0, 4],
  flexibleFrom: 4,
  fields: {
    protocolType: string,
    generation: int32,
    protocol: string.nullable(),
    leader: string.nullable(),
    currentStateTimestamp: int64.since(2).default(-1),
    members: array({
      memberId: string,
      groupInstanceId: string.since(3).nullable(3).default(null),
      clientId: string,
      clientHost: string,
      rebalanceTimeout: int32.since(1).default(-1),
      sessionTimeout: int32,
      subscription: bytes,
      assignment: bytes,
    }),
  },
});

/** What a consumer wants, inside JoinGroup. */
export const consumerProtocolSubscription = message({
  name: 'ConsumerProtocolSubscription',
  versions: [0, 3],
  fields: {
    topics: array(string),
    userData: bytes.nullable().default(null),
    ownedPartitions: array({ topic: string, partitions: array(int32) }).since(1),
    generationId: int32.since(2).default(-1),
    rackId: string.since(3).nullable(3).default(null),
  },
});

/** What a consumer gets, inside SyncGroup. */
export const consumerProtocolAssignment = message({
  name: 'ConsumerProtocolAssignment',
  versions: [0, 3],
  fields: {
    assignedPartitions: array({ topic: string, partitions: array(int32) }),
    userData: bytes.nullable().default(null),
  },
});
