import type { RookeryError } from './errors.ts';
import type { Logger } from './logger.ts';

/**
 * What a transport must be able to do: bytes out, bytes in, lanes, settlement. Everything else (codecs,
 * validation, order of handling, retries, commits) is the engine's, once for all drivers.
 *
 * A lane is what keeps its order: for logs, a partition. Rules that every driver keeps: it never decodes, never
 * retries a handler, never acknowledges on its own; it delivers a lane's records in the order of their offsets;
 * it holds no timer or socket after `close`.
 */
export interface Driver {
  readonly name: string;
  readonly capabilities: Capabilities;
  /** Never fails because nobody is there yet: the connection goes on trying. */
  connect(env: DriverEnv): DriverConnection;
}

export interface DriverEnv {
  readonly clientId: string;
  readonly logger: Logger;
  /** Milliseconds until a produced record is given up. */
  readonly publishTimeoutMs: number;
}

/** What may be asked of a driver. Asking for what it lacks is RK2001 when the service boots. */
export interface Capabilities {
  readonly consumerGroups: boolean;
  readonly keys: boolean;
  readonly headers: boolean;
  /** Records without a value. */
  readonly tombstones: boolean;
  /** Making topics with partitions and settings. */
  readonly topicAdmin: boolean;
  /** A consumer that comes back under its instance id keeps its lanes. */
  readonly staticMembership: boolean;
}

export type ConnectionStatus = 'connecting' | 'ready' | 'reconnecting' | 'closed';

export interface RecordHeader {
  readonly key: string;
  readonly value: Uint8Array | null;
}

export interface OutRecord {
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
  readonly headers: readonly RecordHeader[];
  /** Milliseconds since the epoch. */
  readonly timestamp: number;
}

export interface InRecord {
  readonly offset: number;
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: readonly { readonly key: string; readonly value: Buffer | null }[];
}

export interface DeliveryReceipt {
  delivered(offset: number, timestamp: number): void;
  failed(error: RookeryError): void;
}

export interface TopicSpec {
  readonly name: string;
  readonly partitions: number | null;
  readonly configs: Readonly<Record<string, string>>;
}

export interface DriverConnection {
  readonly status: ConnectionStatus;
  onStatus(listener: (status: ConnectionStatus, error: unknown) => void): void;
  /** What it is connected to, without any secret. */
  describe(): string;
  /** Lanes of the topic, as soon as somebody knows. @throws RookeryError RK2003, RK1004, or the signal's reason */
  lanes(topic: string, signal: AbortSignal): Promise<number>;
  /** Lanes of the topic as they are known now, which may become more; 0 when nobody has said. */
  lanesNow(topic: string): number;
  /** The lane of a key; without a key, a lane that suits the driver. */
  place(topic: string, key: Uint8Array | null, lanes: number): number;
  /** Hands a record over; the receipt is told once. Calls of one turn travel together. */
  produce(topic: string, lane: number, record: OutRecord, receipt: DeliveryReceipt): void;
  /** Makes what is missing. @throws RookeryError RK2003 when a topic cannot be made, or the signal's reason */
  ensureTopics(topics: readonly TopicSpec[], signal: AbortSignal): Promise<void>;
  subscribe(spec: SubscriptionSpec, sink: Sink): DriverSubscription;
  /** Lets what was handed over leave, for at most so long. */
  close(deadlineMs: number): Promise<void>;
}

export interface SubscriptionSpec {
  readonly group: string;
  readonly topics: readonly string[];
  /** Where to begin when nothing has been acknowledged yet. */
  readonly from: 'earliest' | 'latest';
  readonly instanceId: string | null;
}

/** One lane while it is assigned: after a rebalance it is another object, which is how stale work is told apart. */
export interface Lane {
  readonly topic: string;
  readonly partition: number;
}

/** The engine's side of a subscription. */
export interface Sink {
  assigned(lanes: readonly Lane[]): void;
  /** Awaited before the lanes go to others: what is being handled is finished and acknowledged in here. */
  revoking(lanes: readonly Lane[]): Promise<void>;
  /** The lanes have gone already. */
  lost(lanes: readonly Lane[]): void;
  /** In order, and never more than were requested. */
  records(lane: Lane, records: readonly InRecord[]): void;
  /** Something is being tried again. */
  troubled(error: Error): void;
  /** The subscription has ended for good. */
  failed(error: Error): void;
}

export interface DriverSubscription {
  /** Asks for so many more records of the lane; less than 0 takes back what was asked for and has not come. */
  request(lane: Lane, count: number): void;
  /**
   * Everything before `next` is done with.
   * @throws RookeryError RK5005 when the lane has gone
   */
  ack(lane: Lane, next: number): Promise<void>;
  /** No more records; acknowledging goes on. */
  stop(): void;
  /** Gives the lanes back and leaves the group. */
  close(): Promise<void>;
}
