import { encodeBatch, RecordBatch, type BatchOptions, type NewRecord } from '@rookery/wire';
import { systemClock } from '../clock.ts';
import { EventBus, type Events } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import { ManualClock } from '../manual-clock.ts';
import { MemoryFileSystem } from '../vfs/memory.ts';
import type { CompactionPlan, CompactionResult } from './compaction.ts';
import { DataDirectory } from './data-directory.ts';
import { DiskSpace } from './disk-space.ts';
import { LogManager } from './log-manager.ts';
import type { PartitionLog } from './partition-log.ts';
import { TailCache } from './tail-cache.ts';

/** Small segments and dense indexes, so that a test sees many of them. */
export const smallLogs: LogConfig = {
  segmentBytes: 4096,
  segmentMs: Infinity,
  segmentJitterMs: 0,
  segmentIndexBytes: 1024,
  indexIntervalBytes: 256,
  maxMessageBytes: 2048,
  timestampType: 'CreateTime',
  timestampBeforeMaxMs: Infinity,
  timestampAfterMaxMs: Infinity,
  isCompacted: false,
  isDeleted: true,
  isInternal: false,
  retentionMs: Infinity,
  retentionBytes: Infinity,
  fileDeleteDelayMs: 0,
  deleteRetentionMs: 0,
  minCleanableDirtyRatio: 0,
  minCompactionLagMs: 0,
  maxCompactionLagMs: Infinity,
  compressionType: 'producer',
  compressionLevel: null,
  flushMode: 'sync',
  flushMs: Infinity,
  flushMessages: Infinity,
};

export interface MemoryLogs {
  readonly fs: MemoryFileSystem;
  readonly clock: ManualClock;
  readonly directory: DataDirectory;
  readonly space: DiskSpace;
  readonly tails: TailCache;
  readonly logs: LogManager;
  /** What happened so far, by the events' names. */
  happened<K extends keyof Events>(name: K): Events[K][];
  /** The log of a topic's partition 0, made if it is not there. */
  log(topic?: string): PartitionLog;
  /** Everything that was appended is written, and everything that waits for the pool has run. */
  settle(): Promise<void>;
}

const dataDir = '/data';
const topicId = 'AAAAAAAAAAAAAAAAAAAAAA';

/** A data directory on a disk in memory, with time that stands still: for the tests of this room. */
export function openMemoryLogs(
  options: {
    readonly fs?: MemoryFileSystem;
    readonly config?: Partial<LogConfig>;
    readonly tailCacheBytes?: number;
    readonly minFreeBytes?: number;
    readonly reserveBytes?: number;
    readonly unsyncedBytesMax?: number;
    readonly mapBytesMax?: number;
    readonly compact?: (plan: CompactionPlan) => Promise<CompactionResult>;
  } = {},
): MemoryLogs {
  const { fs = new MemoryFileSystem(), config = {}, minFreeBytes = 0, reserveBytes = 0 } = options;
  const { unsyncedBytesMax } = options;
  const clock = new ManualClock();
  const events = new EventBus();
  const happened = new Map<string, unknown[]>();
  recordEvents(events, happened);
  nameBoot(fs);
  const directory = DataDirectory.open(fs, dataDir, 1, clock);
  const space = new DiskSpace({ fs, directory: dataDir, clock, events, minFreeBytes, reserveBytes });
  const tails = new TailCache(options.tailCacheBytes ?? 1024 * 1024);
  const configOf = (): LogConfig => ({ ...smallLogs, ...config });
  const limits = unsyncedBytesMax === undefined ? {} : { unsyncedBytesMax };
  const cleaner = {
    isEnabled: true,
    backoffMs: 1e12,
    mapBytesMax: options.mapBytesMax ?? 1e6,
    ...(options.compact && { compact: options.compact }),
  };
  const logs = LogManager.open({ fs, directory, clock, events, space, tails, configOf, cleaner, ...limits });
  return {
    fs,
    clock,
    directory,
    space,
    tails,
    logs,
    happened: (name) => (happened.get(name) ?? []) as never,
    log: (topic = 'orders') => logs.get(topic, 0) ?? logs.create(topic, 0, topicId),
    async settle() {
      // A sync is several promises deep, and its end may begin the next one.
      for (let turn = 0; turn < 10; turn++) {
        clock.turn();
        await new Promise<void>((resolve) => systemClock.nextTurn(resolve));
      }
    },
  };
}

/** The kernel's name for the time since the power came. */
function nameBoot(fs: MemoryFileSystem): void {
  fs.makeDirectory('/proc/sys/kernel/random');
  const file = fs.open('/proc/sys/kernel/random/boot_id', 'create');
  file.truncateNow(0);
  file.writeNow([Buffer.from(`power came ${fs.powerCuts} times`)], 0);
  file.release();
}

function recordEvents(events: EventBus, happened: Map<string, unknown[]>): void {
  const emit = events.emit.bind(events);
  events.emit = (name, info) => {
    happened.set(name, [...(happened.get(name) ?? []), info]);
    emit(name, info);
  };
}

/** Changes a file's bytes where they lie, also under a broker that has it open. */
export function changeFile(fs: MemoryFileSystem, path: string, by: (bytes: Buffer) => void): void {
  const file = fs.open(path, 'write');
  const bytes = Buffer.alloc(file.size());
  file.readNow(bytes, 0);
  by(bytes);
  file.writeNow([bytes], 0);
  file.syncNow();
  file.release();
}

/** One batch of records with these values. */
export function batchOf(values: readonly string[], options: BatchOptions & { timestamp?: number } = {}) {
  const { timestamp = 1_700_000_000_000, ...rest } = options;
  const records: NewRecord[] = values.map((value) => ({
    key: null,
    value: Buffer.from(value),
    headers: [],
    timestamp,
  }));
  return RecordBatch.split([encodeBatch(records, rest)])[0]!;
}
