import type { Change, MetaStore } from './meta-store.ts';

/** Where things are in the metadata store. Values are JSON. */
export const keys = {
  brokers: 'brokers/',
  broker: (id: number) => `brokers/${id}`,
  topics: 'topics/',
  topic: (id: string) => `topics/${id}`,
  /**
   * Who has a topic's name: the topic's id. Kafka's metrics fold '.' and '_' into one another, so it refuses names
   * that differ in nothing else; under the folded name no two such topics can be made, not even at once.
   */
  topicName: (name: string) => `topicnames/${name.replaceAll('.', '_')}`,
  nextProducerId: 'pids/next',
} as const;

export interface BrokerImage {
  readonly id: number;
  readonly host: string;
  readonly port: number;
  readonly rack: string | null;
}

export interface PartitionImage {
  /** −1 while there is none. */
  readonly leader: number;
  readonly leaderEpoch: number;
  readonly replicas: readonly number[];
  readonly inSyncReplicas: readonly number[];
}

export interface TopicImage {
  readonly id: string;
  readonly name: string;
  readonly isInternal: boolean;
  /** By partition number. */
  readonly partitions: readonly PartitionImage[];
  /** Settings that differ from the broker's, as they were given. */
  readonly configs: Readonly<Record<string, string>>;
}

/** What the store said when it was last heard: topics, partitions, brokers. Never changes; a newer one replaces it. */
export class ClusterImage {
  readonly #topicsById: ReadonlyMap<string, TopicImage>;
  readonly #topicsByName: ReadonlyMap<string, TopicImage>;
  readonly #brokers: ReadonlyMap<number, BrokerImage>;

  constructor(topics: Iterable<TopicImage>, brokers: Iterable<BrokerImage>) {
    this.#topicsById = new Map([...topics].map((topic) => [topic.id, topic]));
    this.#topicsByName = new Map([...this.#topicsById.values()].map((topic) => [topic.name, topic]));
    this.#brokers = new Map([...brokers].map((broker) => [broker.id, broker]));
  }

  static readonly empty = new ClusterImage([], []);

  topics(): Iterable<TopicImage> {
    return this.#topicsById.values();
  }

  brokers(): Iterable<BrokerImage> {
    return this.#brokers.values();
  }

  topicByName(name: string): TopicImage | undefined {
    return this.#topicsByName.get(name);
  }

  topicById(id: string): TopicImage | undefined {
    return this.#topicsById.get(id);
  }

  hasBroker(id: number): boolean {
    return this.#brokers.has(id);
  }

  /** The image after these changes of the store. */
  with(changes: readonly Change[]): ClusterImage {
    const topics = new Map(this.#topicsById);
    const brokers = new Map(this.#brokers);
    for (const { key, value } of changes) {
      if (key.startsWith(keys.topics)) set(topics, key.slice(keys.topics.length), value);
      else if (key.startsWith(keys.brokers)) set(brokers, Number(key.slice(keys.brokers.length)), value);
    }
    return new ClusterImage(topics.values(), brokers.values());
  }
}

function set<K, V>(map: Map<K, V>, key: K, value: string | null): void {
  if (value === null) map.delete(key);
  else map.set(key, JSON.parse(value) as V);
}

/** Keeps the newest image and tells who wants to know. */
export class ClusterView {
  #image: ClusterImage;
  readonly #listeners: ((image: ClusterImage) => void)[] = [];
  readonly #stop: () => void;

  private constructor(image: ClusterImage, store: MetaStore) {
    this.#image = image;
    this.#stop = store.watch('', (changes) => this.#take(changes));
  }

  static async open(store: MetaStore): Promise<ClusterView> {
    const entries = await store.range('');
    return new ClusterView(ClusterImage.empty.with(entries), store);
  }

  get image(): ClusterImage {
    return this.#image;
  }

  /** Runs now, and with every newer image. */
  onChange(listener: (image: ClusterImage) => void): void {
    this.#listeners.push(listener);
    listener(this.#image);
  }

  close(): void {
    this.#stop();
  }

  #take(changes: readonly Change[]): void {
    this.#image = this.#image.with(changes);
    for (const listener of this.#listeners) listener(this.#image);
  }
}
