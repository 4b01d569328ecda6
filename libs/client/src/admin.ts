import {
  createTopics,
  deleteTopics,
  describeCluster,
  describeConfigs,
  describeGroups,
  describeLogDirs,
  ErrorCode,
  errorName,
  incrementalAlterConfigs,
  listGroups,
  listOffsets,
  metadata,
  offsetFetch,
  zeroUuid,
  type ErrorName,
} from '@rookery/wire';
import type { TopicPartitions } from './assignor.ts';
import type { ClusterView } from './cluster-view.ts';
import { Backoff } from './backoff.ts';
import type { Connection } from './connection.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';
import { readAssignment } from './membership.ts';
import { sleep } from './waiting.ts';

export interface NewTopic {
  readonly name: string;
  /** −1 or nothing: the broker's default. */
  readonly partitions?: number;
  readonly replicationFactor?: number;
  readonly configs?: Readonly<Record<string, string>>;
}

/** What came of each topic of a request. */
export interface TopicResult {
  readonly name: string;
  /** `NONE` when it worked. */
  readonly error: ErrorName;
  readonly message: string | null;
}

export interface GroupListing {
  readonly group: string;
  /** 'consumer' for those that read topics. */
  readonly protocolType: string;
  /** Empty from brokers that do not tell it in a list. */
  readonly state: string;
}

export interface GroupDescription {
  readonly state: string;
  readonly protocolType: string;
  readonly members: readonly {
    readonly id: string;
    readonly instanceId: string | null;
    readonly clientId: string;
    readonly host: string;
    readonly assigned: readonly TopicPartitions[];
  }[];
}

interface Position {
  readonly offset: number;
  readonly timestamp: number;
}

const timeoutMs = 30_000;
const resourceTypes = { topic: 2, broker: 4 } as const;
const configOperations = { set: 0, delete: 1 } as const;
const times = { earliest: -2, latest: -1 } as const;

/** Questions and orders to the cluster as a whole. Every call throws ClientError where it got no answer. */
export class Admin {
  readonly #view: ClusterView;

  constructor(view: ClusterView) {
    this.#view = view;
  }

  async createTopics(topics: readonly NewTopic[], signal?: AbortSignal): Promise<TopicResult[]> {
    const broker = await this.#controller(signal);
    const response = await broker.request(createTopics, {
      topics: topics.map(({ name, partitions = -1, replicationFactor = -1, configs = {} }) => ({
        name,
        numPartitions: partitions,
        replicationFactor,
        assignments: [],
        configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })),
      })),
      timeoutMs,
      validateOnly: false,
    });
    return response.topics.map(({ name, errorCode, errorMessage }) => ({
      name,
      error: errorName(errorCode),
      message: errorMessage,
    }));
  }

  async deleteTopics(names: readonly string[], signal?: AbortSignal): Promise<TopicResult[]> {
    const broker = await this.#controller(signal);
    const response = await broker.request(deleteTopics, { topicNames: names, timeoutMs }, { versionMax: 5 });
    return response.responses.map(({ name, errorCode, errorMessage }) => ({
      name: name!,
      error: errorName(errorCode),
      message: errorMessage ?? null,
    }));
  }

  async listTopics(
    signal?: AbortSignal,
  ): Promise<{ name: string; partitions: number; isInternal: boolean }[]> {
    const broker = await this.#view.anyBroker(signal);
    const response = await broker.request(metadata, {
      topics: null,
      allowAutoTopicCreation: false,
      includeTopicAuthorizedOperations: false,
    });
    return response.topics.map(({ name, partitions, isInternal }) => ({
      name: name!,
      partitions: partitions.length,
      isInternal: isInternal ?? false,
    }));
  }

  /**
   * The leader of every partition, by partition number; −1 while there is none. Asking does not create the topic.
   * @throws BrokerError UNKNOWN_TOPIC_OR_PARTITION when there is no such topic
   */
  async leadersOf(topic: string, signal?: AbortSignal): Promise<number[]> {
    const broker = await this.#view.anyBroker(signal);
    const response = await broker.request(metadata, {
      topics: [{ name: topic, topicId: zeroUuid }],
      allowAutoTopicCreation: false,
      includeTopicAuthorizedOperations: false,
    });
    const [found] = response.topics;
    if (found === undefined) throw new ClientError('RK9211', `Metadata of topic '${topic}' is empty`);
    check(found.errorCode, `topic '${topic}'`);
    return found.partitions
      .toSorted((a, b) => a.partitionIndex - b.partitionIndex)
      .map(({ leaderId }) => leaderId);
  }

  /** Bytes that each partition of a topic takes on the disk of its leader, by partition. */
  async sizesOf(topic: string, signal?: AbortSignal): Promise<Map<number, number>> {
    const leaders = await this.leadersOf(topic, signal);
    await this.#view.refresh(signal);
    const sizes = new Map<number, number>();
    for (const [leader, partitions] of Map.groupBy(leaders.keys(), (index) => leaders[index]!)) {
      if (leader < 0) continue;
      const broker = await this.#view.broker(leader);
      const response = await broker.request(describeLogDirs, { topics: [{ topic, partitions }] });
      for (const directory of response.results)
        for (const found of directory.topics.find(({ name }) => name === topic)?.partitions ?? [])
          // One that moves to another directory of the same broker is there twice.
          if (!found.isFutureKey) sizes.set(found.partitionIndex, found.partitionSize);
    }
    return sizes;
  }

  async describeCluster(signal?: AbortSignal): Promise<{
    clusterId: string;
    controllerId: number;
    brokers: { id: number; host: string; port: number; rack: string | null }[];
  }> {
    const broker = await this.#view.anyBroker(signal);
    const response = await broker.request(describeCluster, {
      includeClusterAuthorizedOperations: false,
      includeFencedBrokers: false,
    });
    check(response.errorCode, 'DescribeCluster');
    const { clusterId, controllerId, brokers } = response;
    return {
      clusterId,
      controllerId,
      brokers: brokers.map(({ brokerId, host, port, rack }) => ({ id: brokerId, host, port, rack })),
    };
  }

  /** Settings of a topic or of a broker, by name; null where the value is secret or unset. */
  async describeConfigs(
    type: keyof typeof resourceTypes,
    name: string,
    signal?: AbortSignal,
  ): Promise<Map<string, string | null>> {
    const broker = await this.#view.anyBroker(signal);
    const response = await broker.request(describeConfigs, {
      resources: [{ resourceType: resourceTypes[type], resourceName: name, configurationKeys: null }],
      includeSynonyms: false,
      includeDocumentation: false,
    });
    const [result] = response.results;
    if (result === undefined)
      throw new ClientError('RK9211', `DescribeConfigs of ${type} '${name}' is empty`);
    check(result.errorCode, `DescribeConfigs of ${type} '${name}'`);
    return new Map(result.configs.map((each) => [each.name, each.value]));
  }

  /** Changes settings of a topic or of a broker, and no others; null takes one back to its default. */
  async changeConfigs(
    type: keyof typeof resourceTypes,
    name: string,
    changes: ReadonlyMap<string, string | null>,
    signal?: AbortSignal,
  ): Promise<void> {
    const broker = await this.#controller(signal);
    const configs = [...changes].map(([key, value]) => ({
      name: key,
      configOperation: value === null ? configOperations.delete : configOperations.set,
      value,
    }));
    const response = await broker.request(incrementalAlterConfigs, {
      resources: [{ resourceType: resourceTypes[type], resourceName: name, configs }],
      validateOnly: false,
    });
    const [result] = response.responses;
    if (result === undefined)
      throw new ClientError('RK9211', `IncrementalAlterConfigs of ${type} '${name}' is empty`);
    check(result.errorCode, `settings of ${type} '${name}'${because(result.errorMessage)}`);
  }

  /**
   * Offsets of every partition of a topic: its first one, its end, or the first at or after a time.
   * @param at milliseconds for a time
   * @returns by partition; −1 where nothing is found
   */
  async listOffsets(
    topic: string,
    at: 'earliest' | 'latest' | number,
    signal?: AbortSignal,
  ): Promise<Map<number, number>> {
    const found = await this.#positions(topic, typeof at === 'number' ? at : times[at], signal);
    return new Map([...found].map(([partition, { offset }]) => [partition, offset]));
  }

  /**
   * When the oldest record of every partition was written, by its own timestamp; −1 where there is none. A partition
   * whose oldest record the broker cannot read is left out.
   */
  async oldestTimestamps(topic: string, signal?: AbortSignal): Promise<Map<number, number>> {
    // Asked for its first offset a broker tells no time; asked for the first record since 1970 it does.
    const found = await this.#positions(topic, 0, signal, ErrorCode.KAFKA_STORAGE_ERROR);
    return new Map([...found].map(([partition, { timestamp }]) => [partition, timestamp]));
  }

  async #positions(
    topic: string,
    timestamp: number,
    signal: AbortSignal = AbortSignal.timeout(timeoutMs),
    /** Partitions with this error are left out. */
    excused: number | null = null,
  ): Promise<Map<number, Position>> {
    // That there is no such topic is said at once.
    const isMissing = (error: unknown): boolean =>
      error instanceof BrokerError &&
      error.error === 'UNKNOWN_TOPIC_OR_PARTITION' &&
      this.#view.topic(topic) === undefined;
    return this.#insist(signal, isMissing, () => this.#listOffsets(topic, timestamp, signal, excused));
  }

  /** Tries again what may succeed later, because leaders and coordinators move. */
  async #insist<T>(
    signal: AbortSignal,
    isFinal: (error: unknown) => boolean,
    ask: () => Promise<T>,
  ): Promise<T> {
    const backoff = new Backoff();
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!isRetriableError(error) || signal.aborted || isFinal(error)) throw error;
        await sleep(backoff.next(), signal);
      }
    }
  }

  async #listOffsets(
    topic: string,
    timestamp: number,
    signal: AbortSignal,
    excused: number | null,
  ): Promise<Map<number, Position>> {
    this.#view.want([topic]);
    await this.#view.refresh(signal);
    const known = this.#view.topic(topic);
    if (known === undefined)
      throw this.#view.errorOf(topic) ?? new BrokerError('UNKNOWN_TOPIC_OR_PARTITION', `topic '${topic}'`);
    const { partitions } = known;
    const offsets = new Map<number, Position>();
    const leaders = Map.groupBy(partitions.keys(), (index) => partitions[index]!.leader);
    for (const [leader, indexes] of leaders) {
      const broker = await this.#view.broker(leader);
      const response = await broker.request(
        listOffsets,
        {
          replicaId: -1,
          isolationLevel: 0,
          timeoutMs,
          topics: [
            {
              name: topic,
              partitions: indexes.map((partitionIndex) => ({ partitionIndex, timestamp })),
            },
          ],
        },
        { versionMax: 10 },
      );
      for (const { partitionIndex, errorCode, offset, timestamp: at } of response.topics[0]?.partitions ??
        []) {
        if (errorCode === excused) continue;
        check(errorCode, `ListOffsets of ${topic}-${partitionIndex}`);
        offsets.set(partitionIndex, { offset, timestamp: at });
      }
    }
    return offsets;
  }

  /** Every group that any broker looks after. */
  async listGroups(signal?: AbortSignal): Promise<GroupListing[]> {
    const { brokers } = await this.describeCluster(signal);
    await this.#view.refresh(signal);
    const answers = await Promise.all(
      brokers.map(async ({ id }) => (await this.#view.broker(id)).request(listGroups, {})),
    );
    return answers.flatMap(({ errorCode, groups }) => {
      check(errorCode, 'ListGroups');
      return groups.map(({ groupId, protocolType, groupState }) => ({
        group: groupId,
        protocolType,
        state: groupState ?? '',
      }));
    });
  }

  /** @throws BrokerError GROUP_ID_NOT_FOUND */
  describeGroup(
    group: string,
    signal: AbortSignal = AbortSignal.timeout(timeoutMs),
  ): Promise<GroupDescription> {
    return this.#ofCoordinator(group, signal, async (coordinator) => {
      const response = await coordinator.request(describeGroups, { groups: [group] });
      const [found] = response.groups;
      if (found === undefined) throw new ClientError('RK9211', `DescribeGroups of '${group}' is empty`);
      check(found.errorCode, `group '${group}'`);
      // What brokers answered before there was an error for it.
      if (found.groupState === 'Dead') throw new BrokerError('GROUP_ID_NOT_FOUND', `group '${group}'`);
      const { groupState: state, protocolType, members } = found;
      return {
        state,
        protocolType,
        members: members.map(({ memberId, groupInstanceId, clientId, clientHost, memberAssignment }) => ({
          id: memberId,
          instanceId: groupInstanceId ?? null,
          clientId,
          host: clientHost,
          assigned: protocolType === 'consumer' ? assignedBy(memberAssignment) : [],
        })),
      };
    });
  }

  /** What a group has committed, by topic and partition. */
  committedOffsets(
    group: string,
    signal: AbortSignal = AbortSignal.timeout(timeoutMs),
  ): Promise<Map<string, Map<number, number>>> {
    return this.#ofCoordinator(group, signal, async (coordinator) => {
      const response = await coordinator.request(
        offsetFetch,
        (version) =>
          version >= 8
            ? { groups: [{ groupId: group, topics: null }], requireStable: false }
            : { groupId: group, topics: null, ...(version >= 7 ? { requireStable: false } : {}) },
        { versionMax: 9 },
      );
      const answer = response.groups === undefined ? response : response.groups[0];
      check(answer?.errorCode ?? 0, `offsets of group '${group}'`);
      const committed = new Map<string, Map<number, number>>();
      for (const { name, partitions } of answer?.topics ?? []) {
        const of = new Map<number, number>();
        committed.set(name!, of);
        for (const { partitionIndex, committedOffset, errorCode } of partitions) {
          check(errorCode, `offset of ${name}-${partitionIndex} for group '${group}'`);
          if (committedOffset >= 0) of.set(partitionIndex, committedOffset);
        }
      }
      return committed;
    });
  }

  #ofCoordinator<T>(
    group: string,
    signal: AbortSignal,
    ask: (coordinator: Connection) => Promise<T>,
  ): Promise<T> {
    return this.#insist(
      signal,
      () => false,
      async () => {
        try {
          return await ask(await this.#view.coordinator(group, '', signal));
        } catch (error) {
          if (isRetriableError(error)) this.#view.forgetCoordinator(group);
          throw error;
        }
      },
    );
  }

  /** Orders go to the controller where there is one; every sidecar is its own. */
  #controller(signal?: AbortSignal): ReturnType<ClusterView['anyBroker']> {
    return this.#view.anyBroker(signal);
  }
}

function check(errorCode: number, what: string): void {
  if (errorCode !== 0) throw new BrokerError(errorName(errorCode), what);
}

const because = (message: string | null): string => (message === null ? '' : `: ${message}`);

/** Nothing where it cannot be read, for one bad member must not hide the others. */
function assignedBy(bytes: Buffer): TopicPartitions[] {
  try {
    return readAssignment(bytes);
  } catch {
    return [];
  }
}
