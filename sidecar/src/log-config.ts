/** A topic's settings as far as its logs act on them. Sizes in bytes, times in milliseconds. */
export interface LogConfig {
  readonly segmentBytes: number;
  readonly segmentMs: number;
  readonly segmentJitterMs: number;
  readonly segmentIndexBytes: number;
  readonly indexIntervalBytes: number;
  readonly maxMessageBytes: number;
  readonly timestampType: 'CreateTime' | 'LogAppendTime';
  readonly timestampBeforeMaxMs: number;
  readonly timestampAfterMaxMs: number;
  /** `cleanup.policy` has `compact`. */
  readonly isCompacted: boolean;
  /** `cleanup.policy` has `delete`. */
  readonly isDeleted: boolean;
  /** The broker's own topic: it may use the last free bytes of the disk. */
  readonly isInternal: boolean;
  /** Infinity for no limit. */
  readonly retentionMs: number;
  /** Infinity for no limit. */
  readonly retentionBytes: number;
  readonly fileDeleteDelayMs: number;
  readonly deleteRetentionMs: number;
  readonly minCleanableDirtyRatio: number;
  readonly minCompactionLagMs: number;
  readonly maxCompactionLagMs: number;
  /** `producer` keeps what producers sent. */
  readonly compressionType: 'producer' | 'uncompressed' | 'gzip' | 'snappy' | 'lz4' | 'zstd';
  /** Of the codec that `compressionType` names, where it has levels. */
  readonly compressionLevel: number | null;
  /**
   * What an acknowledgement covers: `sync` a successful fdatasync; `interval` the page cache, synced every
   * `flushMs` or `flushMessages`; `os` the page cache.
   */
  readonly flushMode: 'sync' | 'interval' | 'os';
  readonly flushMs: number;
  readonly flushMessages: number;
}
