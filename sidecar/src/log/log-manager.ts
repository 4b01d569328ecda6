import { randomUuid, type Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { readFile, writeAtomicallyNow, type FileSystem } from '../vfs/file-system.ts';
import { Checkpoint } from './checkpoint.ts';
import { DataDirectory, type Identity } from './data-directory.ts';
import { Flusher } from './flusher.ts';
import type { LogConfig } from '../log-config.ts';
import { PartitionLog } from './partition-log.ts';

export interface LogManagerOptions {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly nodeId: number;
  readonly clock: Clock;
  readonly events: EventBus;
  readonly configOf: (topic: string) => LogConfig;
}

const deletedSuffix = '-delete';
const partitionMetadata = 'partition.metadata';
/** The longest name that file systems take. */
const nameMax = 255;

/** Every partition log of a data directory, and the checkpoints they share. */
export class LogManager {
  readonly #options: LogManagerOptions;
  readonly #directory: DataDirectory;
  readonly #flusher: Flusher;
  readonly #logs = new Map<string, PartitionLog>();
  readonly #recoveryPoints: Checkpoint;
  readonly #startOffsets: Checkpoint;
  #isCheckpointing = false;

  private constructor(options: LogManagerOptions, directory: DataDirectory) {
    this.#options = options;
    this.#directory = directory;
    this.#recoveryPoints = new Checkpoint(
      options.fs,
      `${options.directory}/recovery-point-offset-checkpoint`,
    );
    this.#startOffsets = new Checkpoint(options.fs, `${options.directory}/log-start-offset-checkpoint`);
    this.#flusher = new Flusher(options.clock, () => void this.checkpoint());
  }

  /** @throws SidecarError for a directory that cannot be had */
  static open(options: LogManagerOptions): LogManager {
    const directory = DataDirectory.open(options.fs, options.directory, options.nodeId, options.clock);
    const manager = new LogManager(options, directory);
    manager.#openAll();
    return manager;
  }

  get identity(): Identity {
    return this.#directory.identity;
  }

  all(): Iterable<PartitionLog> {
    return this.#logs.values();
  }

  get(topic: string, partition: number): PartitionLog | undefined {
    return this.#logs.get(`${topic}-${partition}`);
  }

  /** Makes the partition's directory. Its name is durable before anything in it is acknowledged. */
  create(topic: string, partition: number, topicId: string): PartitionLog {
    const { fs, directory } = this.#options;
    const path = `${directory}/${topic}-${partition}`;
    fs.makeDirectory(path);
    writeAtomicallyNow(fs, `${path}/${partitionMetadata}`, Buffer.from(`version: 0\ntopic_id: ${topicId}`));
    fs.syncDirectoryNow(directory);
    return this.#open(topic, partition, topicId, { logStartOffset: 0, recoveryPoint: 0, isMarked: false });
  }

  /** Gone from sight when it returns; the files go in the background. */
  delete(topic: string, partition: number): void {
    const { fs, directory, clock } = this.#options;
    const name = `${topic}-${partition}`;
    const log = this.#logs.get(name);
    if (log === undefined) return;
    this.#logs.delete(name);
    this.#flusher.forget(log);
    log.abandon();
    const suffix = `.${Buffer.from(randomUuid(clock), 'base64url').toString('hex')}${deletedSuffix}`;
    const aside = `${directory}/${name.slice(0, nameMax - suffix.length)}${suffix}`;
    fs.rename(log.directory, aside);
    fs.syncDirectoryNow(directory);
    this.#removeInBackground(aside);
  }

  /** Writes how far each log is known to be on disk. */
  async checkpoint(): Promise<void> {
    if (this.#isCheckpointing) return;
    this.#isCheckpointing = true;
    try {
      for (const log of this.#logs.values()) if (log.unsyncedBytes === 0) log.flushIndexes();
      await this.#recoveryPoints.write(this.#offsets((log) => log.recoveryPoint));
      await this.#startOffsets.write(this.#offsets((log) => log.logStartOffset));
    } catch (error) {
      this.#options.events.emit('backgroundFailed', { task: 'checkpoint', error });
    } finally {
      this.#isCheckpointing = false;
    }
  }

  /** Everything to disk, the checkpoints, and last of all the marker. */
  async close(): Promise<void> {
    this.#flusher.stop();
    const logs = [...this.#logs.values()];
    const whole = await Promise.all(logs.map((log) => log.close()));
    this.#recoveryPoints.writeNow(this.#offsets((log) => log.recoveryPoint));
    this.#startOffsets.writeNow(this.#offsets((log) => log.logStartOffset));
    if (whole.every(Boolean)) this.#directory.markCleanStop();
    this.#directory.unlock();
  }

  #offsets(of: (log: PartitionLog) => number): Map<string, number> {
    return new Map([...this.#logs].map(([name, log]) => [name, of(log)]));
  }

  #openAll(): void {
    const { fs, directory } = this.#options;
    const recoveryPoints = this.#recoveryPoints.read();
    const startOffsets = this.#startOffsets.read();
    const isMarked = this.#directory.wasCleanlyStopped;
    for (const name of fs.list(directory)) {
      const path = `${directory}/${name}`;
      if (!fs.isDirectory(path)) continue;
      if (name.endsWith(deletedSuffix)) {
        this.#removeInBackground(path);
        continue;
      }
      const [, topic, partition] = /^(.+)-(\d+)$/.exec(name) ?? [];
      const topicId = readTopicId(fs, path);
      if (topic === undefined || topicId === null) continue;
      this.#open(topic, Number(partition), topicId, {
        logStartOffset: startOffsets.get(name) ?? 0,
        recoveryPoint: recoveryPoints.get(name) ?? 0,
        isMarked,
      });
    }
  }

  #open(
    topic: string,
    partition: number,
    topicId: string,
    found: { logStartOffset: number; recoveryPoint: number; isMarked: boolean },
  ): PartitionLog {
    const { fs, directory, clock, events, configOf } = this.#options;
    const log = PartitionLog.open(
      { topic, partition, topicId, directory: `${directory}/${topic}-${partition}` },
      configOf(topic),
      { fs, clock, events, flusher: this.#flusher },
      found,
    );
    this.#logs.set(log.name, log);
    return log;
  }

  #removeInBackground(path: string): void {
    this.#options.fs.removeDirectory(path).catch((error: unknown) => {
      this.#options.events.emit('backgroundFailed', { task: `removing ${path}`, error });
    });
  }
}

/** Null for a directory that was being made when the power went: nothing in it was ever acknowledged. */
function readTopicId(fs: FileSystem, path: string): string | null {
  const text = readFile(fs, `${path}/${partitionMetadata}`)?.toString('utf8') ?? '';
  return /^topic_id: (\S{22})$/m.exec(text)?.[1] ?? null;
}
