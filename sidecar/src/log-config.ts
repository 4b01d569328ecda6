/** A topic's settings as far as its logs act on them. Sizes in bytes, times in milliseconds. */
export interface LogConfig {
  readonly segmentBytes: number;
  readonly segmentMs: number;
  readonly segmentIndexBytes: number;
  readonly indexIntervalBytes: number;
  readonly maxMessageBytes: number;
  readonly timestampType: 'CreateTime' | 'LogAppendTime';
  readonly timestampBeforeMaxMs: number;
  readonly timestampAfterMaxMs: number;
  readonly isCompacted: boolean;
  /**
   * What an acknowledgement covers: `sync` a successful fdatasync; `interval` the page cache, synced every
   * `flushMs` or `flushMessages`; `os` the page cache.
   */
  readonly flushMode: 'sync' | 'interval' | 'os';
  readonly flushMs: number;
  readonly flushMessages: number;
}
