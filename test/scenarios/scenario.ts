import { Config } from '@rookery/sidecar/rooms/config';
import { EventBus, type Events } from '@rookery/sidecar/rooms/events';
import { Quarantined } from '@rookery/sidecar/rooms/log/log-reader';
import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { ManualClock } from '@rookery/sidecar/rooms/manual-clock';
import { FileRegion } from '@rookery/sidecar/rooms/vfs/file-region';
import { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { loseUnsynced } from '@rookery/sidecar/rooms/vfs/power-cut';
import { decodeRecords, encodeBatch, RecordBatch, type NewRecord } from '@rookery/wire';
import { dataDirectory, Machine } from '../crash/machine.ts';

const bornAt = 1_700_000_000_000;

/**
 * A machine that is told what to do, a command a line, and says what is to be seen. The commands:
 *
 *   topic NAME [SETTING=VALUE]...      makes a topic of one partition; settings by Kafka's names
 *   append NAME KEY=VALUE...           one batch of these records; KEY alone is a tombstone, *N makes a value N bytes long
 *   turn · sync · settle               ends the turn; lets one sync end; lets everything come to rest
 *   pass MS                            time goes by
 *   roll NAME · retain · compact · checkpoint    upkeep that otherwise comes with time
 *   delete-records NAME OFFSET         moves the log's start
 *   truncate NAME OFFSET               moves its end back
 *   stop · kill · cut-power            the broker is gone, in order, at once, or with all that was not synced
 *   boot                               it starts again
 *   flip FILE POSITION · cut FILE SIZE · remove FILE    somebody damages a file
 *   log NAME · read NAME [OFFSET] · at NAME MS · files NAME · checkpoints    what is to be seen
 */
export class Scenario {
  readonly #configs = new Map<string, LogConfig>();
  #disk = new MemoryFileSystem();
  #running: Machine | null = null;
  #now = bornAt;
  #seen: string[] = [];

  /** On a disk that is empty. */
  static async boot(): Promise<Scenario> {
    const scenario = new Scenario();
    await scenario.#boot();
    return scenario;
  }

  /** Does what a line says, and returns what is to be seen of it, events included. */
  async run(line: string): Promise<string[]> {
    const [verb, ...args] = line.split(/\s+/) as [string, ...string[]];
    const command = this.#commands[verb];
    if (command === undefined) throw new Error(`no such command: ${line}`);
    const said = await command(...args);
    const seen = [...this.#seen, ...said];
    this.#seen = [];
    return seen;
  }

  readonly #commands: Record<string, (...args: string[]) => string[] | Promise<string[]>> = {
    topic: (name, ...settings) => {
      this.#configs.set(name!, configOf(settings));
      this.#machine.create(name!).assignLeaderEpoch(0, 0);
      return [];
    },
    append: (name, ...records) => {
      const log = this.#log(name!);
      const timestamp = this.#machine.clock.now();
      const bytes = encodeBatch(records.map((each) => recordOf(each, timestamp)));
      try {
        const { baseOffset, lastOffset } = log.appendAsLeader(RecordBatch.split([bytes]), log.latestEpoch);
        return [
          baseOffset === lastOffset ? `offset ${baseOffset}` : `offsets ${baseOffset} to ${lastOffset}`,
        ];
      } catch (error) {
        return [`refused: ${(error as Error).message}`];
      }
    },
    turn: () => quietly(this.#machine.clock.turn()),
    sync: async () => quietly(await this.#machine.finishSync()),
    settle: async () => quietly(await this.#machine.settle()),
    pass: async (ms) => {
      this.#machine.clock.advance(Number(ms));
      return quietly(await this.#machine.settle());
    },
    roll: (name) => quietly(this.#log(name!).roll()),
    retain: () => this.#upkeep((machine) => machine.logs.retain()),
    compact: () => this.#upkeep((machine) => machine.logs.compact()),
    checkpoint: () => this.#upkeep((machine) => machine.logs.checkpoint()),
    'delete-records': (name, offset) => this.#upkeep(() => this.#log(name!).deleteBefore(Number(offset))),
    truncate: (name, offset) => this.#upkeep(() => this.#log(name!).truncateTo(Number(offset))),
    stop: async () => this.#end(await this.#machine.stop()),
    kill: () => this.#end(this.#machine.kill()),
    'cut-power': () => this.#end(this.#machine.losePower(loseUnsynced)),
    boot: async () => quietly(await this.#boot()),
    flip: (path, position) => {
      this.#damage(path!, (bytes) => {
        bytes[Number(position)]! ^= 0xff;
        return bytes;
      });
      return [];
    },
    cut: (path, size) => quietly(this.#damage(path!, (bytes) => bytes.subarray(0, Number(size)))),
    remove: (path) => quietly(this.#disk.remove(`${dataDirectory}/${path}`)),
    log: (name) => [stateOf(this.#log(name!))],
    read: (name, offset) => {
      const log = this.#log(name!);
      const seen: string[] = [];
      try {
        for (const batch of batchesFrom(log, Number(offset ?? log.logStartOffset)))
          seen.push(describe(batch));
      } catch (error) {
        if (!(error instanceof Quarantined)) throw error;
        seen.push('no further');
      }
      return seen;
    },
    at: async (name, ms) => {
      const found = await this.#log(name!).offsetForTimestamp(bornAt + Number(ms));
      return [found === null ? 'nothing as young' : `offset ${found.offset} at ${found.timestamp - bornAt}`];
    },
    files: (name) => {
      const directory = `${dataDirectory}/${name}-0`;
      return this.#disk.list(directory).map((file) => `${file} ${this.#disk.size(`${directory}/${file}`)}`);
    },
    checkpoints: () =>
      this.#disk
        .list(dataDirectory)
        .filter((name) => name.endsWith('-checkpoint'))
        .map(
          (name) =>
            `${name}: ${this.#text(`${dataDirectory}/${name}`).split('\n').slice(2).join(' ').trim()}`,
        ),
  };

  get #machine(): Machine {
    if (this.#running === null) throw new Error('nothing runs: boot first');
    return this.#running;
  }

  /** Does what takes syncs and turns, and lets them end. */
  async #upkeep(act: (machine: Machine) => Promise<unknown>): Promise<string[]> {
    let said: string[] | null = null;
    act(this.#machine).then(
      () => (said = []),
      (error: Error) => (said = [`refused: ${error.message}`]),
    );
    do await this.#machine.settle();
    while (said === null);
    return said;
  }

  #log(name: string): PartitionLog {
    const log = this.#machine.log(name);
    if (log === undefined) throw new Error(`no topic ${name}`);
    return log;
  }

  async #boot(): Promise<void> {
    const events = new EventBus();
    events.emit = (name, info) => void this.#seen.push(`! ${name} ${fieldsOf(info)}`);
    const clock = new ManualClock({ now: this.#now });
    this.#running = await Machine.boot(this.#disk, (topic) => this.#configs.get(topic)!, clock, events);
    // A partition that went with the power is made again from its topic.
    for (const name of this.#configs.keys())
      if (this.#running.log(name) === undefined) this.#running.create(name).assignLeaderEpoch(0, 0);
  }

  #end(disk: MemoryFileSystem): string[] {
    this.#now = this.#machine.clock.now();
    this.#running = null;
    this.#disk = disk;
    return [];
  }

  #damage(path: string, change: (bytes: Buffer) => Buffer): void {
    const file = this.#disk.open(`${dataDirectory}/${path}`, 'write');
    const bytes = Buffer.alloc(file.size());
    file.readNow(bytes, 0);
    file.truncateNow(0);
    file.writeNow([change(bytes)], 0);
    file.syncNow();
    file.release();
  }

  #text(path: string): string {
    const file = this.#disk.open(path, 'read');
    const bytes = Buffer.alloc(file.size());
    file.readNow(bytes, 0);
    file.release();
    return bytes.toString('utf8');
  }
}

const quietly = (_: void): string[] => [];

function configOf(settings: readonly string[]): LogConfig {
  const own = Object.fromEntries(settings.map((each) => each.split('=') as [string, string]));
  return new Config({}).logConfig({ 'index.interval.bytes': '100', ...own });
}

function recordOf(text: string, timestamp: number): NewRecord {
  const [key, value] = text.split('=') as [string, string | undefined];
  if (value === undefined) return { key: Buffer.from(key), value: null, timestamp };
  const size = /^\*(\d+)$/.exec(value)?.[1];
  return {
    key: Buffer.from(key),
    value: size === undefined ? Buffer.from(value) : Buffer.alloc(Number(size), '.'),
    timestamp,
  };
}

function stateOf(log: PartitionLog): string {
  const { logStartOffset, logEndOffset, durableEndOffset, recoveryPoint, segmentCount, offlineReason } = log;
  const words = [
    `${logStartOffset} to ${logEndOffset}`,
    `durable to ${durableEndOffset}`,
    `synced to ${recoveryPoint}`,
    `${segmentCount} ${segmentCount === 1 ? 'segment' : 'segments'}`,
  ];
  if (offlineReason !== null) words.push(`offline: ${offlineReason}`);
  return words.join(', ');
}

function* batchesFrom(log: PartitionLog, from: number): Generator<RecordBatch> {
  for (let offset = from; ;) {
    const { spans } = log.read(offset, 1, Infinity, true);
    if (spans.length === 0) return;
    const bytes = spans.map((span) => (span as FileRegion).readNow());
    for (const span of spans) (span as FileRegion).release();
    for (const batch of RecordBatch.split(bytes)) {
      yield batch;
      offset = batch.nextOffset;
    }
  }
}

function describe(batch: RecordBatch): string {
  const records = decodeRecords(batch).map(({ offset, key, value }) => {
    const text = value === null ? '' : value.length > 20 ? `=*${value.length}` : `=${value.toString('utf8')}`;
    return `${offset}:${key?.toString('utf8')}${text}`;
  });
  return `epoch ${batch.partitionLeaderEpoch}  ${records.join(' ')}`;
}

const fieldsOf = (info: Events[keyof Events]): string =>
  Object.entries(info)
    .map(([name, value]) => `${name}=${value instanceof Error ? value.message : String(value)}`)
    .join(' ');
