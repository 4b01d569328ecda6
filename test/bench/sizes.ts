/** How much of everything a bench does. */
export interface Sizes {
  /** Records of each run that is about throughput. */
  readonly records: number;
  readonly valueBytes: number;
  /** Records of each run that is about latency. */
  readonly singles: number;
  readonly readers: number;
  /** Bytes that go through a broker before its memory is looked at, and through a log that shall be large. */
  readonly bulkBytes: number;
  /** Of a broker that has many. */
  readonly manyPartitions: number;
  /** How long a broker is watched while nobody asks it anything. */
  readonly idleMs: number;
}
