import { createTopics, deleteTopics, ErrorCode, zeroUuid, type Request } from '@rookery/wire';
import type { ClusterImage, TopicImage } from '../../cluster/cluster-image.ts';
import { TopicRefused, type Topics } from '../../cluster/topics.ts';
import { handler, type Answer, type Handler } from '../handler.ts';
import { describeTopicConfigs, type ConfigsDeps } from './configs.ts';

// CreateTopics — each topic on its own: one that is refused does not hold up the others.
//
// Behaviour
//   · −1 partitions or replication factor means the broker's default.
//   · The same name twice in a request is INVALID_REQUEST for that name.
// Version notes
//   v5 answers with partitions, replication factor and configs · v7 with the topic id.

interface TopicsDeps extends ConfigsDeps {
  readonly topics: Topics;
}

type Creatable = Request<typeof createTopics>['topics'][number];
type CreatedAnswer = Answer<typeof createTopics>['topics'][number];

export function createTopicsHandler(deps: TopicsDeps): Handler {
  return handler<typeof createTopics>({
    api: createTopics,
    async handle(request) {
      const counts = new Map<string, number>();
      for (const { name } of request.topics) counts.set(name, (counts.get(name) ?? 0) + 1);
      const names = new Set<string>();
      const topics = request.topics.filter(({ name }) => !names.has(name) && names.add(name));
      const answers = topics.map((topic) =>
        counts.get(topic.name)! > 1
          ? refused(topic.name, ErrorCode.INVALID_REQUEST, 'the topic is named more than once')
          : create(deps, topic, request.validateOnly),
      );
      return { topics: await Promise.all(answers) };
    },
  });
}

async function create(deps: TopicsDeps, topic: Creatable, validateOnly: boolean): Promise<CreatedAnswer> {
  try {
    const created = await deps.topics.create({
      name: topic.name,
      partitions: topic.numPartitions,
      replicationFactor: topic.replicationFactor,
      assignments: topic.assignments.map(({ partitionIndex, brokerIds }) => ({
        partition: partitionIndex,
        replicas: brokerIds,
      })),
      configs: new Map(topic.configs.map(({ name, value }) => [name, value])),
      validateOnly,
    });
    return {
      name: created.name,
      topicId: validateOnly ? zeroUuid : created.id,
      errorCode: ErrorCode.NONE,
      errorMessage: null,
      numPartitions: created.partitions.length,
      replicationFactor: created.partitions[0]!.replicas.length,
      configs: describeTopicConfigs(deps, created).map(
        ({ name, value, readOnly, configSource, isSensitive }) => ({
          name,
          value,
          readOnly,
          configSource,
          isSensitive,
        }),
      ),
    };
  } catch (error) {
    if (error instanceof TopicRefused) return refused(topic.name, ErrorCode[error.error], error.message);
    throw error;
  }
}

const refused = (name: string, errorCode: number, errorMessage: string): CreatedAnswer => ({
  name,
  errorCode,
  errorMessage,
  numPartitions: -1,
  replicationFactor: -1,
  configs: [],
});

// DeleteTopics — by name, or from version 6 on by id. The topic is gone when the answer leaves; its files go
// in the background.

export function deleteTopicsHandler(deps: {
  topics: Topics;
  image: () => ClusterImage;
  enabled: boolean;
}): Handler {
  type DeletedAnswer = Answer<typeof deleteTopics>['responses'][number];
  const remove = async (name: string | null, topicId: string): Promise<DeletedAnswer> => {
    const topic: TopicImage | undefined =
      name === null ? deps.image().topicById(topicId) : deps.image().topicByName(name);
    const answer = { name: topic?.name ?? name, topicId: topic?.id ?? topicId };
    if (topic === undefined) {
      const errorCode = name === null ? ErrorCode.UNKNOWN_TOPIC_ID : ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
      return { ...answer, errorCode, errorMessage: 'there is no such topic' };
    }
    if (!deps.enabled) {
      return {
        ...answer,
        errorCode: ErrorCode.TOPIC_DELETION_DISABLED,
        errorMessage: 'delete.topic.enable is false',
      };
    }
    try {
      await deps.topics.delete(topic.name);
      return { ...answer, errorCode: ErrorCode.NONE, errorMessage: null };
    } catch (error) {
      if (error instanceof TopicRefused)
        return { ...answer, errorCode: ErrorCode[error.error], errorMessage: error.message };
      throw error;
    }
  };
  return handler<typeof deleteTopics>({
    api: deleteTopics,
    async handle(request, { version }) {
      const asked =
        version >= 6
          ? request.topics
          : request.topicNames.map((name): { name: string | null; topicId: string } => ({
              name,
              topicId: zeroUuid,
            }));
      return { responses: await Promise.all(asked.map(({ name, topicId }) => remove(name, topicId))) };
    },
  });
}
