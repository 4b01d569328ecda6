import { describeCluster, ErrorCode, metadata, zeroUuid, type Request } from '@rookery/wire';
import type { ClusterImage, TopicImage } from '../../cluster/cluster-image.ts';
import { TopicRefused, type Topics } from '../../cluster/topics.ts';
import { handler, type Answer, type Handler } from '../handler.ts';
import type { Self } from '../self.ts';
import { clusterOperations, topicOperations } from './authorized-operations.ts';

// Metadata — brokers, topics, partitions and their leaders.
//
// Behaviour
//   · A topic that does not exist is created where the client and auto.create.topics.enable allow it, and is
//     answered as it then is: no client has to ask twice.
//   · No list of topics means all of them (version 0: an empty list).
// Version notes
//   v4 the client may forbid creation · v10 topic ids · v12 topics may be asked for by id alone.

type TopicAnswer = Answer<typeof metadata>['topics'][number];

interface MetadataDeps {
  readonly self: Self;
  readonly image: () => ClusterImage;
  readonly topics: Topics;
  readonly autoCreate: boolean;
}

export function metadataHandler(deps: MetadataDeps): Handler {
  return handler<typeof metadata>({
    api: metadata,
    async handle(request, { version }) {
      const all = request.topics === null || (version === 0 && request.topics.length === 0);
      const mayCreate = deps.autoCreate && request.allowAutoTopicCreation;
      const asked = all
        ? []
        : await Promise.all(request.topics!.map((topic) => find(deps, topic, mayCreate)));
      const image = deps.image();
      const answers = all ? [...image.topics()].map((topic) => describe(deps, topic)) : asked;
      for (const answer of answers) {
        if (request.includeTopicAuthorizedOperations) answer.topicAuthorizedOperations = topicOperations;
      }
      return {
        brokers: brokersOf(deps.self, image).map(({ id, ...broker }) => ({ nodeId: id, ...broker })),
        clusterId: deps.self.clusterId,
        controllerId: deps.self.nodeId,
        topics: answers,
        ...(request.includeClusterAuthorizedOperations
          ? { clusterAuthorizedOperations: clusterOperations }
          : {}),
      };
    },
  });
}

/** Brokers as clients may reach them; this one always, whatever the image has seen so far. */
function brokersOf(
  self: Self,
  image: ClusterImage,
): { id: number; host: string; port: number; rack: string | null }[] {
  const others = [...image.brokers()].filter(({ id }) => id !== self.nodeId);
  return [{ id: self.nodeId, host: self.host, port: self.port, rack: self.rack }, ...others];
}

async function find(
  deps: MetadataDeps,
  asked: NonNullable<Request<typeof metadata>['topics']>[number],
  mayCreate: boolean,
): Promise<TopicAnswer> {
  const { name, topicId } = asked;
  const refused = (errorCode: number): TopicAnswer => ({
    errorCode,
    name,
    topicId,
    isInternal: false,
    partitions: [],
  });
  if (name === null || name === '') {
    const topic = topicId === zeroUuid ? undefined : deps.image().topicById(topicId);
    return topic === undefined ? refused(ErrorCode.UNKNOWN_TOPIC_ID) : describe(deps, topic);
  }
  const topic = deps.image().topicByName(name);
  if (topic !== undefined) return describe(deps, topic);
  if (!mayCreate) {
    return refused(
      deps.topics.isValidName(name)
        ? ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        : ErrorCode.INVALID_TOPIC_EXCEPTION,
    );
  }
  try {
    await deps.topics.create({ name });
  } catch (error) {
    if (!(error instanceof TopicRefused)) throw error;
    // Someone else was faster: the topic is there, which is all that the client wants.
    if (error.error !== 'TOPIC_ALREADY_EXISTS') return refused(ErrorCode[error.error]);
  }
  const created = deps.image().topicByName(name);
  return created === undefined ? refused(ErrorCode.LEADER_NOT_AVAILABLE) : describe(deps, created);
}

function describe({ self, image }: MetadataDeps, topic: TopicImage): TopicAnswer {
  const isOffline = (id: number): boolean => id !== self.nodeId && !image().hasBroker(id);
  return {
    errorCode: ErrorCode.NONE,
    name: topic.name,
    topicId: topic.id,
    isInternal: topic.isInternal,
    partitions: topic.partitions.map((partition, partitionIndex) => ({
      errorCode: partition.leader < 0 ? ErrorCode.LEADER_NOT_AVAILABLE : ErrorCode.NONE,
      partitionIndex,
      leaderId: partition.leader,
      leaderEpoch: partition.leaderEpoch,
      replicaNodes: partition.replicas,
      isrNodes: partition.inSyncReplicas,
      offlineReplicas: partition.replicas.filter(isOffline),
    })),
  };
}

// DescribeCluster — brokers and controller, without any topic.

export function describeClusterHandler(deps: Pick<MetadataDeps, 'self' | 'image'>): Handler {
  const brokersEndpoint = 1;
  return handler<typeof describeCluster>({
    api: describeCluster,
    handle(request) {
      const { self } = deps;
      const known = { clusterId: self.clusterId, controllerId: self.nodeId };
      if (request.endpointType !== brokersEndpoint) {
        const errorCode = ErrorCode.UNSUPPORTED_ENDPOINT_TYPE;
        return { errorCode, errorMessage: 'only the brokers can be described', ...known, brokers: [] };
      }
      return {
        errorCode: ErrorCode.NONE,
        errorMessage: null,
        endpointType: brokersEndpoint,
        ...known,
        brokers: brokersOf(self, deps.image()).map(({ id, ...broker }) => ({ brokerId: id, ...broker })),
        ...(request.includeClusterAuthorizedOperations
          ? { clusterAuthorizedOperations: clusterOperations }
          : {}),
      };
    },
  });
}
