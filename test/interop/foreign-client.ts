import type { CompressionCodec } from '@rookery/wire';

/** Another project's client, told in our words, so that one set of claims holds for all of them. */
export interface ForeignClient {
  readonly name: string;
  /** What it compresses with as it is installed. */
  readonly codecs: readonly CompressionCodec[];
  open(broker: string): ForeignSession;
}

export interface ForeignSession {
  send(topic: string, records: readonly SentRecord[], options?: SendOptions): Promise<void>;
  /** Reads `count` records of a partition, from an offset that the client is told to seek to. */
  readFrom(topic: string, partition: number, offset: number, count: number): Promise<ReadRecord[]>;
  /** Becomes a member; where the group has no offset, it begins at the start. */
  join(group: string, topic: string): Promise<ForeignMember>;
  createTopic(topic: string, partitions: number, configs: Readonly<Record<string, string>>): Promise<void>;
  deleteTopic(topic: string): Promise<void>;
  topics(): Promise<string[]>;
  configsOf(topic: string): Promise<Map<string, string | null>>;
  /** Log start and end of each partition, in order. */
  boundsOf(topic: string): Promise<{ start: number; end: number }[]>;
  /** The first offset at or after a time, of each partition, in order. */
  offsetsAt(topic: string, timestamp: number): Promise<number[]>;
  /** What the group has committed, by partition; those without an offset are left out. */
  committed(group: string, topic: string): Promise<Map<number, number>>;
  cluster(): Promise<{ id: string; brokers: string[] }>;
  close(): Promise<void>;
}

export interface ForeignMember {
  records(): readonly ReadRecord[];
  /** What it is assigned at the moment, in order. */
  partitions(): readonly number[];
  /** Commits what it has read, then leaves the group. */
  leave(): Promise<void>;
}

export interface SendOptions {
  readonly codec?: CompressionCodec;
  readonly acks?: 0 | 1 | -1;
  readonly idempotent?: boolean;
}

export interface SentRecord {
  readonly key?: string | null;
  readonly value: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly partition?: number;
}

export interface ReadRecord {
  readonly partition: number;
  readonly offset: number;
  readonly timestamp: number;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: Readonly<Record<string, string>>;
}
