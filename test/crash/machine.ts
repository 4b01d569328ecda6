import { EventBus } from '@rookery/sidecar/rooms/events';
import { DataDirectory } from '@rookery/sidecar/rooms/log/data-directory';
import { LogManager } from '@rookery/sidecar/rooms/log/log-manager';
import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { ManualClock } from '@rookery/sidecar/rooms/manual-clock';
import { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import type { PowerCut } from '@rookery/sidecar/rooms/vfs/power-cut';

export const dataDirectory = '/data';

/**
 * A machine with the disk in memory, and on it a broker's logs as the broker runs them: a data directory, its
 * lock and markers, the log manager. Time stands still until it is told to go on, and a sync ends when it is
 * told to. A machine runs until it is stopped, killed or loses power; what it leaves is the next one's disk.
 */
export class Machine {
  readonly disk: MemoryFileSystem;
  readonly clock: ManualClock;
  readonly events = new EventBus();
  readonly logs: LogManager;
  readonly #directory: DataDirectory;
  readonly #syncs: (() => void)[] = [];

  /** Boots: everything that recovery does is done when it returns. */
  constructor(disk: MemoryFileSystem, configOf: (topic: string) => LogConfig, clock = new ManualClock()) {
    this.disk = disk;
    this.clock = clock;
    disk.untilSynced = () => new Promise((resolve) => this.#syncs.push(resolve));
    this.#directory = DataDirectory.open(disk, dataDirectory, 1, clock);
    const { events } = this;
    this.logs = LogManager.open({ fs: disk, directory: this.#directory, clock, events, configOf });
  }

  get syncsUnderWay(): number {
    return this.#syncs.length;
  }

  log(topic: string): PartitionLog | undefined {
    return this.logs.get(topic, 0);
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

/** When everything that could go on has. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
