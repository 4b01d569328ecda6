import {
  createPartitions,
  createTopics,
  deleteTopics,
  ErrorCode,
  zeroUuid,
  type Request,
} from '@rookery/wire';
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

// CreatePartitions — gives topics more partitions; each topic on its own.
//
// Behaviour
//   · The number is the one that the topic has afterwards, and it can only grow.
//   · Internal topics keep theirs, because groups are placed by it.

export function createPartitionsHandler(deps: { topics: Topics }): Handler {
  return handler<typeof createPartitions>({
    api: createPartitions,
    async handle({ topics, validateOnly }) {
      const results = topics.map(async ({ name, count, assignments }) => {
        const isRepeated = topics.filter((other) => other.name === name).length > 1;
        try {
          if (isRepeated) throw new TopicRefused('INVALID_REQUEST', 'the topic is named more than once');
          const replicas = assignments?.map(({ brokerIds }) => brokerIds) ?? null;
          await deps.topics.grow(name, count, replicas, validateOnly);
          return { name, errorCode: ErrorCode.NONE, errorMessage: null };
        } catch (error) {
          if (error instanceof TopicRefused)
            return { name, errorCode: ErrorCode[error.error], errorMessage: error.message };
          throw error;
        }
      });
      return { results: await Promise.all(results) };
    },
  });
}

// DeleteTopics — by name, or from version 6 on by id. The topic is gone when the answer leaves; its files go
// in the background.
//
// Behaviour
//   · A topic that is named twice, or by name and id at once, is INVALID_REQUEST and stays.

export function deleteTopicsHandler(deps: {
  topics: Topics;
  image: () => ClusterImage;
  enabled: boolean;
}): Handler {
  type DeletedAnswer = Answer<typeof deleteTopics>['responses'][number];
  interface Asked {
    readonly name: string | null;
    readonly topicId: string;
  }
  const find = ({ name, topicId }: Asked): TopicImage | undefined =>
    name === null ? deps.image().topicById(topicId) : deps.image().topicByName(name);
  const remove = async ({ name, topicId }: Asked, isRepeated: boolean): Promise<DeletedAnswer> => {
    const topic = find({ name, topicId });
    const answer = { name: topic?.name ?? name, topicId: topic?.id ?? topicId };
    if (isRepeated || (name !== null && topicId !== zeroUuid)) {
      const errorMessage = 'a topic is named once, by its name or by its id';
      return { name, topicId, errorCode: ErrorCode.INVALID_REQUEST, errorMessage };
    }
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
      const asked: readonly Asked[] =
        version >= 6 ? request.topics : request.topicNames.map((name) => ({ name, topicId: zeroUuid }));
      const counts = new Map<TopicImage, number>();
      const found = asked.map(find);
      for (const topic of found) if (topic !== undefined) counts.set(topic, (counts.get(topic) ?? 0) + 1);
      const responses = asked.map((each, i) => {
        const topic = found[i];
        return remove(each, topic !== undefined && counts.get(topic)! > 1);
      });
      return { responses: await Promise.all(responses) };
    },
  });
}
