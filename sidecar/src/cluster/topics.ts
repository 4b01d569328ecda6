import type { ErrorName } from '@rookery/wire';
import { randomUuid, type Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { keys, type ClusterView, type PartitionImage, type TopicImage } from './cluster-image.ts';
import type { MetaStore } from './meta-store.ts';

/** A topic was not made or deleted, by the name of Kafka's error. */
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

export interface TopicsOptions {
  readonly store: MetaStore;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly nodeId: number;
  readonly defaultPartitions: number;
  readonly internalPartitions: Readonly<Record<string, number>>;
  /** Settings of internal topics. */
  readonly internalConfigs: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** @returns why the setting is not allowed, null when it is */
  readonly checkConfig: (name: string, value: string) => string | null;
}

/** The most partitions of one topic: what a single directory and a single answer can still bear. */
export const partitionsMax = 10_000;
const nameMax = 249;
const namePattern = /^[a-zA-Z0-9._-]+$/;

/** Making and deleting topics: transactions on the metadata store. */
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
    const { store, events } = this.#options;
    const { succeeded } = await store.commit({
      compare: [{ key: keys.topicName(made.name), revision: null }],
      put: [
        { key: keys.topicName(made.name), value: made.id },
        { key: keys.topic(made.id), value: JSON.stringify(made) },
      ],
    });
    if (!succeeded) throw exists(made.name);
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
    const { succeeded } = await store.commit({
      compare: [{ key: named.key, revision: named.revision }],
      remove: [named.key, keys.topic(topic.id)],
    });
    if (!succeeded) throw new TopicRefused('UNKNOWN_TOPIC_OR_PARTITION', `there is no topic '${name}'`);
    events.emit('topicDeleted', { topic: name, topicId: topic.id });
  }

  /** The topic as it will be, or why it cannot. */
  #design(topic: NewTopic): TopicImage {
    const { name } = topic;
    const problem = nameProblem(name);
    if (problem !== null) throw new TopicRefused('INVALID_TOPIC_EXCEPTION', problem);
    this.#checkCollision(name);
    const { internalConfigs, clock } = this.#options;
    const configs = this.#configs(topic.configs ?? new Map());
    return {
      id: randomUuid(clock),
      name,
      isInternal: name in internalConfigs,
      partitions: this.#partitions(topic),
      configs: { ...internalConfigs[name], ...configs },
    };
  }

  /** Kafka's metrics fold '.' and '_' into one another, so it refuses names that differ in nothing else. */
  #checkCollision(name: string): void {
    const folded = name.replaceAll('.', '_');
    for (const other of this.#options.view.image.topics()) {
      if (other.name === name) throw exists(name);
      if (other.name.replaceAll('.', '_') === folded) {
        throw new TopicRefused('INVALID_TOPIC_EXCEPTION', `'${name}' collides with '${other.name}'`);
      }
    }
  }

  #partitions({
    name,
    partitions = -1,
    replicationFactor = -1,
    assignments = [],
  }: NewTopic): PartitionImage[] {
    const { nodeId, defaultPartitions, internalPartitions } = this.#options;
    if (assignments.length > 0) {
      if (partitions !== -1 || replicationFactor !== -1) {
        throw new TopicRefused(
          'INVALID_REQUEST',
          'partitions and replication factor must be −1 with assignments',
        );
      }
      checkAssignments(assignments, nodeId);
    }
    if (replicationFactor !== -1 && replicationFactor !== 1) {
      throw new TopicRefused(
        'INVALID_REPLICATION_FACTOR',
        `replication factor ${replicationFactor} on 1 broker`,
      );
    }
    const wanted = assignments.length > 0 ? assignments.length : partitions;
    const count = wanted === -1 ? (internalPartitions[name] ?? defaultPartitions) : wanted;
    if (count < 1 || count > partitionsMax) {
      throw new TopicRefused('INVALID_PARTITIONS', `${count} partitions; 1 to ${partitionsMax} are possible`);
    }
    const partition = { leader: nodeId, leaderEpoch: 0, replicas: [nodeId], inSyncReplicas: [nodeId] };
    return Array.from({ length: count }, () => partition);
  }

  #configs(given: ReadonlyMap<string, string | null>): Record<string, string> {
    const configs: Record<string, string> = {};
    for (const [name, value] of given) {
      if (value === null) continue;
      const problem = this.#options.checkConfig(name, value);
      if (problem !== null) throw new TopicRefused('INVALID_CONFIG', problem);
      configs[name] = value;
    }
    return configs;
  }
}

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
