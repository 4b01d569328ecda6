/** What is asked of a broker, and of which. */
export interface Load {
  /** `host:port` */
  readonly address: string;
  /** It exists. */
  readonly topic: string;
  readonly partitions: number;
  readonly records: number;
  /** Bytes of each record's value. */
  readonly valueBytes: number;
  readonly codec: 'none' | 'zstd';
}

/** In milliseconds. */
export interface Latency {
  readonly p50: number;
  readonly p99: number;
  /** Where the tool that measures tells no fine percentiles, it tells this. */
  readonly mean?: number;
}

/** Somebody who puts load on brokers, on each of them in the same way, and tells how it went. */
export interface LoadGenerator {
  readonly name: string;
  /** As fast as it goes, `acks=all`. @returns records a second */
  produce(load: Load): Promise<number>;
  /** One record after the other, each sent when the one before is acknowledged. */
  acknowledged(load: Load): Promise<Latency>;
  /** Everything from the beginning, by several readers of their own at once. @returns records a second, of all */
  consume(load: Load, readers: number): Promise<number>;
  /** One record after the other, each sent when the one before has reached a reader. */
  delivered(load: Load): Promise<Latency>;
}
