import { randomUuid, type Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { Checkpoint, type Offsets } from './checkpoint.ts';
import { Cleaner } from './cleaner.ts';
import { compact, type CompactionPlan, type CompactionResult } from './compaction.ts';
import type { DataDirectory } from './data-directory.ts';
import { DeferredDeletion } from './deferred-deletion.ts';
import type { DiskSpace } from './disk-space.ts';
import { Flusher, unsyncedBytesMax } from './flusher.ts';
import type { LogConfig } from '../log-config.ts';
import type { Checkpointed } from './log-loader.ts';
import { partitionMetadata, readTopicId, syncNames, writeTopicId } from './partition-directory.ts';
import { PartitionLog, type LogDeps } from './partition-log.ts';
import { Scrubber } from './scrubber.ts';
import { logSuffix, segmentName } from './segment.ts';
import { sideBySide } from './side-by-side.ts';
import type { TailCache } from './tail-cache.ts';

export interface LogManagerOptions {
  readonly fs: FileSystem;
  /** Opened and locked by whoever else keeps files in it too. */
  readonly directory: DataDirectory;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly space: DiskSpace;
  readonly tails: TailCache;
  readonly configOf: (topic: string) => LogConfig;
  readonly cleaner: {
    readonly isEnabled: boolean;
    readonly backoffMs: number;
    readonly mapBytesMax: number;
    /** Where plans are carried out; on the loop where nothing is said. */
    readonly compact?: (plan: CompactionPlan, signal: AbortSignal) => Promise<CompactionResult>;
  };
  /** How fast closed segments are read again; 0 or nothing for never. */
  readonly scrubBytesPerSecond?: number;
  /** Bytes that may be written and not synced; 256 MiB unless a test wants fewer. */
  readonly unsyncedBytesMax?: number;
}

const deletedSuffix = '-delete';
/** Behind the name of a directory whose records are not those of the topic that has its name; Kafka's word. */
const straySuffix = '-stray';
const closedAtOnce = 64;
/** The longest name that file systems take. */
const nameMax = 255;

/** Every partition log of a data directory, and the checkpoints they share. */
export class LogManager {
  readonly #options: LogManagerOptions;
  readonly #flusher: Flusher;
  readonly #logDeps: LogDeps;
  readonly #logs = new Map<string, PartitionLog>();
  readonly #recoveryPoints: Checkpoint;
  readonly #startOffsets: Checkpoint;
  readonly #highWatermarks: Checkpoint;
  readonly #deletion: DeferredDeletion;
  readonly #cleaner: Cleaner | null;
  readonly #scrubber: Scrubber;
  /** How far each log was compacted. One that is named may have holes, whatever its topic's settings say today. */
  readonly #compactedTo: Map<string, number>;
  readonly #cleanerOffsets: Checkpoint;
  /** Which logs were compacted cannot be read any more, so any of them may have been. */
  readonly #hasForgottenHoles: boolean;
  /** What the checkpoints said at the start; null for one that is missing or damaged. */
  readonly #foundPoints: Offsets | null;
  readonly #foundStarts: Offsets | null;
  /** Recovery points of partitions that had no log at the start. */
  readonly #missing = new Map<string, number>();
  /**
   * Resolves when what was recovered of logs in sync mode is on the platter. A crash may have left it in the page
   * cache alone, and there nobody may read before that; in the other modes the background sync gets to it.
   */
  readonly recovered: Promise<void>;
  #nameSync: Promise<void> = Promise.resolve();
  #nextNameSync: Promise<void> | null = null;
  #isCheckpointing = false;
  #isRetaining = false;

  private constructor(options: LogManagerOptions) {
    const { fs, directory } = options;
    this.#options = options;
    this.#recoveryPoints = new Checkpoint(fs, `${directory.path}/recovery-point-offset-checkpoint`);
    this.#startOffsets = new Checkpoint(fs, `${directory.path}/log-start-offset-checkpoint`);
    this.#foundPoints = this.#found(this.#recoveryPoints);
    this.#foundStarts = this.#found(this.#startOffsets);
    this.#highWatermarks = new Checkpoint(fs, `${directory.path}/replication-offset-checkpoint`);
    this.#deletion = new DeferredDeletion(options);
    this.#cleanerOffsets = new Checkpoint(fs, `${directory.path}/cleaner-offset-checkpoint`);
    const compactedTo = this.#found(this.#cleanerOffsets);
    this.#hasForgottenHoles = compactedTo === null;
    this.#compactedTo = new Map(compactedTo ?? []);
    this.#cleaner = this.#openCleaner(() => this.#cleanerOffsets.write(() => this.#compactedTo));
    this.#scrubber = new Scrubber({
      clock: options.clock,
      events: options.events,
      logs: () => this.#logs.values(),
      bytesPerSecond: options.scrubBytesPerSecond ?? 0,
    });
    this.#flusher = new Flusher(
      options.clock,
      options.unsyncedBytesMax ?? unsyncedBytesMax,
      fs.descriptors,
      () => void this.checkpoint(),
    );
    this.#logDeps = this.#makeLogDeps();
    this.#openAll();
    options.space.makingRoomNow(() => options.directory.trustAgain());
    const logs = [...this.#logs.values()];
    const waiting = logs.filter((log) => log.config.flushMode === 'sync' && !log.isSynced);
    this.recovered = waiting.length > 0 ? this.#flusher.syncAll(waiting) : Promise.resolve();
  }

  /** Opens every log of the directory. Nothing may be read of them before `recovered`. */
  static open(options: LogManagerOptions): LogManager {
    return new LogManager(options);
  }

  all(): Iterable<PartitionLog> {
    return this.#logs.values();
  }

  get(topic: string, partition: number): PartitionLog | undefined {
    return this.#logs.get(`${topic}-${partition}`);
  }

  /**
   * Makes the partition's directory. Nothing is synced: a topic may have thousands, and one that a power cut takes is
   * made again. Their names are durable before anything in them is acknowledged (`#syncNames`).
   */
  create(topic: string, partition: number, topicId: string): PartitionLog {
    const { fs, directory, events } = this.#options;
    const name = `${topic}-${partition}`;
    const path = `${directory.path}/${name}`;
    if (fs.isDirectory(path) && hasRecords(fs, path)) return this.#adopt(topic, partition, topicId);
    const recoveryPoint = this.#missing.get(name) ?? 0;
    if (recoveryPoint > 0) events.emit('recordsMissing', { partition: name, recoveryPoint });
    this.#forget(name);
    fs.makeDirectory(path);
    fs.open(`${path}/${segmentName(0)}${logSuffix}`, 'create').release();
    writeTopicId(fs, path, topicId);
    return this.#open(topic, partition, topicId, {
      logStartOffset: 0,
      recoveryPoint: 0,
      isMarked: true,
      isSameBoot: true,
      distrustedFrom: null,
      wasCut: false,
      rot: null,
      mayHaveHoles: false,
    });
  }

  /** The file that says whose directory it is has been lost, and nothing else: the records are still this topic's. */
  #adopt(topic: string, partition: number, topicId: string): PartitionLog {
    const { fs, directory, events } = this.#options;
    const name = `${topic}-${partition}`;
    const path = `${directory.path}/${name}`;
    writeTopicId(fs, path, topicId);
    events.emit('metadataRestored', { partition: name, file: `${path}/${partitionMetadata}` });
    return this.#open(topic, partition, topicId, this.#checkpointedAtStart(name, topic));
  }

  async #syncNames(path: string): Promise<void> {
    await syncNames(this.#options.fs, path);
    await this.#syncOwnNames();
  }

  /** The partitions' names. Whoever comes while a sync runs waits for the next one, with all others who did. */
  #syncOwnNames(): Promise<void> {
    const { fs, directory } = this.#options;
    this.#nextNameSync ??= this.#nameSync
      .catch(() => {})
      .then(() => {
        this.#nextNameSync = null;
        this.#nameSync = fs.syncDirectory(directory.path);
        return this.#nameSync;
      });
    return this.#nextNameSync;
  }

  /** What is remembered of a log of this name that is gone. */
  #forget(name: string): void {
    this.#missing.delete(name);
    this.#compactedTo.delete(name);
    this.#recoveryPoints.forgetNow(name, () => this.#offsets((log) => log.recoveryPoint));
    this.#startOffsets.forgetNow(name, () => this.#offsets((log) => log.logStartOffset));
    this.#cleanerOffsets.forgetNow(name, () => this.#compactedTo);
    this.#options.directory.release(name);
  }

  /** Gone from sight when it returns; the files go later. */
  delete(topic: string, partition: number): void {
    const log = this.get(topic, partition);
    if (log === undefined) return;
    this.#deletion.directory(this.#rename(log, deletedSuffix), log.config.fileDeleteDelayMs);
  }

  /** Gone from sight when it returns, but its files stay for whoever needs them: it is not known whose they are. */
  setAside(log: PartitionLog): void {
    const directory = this.#rename(log, straySuffix);
    const { name, topicId, logEndOffset } = log;
    this.#options.events.emit('logSetAside', { partition: name, directory, topicId, logEndOffset });
  }

  /** @returns its new path */
  #rename(log: PartitionLog, kind: string): string {
    const { fs, directory, clock } = this.#options;
    const { name } = log;
    this.#logs.delete(name);
    this.#compactedTo.delete(name);
    directory.release(name);
    this.#flusher.forget(log);
    log.abandon();
    const suffix = `.${Buffer.from(randomUuid(clock), 'base64url').toString('hex')}${kind}`;
    const aside = `${directory.path}/${name.slice(0, nameMax - suffix.length)}${suffix}`;
    fs.rename(log.directory, aside);
    fs.syncDirectoryNow(directory.path);
    return aside;
  }

  /** Writes how far each log is known to be on disk. */
  async checkpoint(): Promise<void> {
    if (this.#isCheckpointing) return;
    this.#isCheckpointing = true;
    try {
      this.#flushIndexes();
      await this.#options.space.makingRoom(async () => {
        await this.#checkpointRecoveryPoints();
        await this.#checkpointStarts();
        await this.#highWatermarks.write(() => this.#offsets((log) => log.highWatermark));
      });
    } catch (error) {
      this.#options.events.emit('backgroundFailed', { task: 'checkpoint', error });
    } finally {
      this.#isCheckpointing = false;
    }
  }

  /** As far as there is room for them: the checkpoints need less. */
  #flushIndexes(): void {
    try {
      for (const log of this.#logs.values()) log.flushIndexes();
    } catch (error) {
      this.#options.events.emit('backgroundFailed', { task: 'putting index entries into files', error });
    }
  }

  /** One pass over every log: rolls and deletes what has outlived its limits. */
  async retain(): Promise<void> {
    if (this.#isRetaining) return;
    this.#isRetaining = true;
    for (const log of [...this.#logs.values()]) {
      try {
        await log.retain();
        await log.mend();
        log.rest();
      } catch (error) {
        this.#options.events.emit('backgroundFailed', { task: `retention of ${log.name}`, error });
      }
      // Appends that have come in meanwhile are first.
      await new Promise<void>((resolve) => this.#options.clock.nextTurn(resolve));
    }
    this.#isRetaining = false;
  }

  /** Compacts whatever is due, now. */
  async compact(): Promise<void> {
    await this.#cleaner?.clean();
  }

  /** Reads every closed segment again, now. */
  scrub(): Promise<void> {
    return this.#scrubber.scrub();
  }

  /** Forgets producers that were silent for so long. */
  expireProducers(silentMs: number): void {
    const before = this.#options.clock.now() - silentMs;
    for (const log of this.#logs.values()) log.expireProducers(before);
  }

  /** What a checkpoint says at the start. Null when it is missing or damaged. */
  #found(checkpoint: Checkpoint): Offsets | null {
    const { fs, events } = this.#options;
    const found = checkpoint.read();
    if (found === null && fs.exists(checkpoint.path))
      events.emit('checkpointDamaged', { file: checkpoint.path });
    return found;
  }

  /** Everything to disk, the checkpoints, and last of all the marker. */
  async close(): Promise<void> {
    await this.#cleaner?.stop();
    this.#deletion.stop();
    this.#flusher.stop();
    this.#scrubber.stop();
    this.#options.space.makeRoomForStop();
    let areWhole = true;
    // Each opens a few files, and there may be more logs than descriptors.
    await sideBySide([...this.#logs.values()], closedAtOnce, async (log) => {
      const isWhole = await log.close();
      areWhole &&= isWhole;
    });
    try {
      this.#recoveryPoints.writeNow(this.#offsets((log) => log.recoveryPoint));
      this.#startOffsets.writeNow(this.#offsets((log) => log.logStartOffset));
      this.#highWatermarks.writeNow(this.#offsets((log) => log.highWatermark));
      if (areWhole) this.#options.directory.markCleanStop();
    } catch (error) {
      // Without the marker the next start looks for itself.
      this.#options.events.emit('backgroundFailed', { task: 'the checkpoints of an orderly stop', error });
    }
  }

  #openCleaner(checkpoint: () => Promise<void>): Cleaner | null {
    const { fs, clock, events, cleaner } = this.#options;
    if (!cleaner.isEnabled) return null;
    return new Cleaner({
      clock,
      events,
      checkpoint,
      logs: () => this.#logs.values(),
      compactedTo: this.#compactedTo,
      compact: cleaner.compact ?? (async (plan) => compact(fs, plan)),
      backoffMs: cleaner.backoffMs,
      mapBytesMax: cleaner.mapBytesMax,
    });
  }

  #checkpointRecoveryPoints(): Promise<void> {
    return this.#recoveryPoints.write(() => this.#offsets((log) => log.recoveryPoint));
  }

  #checkpointStarts(): Promise<void> {
    return this.#startOffsets.write(() => this.#offsets((log) => log.logStartOffset));
  }

  #offsets(of: (log: PartitionLog) => number): Map<string, number> {
    return new Map([...this.#logs].map(([name, log]) => [name, of(log)]));
  }

  #openAll(): void {
    const { fs, directory } = this.#options;
    // Files are deleted by what is read here, so it must not be in the page cache alone.
    fs.syncDirectoryNow(directory.path);
    const isFirstStart = this.#foundPoints === null && this.#foundStarts === null;
    let hasLogs = false;
    for (const name of fs.list(directory.path)) {
      const [, topic, partition] = /^(.+)-(\d+)$/.exec(name) ?? [];
      const path = `${directory.path}/${name}`;
      if (name.endsWith(deletedSuffix) && fs.isDirectory(path)) {
        this.#deletion.directory(path, 0);
        continue;
      }
      if (topic === undefined) continue;
      const topicId = readTopicId(fs, path);
      if (topicId === null) continue;
      hasLogs = true;
      this.#open(topic, Number(partition), topicId, this.#checkpointedAtStart(name, topic));
    }
    for (const [name, offset] of this.#foundPoints ?? [])
      if (!this.#logs.has(name)) this.#missing.set(name, offset);
    // From now on, a checkpoint that is not there was lost.
    if (isFirstStart && !hasLogs) this.#recoveryPoints.writeNow(new Map());
    this.#nameCompacted();
  }

  /** Keeps what is known of holes now: the settings by which it is known may change. */
  #nameCompacted(): void {
    let isNews = this.#hasForgottenHoles;
    for (const { name, logStartOffset, mayHaveHoles } of this.#logs.values()) {
      if (!mayHaveHoles || this.#compactedTo.has(name)) continue;
      this.#compactedTo.set(name, logStartOffset);
      isNews = true;
    }
    if (isNews) this.#options.space.makingRoomNow(() => this.#cleanerOffsets.writeNow(this.#compactedTo));
  }

  #checkpointedAtStart(name: string, topic: string): Checkpointed {
    const { directory, configOf } = this.#options;
    const points = this.#foundPoints;
    return {
      logStartOffset: this.#foundStarts?.get(name) ?? null,
      recoveryPoint: points === null ? 'lost' : (points.get(name) ?? null),
      isMarked: directory.wasCleanlyStopped,
      isSameBoot: directory.isSameBoot,
      distrustedFrom: directory.distrustedFrom(name),
      wasCut: directory.wasCut(name),
      rot: directory.rotOf(name),
      mayHaveHoles: this.#hasForgottenHoles || configOf(topic).isCompacted || this.#compactedTo.has(name),
    };
  }

  #open(topic: string, partition: number, topicId: string, found: Checkpointed): PartitionLog {
    const { directory, configOf } = this.#options;
    const log = PartitionLog.open(
      { topic, partition, topicId, directory: `${directory.path}/${topic}-${partition}` },
      configOf(topic),
      this.#logDeps,
      found,
    );
    this.#logs.set(log.name, log);
    return log;
  }

  /** The same for all logs: there may be thousands. */
  #makeLogDeps(): LogDeps {
    const { fs, directory, clock, events, space, tails } = this.#options;
    return {
      fs,
      clock,
      events,
      space,
      tails,
      flusher: this.#flusher,
      distrust: (name, from) => this.#leaveWord(name, () => directory.distrust(name, from)),
      willCut: (name) => this.#leaveWord(name, () => directory.willCut(name)),
      syncNames: (path) => this.#syncNames(path),
      quarantine: (name, rot) => this.#leaveWord(name, () => directory.quarantine(name, rot)),
      deletion: this.#deletion,
      checkpoints: {
        starts: () => this.#checkpointStarts(),
        recoveryPoints: () => this.#checkpointRecoveryPoints(),
      },
    };
  }

  /** The disk that failed may refuse this too. */
  #leaveWord(name: string, leave: () => void): void {
    try {
      leave();
    } catch (error) {
      this.#options.events.emit('backgroundFailed', { task: `leaving word of ${name}`, error });
    }
  }
}

const hasRecords = (fs: FileSystem, path: string): boolean =>
  fs.list(path).some((name) => name.endsWith(logSuffix) && fs.size(`${path}/${name}`) > 0);
