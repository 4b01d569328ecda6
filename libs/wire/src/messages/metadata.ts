import { api, array, bool, int16, int32, int64, int8, string, uuid } from '../schema.ts';

// Metadata — brokers, topics, partitions and their leaders.
//   v4 the client may forbid creation · v7 leader epoch · v8 authorized operations · v9 flexible · v10 topic ids · v13 a top-level error
export const metadata = api({
  key: 3,
  name: 'Metadata',
  versions: [0, 13],
  flexibleFrom: 9,
  request: {
    topics: array({ topicId: uuid.since(10), name: string.nullable(10) }).nullable(1),
    allowAutoTopicCreation: bool.since(4).default(true),
    includeClusterAuthorizedOperations: bool.since(8).until(10),
    includeTopicAuthorizedOperations: bool.since(8),
  },
  response: {
    throttleTimeMs: int32.since(3),
    brokers: array({
      nodeId: int32,
      host: string,
      port: int32,
      rack: string.since(1).nullable(1).default(null),
    }),
    clusterId: string.since(2).nullable(2).default(null),
    controllerId: int32.since(1).default(-1),
    topics: array({
      errorCode: int16,
      name: string.nullable(12),
      topicId: uuid.since(10),
      isInternal: bool.since(1),
      partitions: array({
        errorCode: int16,
        partitionIndex: int32,
        leaderId: int32,
        leaderEpoch: int32.since(7).default(-1),
        replicaNodes: array(int32),
        isrNodes: array(int32),
        offlineReplicas: array(int32).since(5),
      }),
      topicAuthorizedOperations: int32.since(8).default(-2147483648),
    }),
    clusterAuthorizedOperations: int32.since(8).until(10).default(-2147483648),
    errorCode: int16.since(13),
  },
});

// DescribeCluster — brokers and controller, without any topic.
//   v1 endpoint type · v2 fenced brokers
export const describeCluster = api({
  key: 60,
  name: 'DescribeCluster',
  versions: [0, 2],
  flexibleFrom: 0,
  request: {
    includeClusterAuthorizedOperations: bool,
    endpointType: int8.since(1).default(1),
    includeFencedBrokers: bool.since(2),
  },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16,
    errorMessage: string.nullable().default(null),
    endpointType: int8.since(1).default(1),
    clusterId: string,
    controllerId: int32.default(-1),
    brokers: array({
      brokerId: int32,
      host: string,
      port: int32,
      rack: string.nullable().default(null),
      isFenced: bool.since(2),
    }),
    clusterAuthorizedOperations: int32.default(-2147483648),
  },
});

// ApiVersions — which APIs are served, in which versions.
//   v3 flexible, the client names its software · the response header stays at version 0
export const apiVersions = api({
  key: 18,
  name: 'ApiVersions',
  versions: [0, 4],
  flexibleFrom: 3,
  request: { clientSoftwareName: string.since(3), clientSoftwareVersion: string.since(3) },
  response: {
    errorCode: int16,
    apiKeys: array({ apiKey: int16, minVersion: int16, maxVersion: int16 }),
    throttleTimeMs: int32.since(1),
    supportedFeatures: array({ name: string, minVersion: int16, maxVersion: int16 }).since(3).tagged(0, 3),
    finalizedFeaturesEpoch: int64.since(3).default(-1).tagged(1, 3),
    finalizedFeatures: array({ name: string, maxVersionLevel: int16, minVersionLevel: int16 })
      .since(3)
      .tagged(2, 3),
    zkMigrationReady: bool.since(3).tagged(3, 3),
  },
});
