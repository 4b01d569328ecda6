import { EventBus } from '@rookery/sidecar/rooms/events';
import { DataDirectory } from '@rookery/sidecar/rooms/log/data-directory';
import { DiskSpace } from '@rookery/sidecar/rooms/log/disk-space';
import { LogManager } from '@rookery/sidecar/rooms/log/log-manager';
import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import { TailCache } from '@rookery/sidecar/rooms/log/tail-cache';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { ManualClock } from '@rookery/sidecar/rooms/manual-clock';
import { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { parentOf } from '@rookery/sidecar/rooms/vfs/file-system';
import type { PowerCut } from '@rookery/sidecar/rooms/vfs/power-cut';

export const dataDirectory = '/data';
const topicId = 'AAAAAAAAAAAAAAAAAAAAAA';

/**
 * A machine with the disk in memory, and on it a broker's logs as the broker runs them: a data directory, its
 * lock and markers, the log manager. Time stands still until it is told to go on, and a sync ends when it is
 * told to. A machine runs until it is stopped, killed or loses power; what it leaves is the next one's disk.
 */
export class Machine {
  readonly disk: MemoryFileSystem;
  readonly clock: ManualClock;
  readonly events: EventBus;
  readonly logs: LogManager;
  readonly #directory: DataDirectory;
  readonly #syncs: (() => void)[] = [];

  /** Boots: everything that recovery does is done when it resolves. */
  static async boot(
    disk: MemoryFileSystem,
    configOf: (topic: string) => LogConfig,
    clock = new ManualClock(),
    events = new EventBus(),
  ): Promise<Machine> {
    const machine = new Machine(disk, configOf, clock, events);
    let isRecovered = false;
    void machine.logs.recovered.then(() => (isRecovered = true));
    await settled();
    while (!isRecovered) await machine.finishSync();
    return machine;
  }

  private constructor(
    disk: MemoryFileSystem,
    configOf: (topic: string) => LogConfig,
    clock: ManualClock,
    events: EventBus,
  ) {
    this.disk = disk;
    this.clock = clock;
    this.events = events;
    disk.untilSynced = () => new Promise((resolve) => this.#syncs.push(resolve));
    nameBoot(disk);
    this.#directory = DataDirectory.open(disk, dataDirectory, 1, clock);
    const directory = this.#directory;
    const guard = { minFreeBytes: 0, reserveBytes: 0 };
    const space = new DiskSpace({ fs: disk, directory: directory.path, clock, events, ...guard });
    const tails = new TailCache(1024 * 1024);
    const cleaner = { isEnabled: true, backoffMs: 1e12, mapBytesMax: 1e6 };
    this.logs = LogManager.open({ fs: disk, directory, clock, events, space, tails, configOf, cleaner });
    for (const log of this.logs.all()) followHighWatermark(log);
  }

  get syncsUnderWay(): number {
    return this.#syncs.length;
  }

  log(topic: string): PartitionLog | undefined {
    return this.logs.get(topic, 0);
  }

  /** Makes a topic of one partition, led by us. */
  create(topic: string): PartitionLog {
    const log = this.logs.create(topic, 0, topicId);
    followHighWatermark(log);
    return log;
  }

  /** Lets one sync end, and what waited for it go on. */
  async finishSync(index = 0): Promise<void> {
    this.#syncs.splice(index, 1)[0]?.();
    await settled();
  }

  /** Ends the turn, and every sync that it asks for. */
  async settle(): Promise<void> {
    this.clock.turn();
    await settled();
    while (this.#syncs.length > 0) await this.finishSync();
  }

  /** An orderly stop. */
  async stop(): Promise<MemoryFileSystem> {
    this.disk.untilSynced = async () => {};
    await this.settle();
    await this.logs.close();
    this.#directory.unlock();
    return this.disk.afterKill();
  }

  kill(): MemoryFileSystem {
    return this.disk.afterKill();
  }

  losePower(cut: PowerCut): MemoryFileSystem {
    return this.disk.afterPowerCut(cut);
  }
}

const bootId = '/proc/sys/kernel/random/boot_id';

/** A partition of one replica: what is durable is what all have. */
function followHighWatermark(log: PartitionLog): void {
  const follow = (): void => log.advanceHighWatermark(log.durableEndOffset);
  log.onDurable = follow;
  follow();
}

/** The kernel's name for the time since the power came. */
function nameBoot(disk: MemoryFileSystem): void {
  disk.makeDirectory(parentOf(bootId));
  const file = disk.open(bootId, 'create');
  file.truncateNow(0);
  file.writeNow([Buffer.from(`power came ${disk.powerCuts} times`)], 0);
  file.release();
}

/** When everything that could go on has. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
