import type { Clock } from '../clock.ts';
import type { ClusterImage, TopicImage } from '../cluster/cluster-image.ts';
import type { EventBus } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import type { LogManager } from '../log/log-manager.ts';
import { Partition, type PartitionDeps, type PartitionRole } from './partition.ts';

export interface ReplicaManagerOptions extends PartitionDeps {
  readonly logs: LogManager;
  readonly nodeId: number;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly logConfig: (topic: TopicImage) => LogConfig;
  readonly minInSyncReplicas: (topic: TopicImage) => number;
}

/** Partitions made in one turn of the loop: each waits for the disk a few times. */
const madeAtOnce = 4;

/**
 * The partitions that this broker hosts, as the cluster image has them: it makes, leads and drops them when
 * the image changes. A topic of thousands of partitions gets them over many turns, so that nobody else waits for
 * it; one that is asked for meanwhile is made at once. Internal topics have many partitions of which few are ever
 * used, so theirs are made only when they are asked for.
 */
export class ReplicaManager {
  readonly #options: ReplicaManagerOptions;
  #image: ClusterImage | null = null;
  readonly #partitions = new Map<string, Map<number, Partition>>();
  /** Topics as they were last brought in line, all their partitions included. */
  readonly #applied = new Map<string, TopicImage>();
  #isMaking = false;
  #isClosed = false;
  /** Partitions that are still to be made, the next one last. */
  readonly #unmade: { readonly topicId: string; readonly index: number }[] = [];

  constructor(options: ReplicaManagerOptions) {
    this.#options = options;
  }

  /** Brings the hosted partitions in line with the image; those that are on disk are there when it returns. */
  apply(image: ClusterImage): void {
    this.#image = image;
    for (const [topicId, partitions] of this.#partitions) {
      if (image.topicById(topicId) === undefined) this.#drop(topicId, partitions);
    }
    for (const topic of image.topics()) if (this.#applied.get(topic.id) !== topic) this.#applyTopic(topic);
    this.#makeSome();
  }

  #makeSome(): void {
    for (let made = 0; made < madeAtOnce && this.#unmade.length > 0;) {
      const { topicId, index } = this.#unmade.pop()!;
      const topic = this.#image!.topicById(topicId);
      if (topic === undefined || this.#partitions.get(topicId)?.has(index)) continue;
      this.#tryHost(topic, index);
      made++;
    }
    if (this.#unmade.length > 0 && !this.#isMaking) {
      this.#isMaking = true;
      this.#options.clock.nextTurn(() => {
        this.#isMaking = false;
        if (!this.#isClosed) this.#makeSome();
      });
    }
  }

  /** Makes no more partitions: the logs are about to close. */
  close(): void {
    this.#isClosed = true;
  }

  #applyTopic(topic: TopicImage): void {
    const { logConfig, minInSyncReplicas } = this.#options;
    for (let index = topic.partitions.length - 1; index >= 0; index--) {
      const hosted = this.#partitions.get(topic.id)?.get(index);
      if (hosted !== undefined) {
        hosted.become(this.#role(topic, index));
        hosted.configure(logConfig(topic), minInSyncReplicas(topic));
      } else if (this.#isOnDisk(topic, index)) this.#tryHost(topic, index);
      else if (!topic.isInternal) this.#unmade.push({ topicId: topic.id, index });
    }
    this.#applied.set(topic.id, topic);
  }

  /** Null when the partition does not exist or is not hosted here. */
  find(name: string, index: number): Partition | null {
    const topic = this.#image?.topicByName(name);
    return topic === undefined ? null : this.#findIn(topic, index);
  }

  findById(topicId: string, index: number): Partition | null {
    const topic = this.#image?.topicById(topicId);
    return topic === undefined ? null : this.#findIn(topic, index);
  }

  topicById(topicId: string): TopicImage | undefined {
    return this.#image?.topicById(topicId);
  }

  isInternal(name: string): boolean {
    return this.#image?.topicByName(name)?.isInternal ?? false;
  }

  *all(): Generator<Partition> {
    for (const partitions of this.#partitions.values()) yield* partitions.values();
  }

  #findIn(topic: TopicImage, index: number): Partition | null {
    // One that is not hosted is of an internal topic, or could not be made when the topic came.
    return this.#partitions.get(topic.id)?.get(index) ?? this.#tryHost(topic, index);
  }

  /** Null when the disk does not give it: the others go on, and it is tried again when it is asked for. */
  #tryHost(topic: TopicImage, index: number): Partition | null {
    try {
      return this.#host(topic, index);
    } catch (error) {
      const task = `making partition ${topic.name}-${index}`;
      this.#options.events.emit('backgroundFailed', { task, error });
      return null;
    }
  }

  #host(topic: TopicImage, index: number): Partition | null {
    const { logs, nodeId, minInSyncReplicas } = this.#options;
    if (topic.partitions[index]?.replicas.includes(nodeId) !== true) return null;
    const found = logs.get(topic.name, index);
    // Of a topic that was deleted and made again while this broker was away; or a bit of the id has turned.
    if (found !== undefined && found.topicId !== topic.id) {
      if (found.logEndOffset > 0) logs.setAside(found);
      else logs.delete(topic.name, index);
    }
    const log = logs.get(topic.name, index) ?? logs.create(topic.name, index, topic.id);
    const partition = new Partition(log, this.#role(topic, index), minInSyncReplicas(topic), this.#options);
    const partitions = this.#partitions.get(topic.id) ?? new Map<number, Partition>();
    this.#partitions.set(topic.id, partitions.set(index, partition));
    return partition;
  }

  #drop(topicId: string, partitions: Map<number, Partition>): void {
    this.#partitions.delete(topicId);
    this.#applied.delete(topicId);
    for (const partition of partitions.values()) {
      partition.close();
      this.#options.logs.delete(partition.log.topic, partition.log.partition);
    }
  }

  #role(topic: TopicImage, index: number): PartitionRole {
    const { leader, leaderEpoch, inSyncReplicas } = topic.partitions[index]!;
    return {
      isLeader: leader === this.#options.nodeId,
      leader,
      leaderEpoch,
      inSyncReplicas: inSyncReplicas.length,
    };
  }

  #isOnDisk(topic: TopicImage, index: number): boolean {
    return this.#options.logs.get(topic.name, index)?.topicId === topic.id;
  }
}
