import type { ErrorName } from '@rookery/wire';
import { randomUuid, type Clock } from '../clock.ts';
import { SidecarError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import { keys, type ClusterView, type PartitionImage, type TopicImage } from './cluster-image.ts';
import type { MetaStore, Outcome, Transaction } from './meta-store.ts';

/** A topic was not made, changed or deleted, by the name of Kafka's error. */
export class TopicRefused extends Error {
  readonly error: ErrorName;

  constructor(error: ErrorName, detail: string) {
    super(detail);
    this.name = 'TopicRefused';
    this.error = error;
  }
}

export interface NewTopic {
  readonly name: string;
  /** −1 or nothing: the broker's default. */
  readonly partitions?: number;
  readonly replicationFactor?: number;
  /** Which broker has which replica; excludes the two above. */
  readonly assignments?: readonly { readonly partition: number; readonly replicas: readonly number[] }[];
  readonly configs?: ReadonlyMap<string, string | null>;
  readonly validateOnly?: boolean;
}

export interface InternalTopic {
  readonly partitions: number;
  readonly configs: Readonly<Record<string, string>>;
}

export interface TopicsOptions {
  readonly store: MetaStore;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly nodeId: number;
  readonly defaultPartitions: number;
  readonly defaultReplicationFactor: number;
  /** Topics that the broker makes for itself, by their names. */
  readonly internal: ReadonlyMap<string, InternalTopic>;
  /** @returns why the setting is not allowed, null when it is */
  readonly checkConfig: (name: string, value: string) => string | null;
  /** @returns why a topic cannot have these settings together, null when it can */
  readonly checkConfigs: (configs: Readonly<Record<string, string>>) => string | null;
}

/** The most partitions of one topic: what a single directory and a single answer can still bear. */
export const partitionsMax = 10_000;
const nameMax = 249;
const namePattern = /^[a-zA-Z0-9._-]+$/;

/** Making, changing and deleting topics: transactions on the metadata store. */
export class Topics {
  readonly #options: TopicsOptions;

  constructor(options: TopicsOptions) {
    this.#options = options;
  }

  isValidName(name: string): boolean {
    return nameProblem(name) === null;
  }

  /** @throws TopicRefused */
  async create(topic: NewTopic): Promise<TopicImage> {
    const made = this.#design(topic);
    if (topic.validateOnly) return made;
    const { view, events } = this.#options;
    const { succeeded } = await this.#commit({
      compare: [{ key: keys.topicName(made.name), revision: null }],
      put: [
        { key: keys.topicName(made.name), value: made.id },
        { key: keys.topic(made.id), value: JSON.stringify(made) },
      ],
    });
    // Somebody was faster, with this name or one that collides with it.
    if (!succeeded) throw nameTaken(made.name, view.image.topics()) ?? exists(made.name);
    events.emit('topicCreated', { topic: made.name, topicId: made.id, partitions: made.partitions.length });
    return made;
  }

  /** @throws TopicRefused */
  async delete(name: string): Promise<void> {
    const { store, view, events } = this.#options;
    const topic = view.image.topicByName(name);
    if (topic === undefined)
      throw new TopicRefused('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${name}'`);
    if (topic.isInternal) throw new TopicRefused('INVALID_REQUEST', `'${name}' is internal`);
    const named = await store.get(keys.topicName(name));
    if (named?.value !== topic.id)
      throw new TopicRefused('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${name}'`);
    const { succeeded } = await this.#commit({
      compare: [{ key: named.key, revision: named.revision }],
      remove: [named.key, keys.topic(topic.id)],
    });
    if (!succeeded) throw new TopicRefused('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${name}'`);
    events.emit('topicDeleted', { topic: name, topicId: topic.id });
  }

  /**
   * Gives a topic other settings.
   *
   * @param change what they become of what they are; it may run again when somebody else was faster
   * @throws TopicRefused, also what `change` throws
   */
  async configure(
    name: string,
    change: (configs: Readonly<Record<string, string>>) => ReadonlyMap<string, string | null>,
    validateOnly: boolean,
  ): Promise<void> {
    await this.#change(
      name,
      (topic) => ({ ...topic, configs: this.#configs(change(topic.configs)) }),
      validateOnly,
    );
  }

  /**
   * Gives a topic more partitions.
   *
   * @param count how many it has then
   * @param assignments the replicas of each new one; null leaves it to the broker
   * @throws TopicRefused
   */
  async grow(
    name: string,
    count: number,
    assignments: readonly (readonly number[])[] | null,
    validateOnly: boolean,
  ): Promise<void> {
    const { nodeId } = this.#options;
    const grown = (topic: TopicImage): TopicImage => {
      const have = topic.partitions.length;
      // Groups and transactions are placed by the number of partitions.
      if (topic.isInternal) throw new TopicRefused('INVALID_REQUEST', `'${name}' is internal`);
      if (count <= have || count > partitionsMax) {
        throw new TopicRefused(
          'INVALID_PARTITIONS',
          `'${name}' has ${have} partitions; ${have + 1} to ${partitionsMax} are possible, not ${count}`,
        );
      }
      if (assignments !== null) {
        if (assignments.length !== count - have)
          throw new TopicRefused(
            'INVALID_REPLICA_ASSIGNMENT',
            `${assignments.length} assignments for ${count - have} new partitions`,
          );
        checkAssignments(
          assignments.map((replicas, partition) => ({ partition, replicas })),
          nodeId,
        );
      }
      const added = Array.from({ length: count - have }, () => ownPartition(nodeId));
      return { ...topic, partitions: [...topic.partitions, ...added] };
    };
    await this.#change(name, grown, validateOnly);
  }

  async #change(
    name: string,
    change: (topic: TopicImage) => TopicImage,
    validateOnly: boolean,
  ): Promise<void> {
    const { store, view } = this.#options;
    for (;;) {
      const id = view.image.topicByName(name)?.id;
      const entry = id === undefined ? null : await store.get(keys.topic(id));
      if (entry === null) throw new TopicRefused('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${name}'`);
      const { key, revision } = entry;
      const changed = change(JSON.parse(entry.value) as TopicImage);
      if (validateOnly) return;
      const put = [{ key, value: JSON.stringify(changed) }];
      if ((await this.#commit({ compare: [{ key, revision }], put })).succeeded) return;
    }
  }

  /** The topic as it will be, or why it cannot. */
  #design(topic: NewTopic): TopicImage {
    const { name } = topic;
    const problem = nameProblem(name);
    if (problem !== null) throw new TopicRefused('INVALID_TOPIC_EXCEPTION', problem);
    const { internal, clock, view } = this.#options;
    const taken = nameTaken(name, view.image.topics());
    if (taken !== null) throw taken;
    const configs = this.#configs(topic.configs ?? new Map());
    return {
      id: randomUuid(clock),
      name,
      isInternal: internal.has(name),
      partitions: this.#partitions(topic),
      configs: { ...internal.get(name)?.configs, ...configs },
    };
  }

  async #commit(transaction: Transaction): Promise<Outcome> {
    try {
      return await this.#options.store.commit(transaction);
    } catch (error) {
      if (error instanceof SidecarError) throw new TopicRefused('KAFKA_STORAGE_ERROR', error.message);
      throw error;
    }
  }

  #partitions({
    name,
    partitions = -1,
    replicationFactor = -1,
    assignments = [],
  }: NewTopic): PartitionImage[] {
    const { nodeId, defaultPartitions, defaultReplicationFactor } = this.#options;
    const internal = this.#options.internal.get(name);
    if (assignments.length > 0) {
      if (partitions !== -1 || replicationFactor !== -1) {
        throw new TopicRefused(
          'INVALID_REQUEST',
          'partitions and replication factor must be −1 with assignments',
        );
      }
      checkAssignments(assignments, nodeId);
    }
    // Internal topics have factors of their own, of which one broker can only give 1.
    const byDefault = internal !== undefined || assignments.length > 0 ? 1 : defaultReplicationFactor;
    const factor = replicationFactor === -1 ? byDefault : replicationFactor;
    if (factor !== 1)
      throw new TopicRefused('INVALID_REPLICATION_FACTOR', `replication factor ${factor} on 1 broker`);
    const wanted = assignments.length > 0 ? assignments.length : partitions;
    const count = wanted === -1 ? (internal?.partitions ?? defaultPartitions) : wanted;
    if (count < 1 || count > partitionsMax) {
      throw new TopicRefused('INVALID_PARTITIONS', `${count} partitions; 1 to ${partitionsMax} are possible`);
    }
    return Array.from({ length: count }, () => ownPartition(nodeId));
  }

  #configs(given: ReadonlyMap<string, string | null>): Record<string, string> {
    const configs: Record<string, string> = {};
    for (const [name, value] of given) {
      if (value === null) throw new TopicRefused('INVALID_CONFIG', `${name} has no value`);
      const problem = this.#options.checkConfig(name, value);
      if (problem !== null) throw new TopicRefused('INVALID_CONFIG', problem);
      configs[name] = value;
    }
    const conflict = this.#options.checkConfigs(configs);
    if (conflict !== null) throw new TopicRefused('INVALID_CONFIG', conflict);
    return configs;
  }
}

/** Why the name cannot be given again; null when it can. */
function nameTaken(name: string, topics: Iterable<TopicImage>): TopicRefused | null {
  for (const other of topics) {
    if (other.name === name) return exists(name);
    if (keys.topicName(other.name) === keys.topicName(name))
      return new TopicRefused('INVALID_TOPIC_EXCEPTION', `'${name}' collides with '${other.name}'`);
  }
  return null;
}

const ownPartition = (nodeId: number): PartitionImage => ({
  leader: nodeId,
  leaderEpoch: 0,
  replicas: [nodeId],
  inSyncReplicas: [nodeId],
});

const exists = (name: string): TopicRefused =>
  new TopicRefused('TOPIC_ALREADY_EXISTS', `topic '${name}' exists`);

function nameProblem(name: string): string | null {
  if (name === '' || name === '.' || name === '..') return `'${name}' is no topic name`;
  if (name.length > nameMax) return `a topic name has at most ${nameMax} characters, this one ${name.length}`;
  if (!namePattern.test(name)) return `'${name}' has characters other than letters, digits, '.', '_' and '-'`;
  return null;
}

function checkAssignments(assignments: NonNullable<NewTopic['assignments']>, nodeId: number): void {
  const numbers = new Set(assignments.map(({ partition }) => partition));
  const isDense = assignments.every((_, i) => numbers.has(i));
  const areHere = assignments.every(({ replicas }) => replicas.length === 1 && replicas[0] === nodeId);
  if (!isDense || !areHere) {
    throw new TopicRefused(
      'INVALID_REPLICA_ASSIGNMENT',
      `each partition from 0 on needs exactly broker ${nodeId}`,
    );
  }
}
