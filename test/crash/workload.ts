import { Config } from '@rookery/sidecar/rooms/config';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import { ManualClock } from '@rookery/sidecar/rooms/manual-clock';
import { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { loseSome } from '@rookery/sidecar/rooms/vfs/power-cut';
import { encodeBatch, RecordBatch, type NewRecord } from '@rookery/wire';
import type { Random } from '../protocol/random.ts';
import { BrokenPromise } from './broken-promise.ts';
import { brokenClaims } from './claims.ts';
import { History, type CrashKind, type Promised } from './history.ts';
import { Machine } from './machine.ts';

const defaults = new Config({}).logConfig({});

/** Small enough that a few dozen batches roll often, and that index entries come up. */
const small: LogConfig = {
  ...defaults,
  segmentBytes: 4_000,
  indexIntervalBytes: 300,
  fileDeleteDelayMs: 700,
};

/** Topics by what their acknowledgements promise. */
const topics: Readonly<Record<string, LogConfig>> = {
  synced: { ...small, flushMode: 'sync' },
  periodic: { ...small, flushMode: 'interval', flushMs: 200, flushMessages: 9, retentionBytes: 9_000 },
  cached: { ...small, flushMode: 'os', timestampType: 'LogAppendTime', segmentMs: 2_000, retentionMs: 5_000 },
  keyed: {
    ...small,
    flushMode: 'sync',
    isCompacted: true,
    isDeleted: false,
    minCleanableDirtyRatio: 0.01,
    deleteRetentionMs: 1_000,
  },
  fleeting: { ...small, flushMode: 'sync' },
};

export const configOf = (topic: string): LogConfig => topics[topic]!;

export interface WorkloadOptions {
  /** The disk of the first boot. */
  readonly disk?: MemoryFileSystem;
  /** What all topics are taken to promise, whatever their mode. */
  readonly believes?: LogConfig['flushMode'];
}

/** A disk that somebody watches, from before the broker boots on it. */
export type Watch = (disk: MemoryFileSystem, promised: (kind: CrashKind) => Promised[]) => void;

/** The ways of what may happen next, with their weights. */
const steps = [
  ['append', 40],
  ['turn', 20],
  ['finishSync', 24],
  ['passTime', 8],
  ['roll', 3],
  ['newEpoch', 3],
  ['checkpoint', 3],
  ['retain', 3],
  ['deleteRecords', 2],
  ['compact', 4],
  ['truncate', 3],
  ['restart', 1],
  ['kill', 2],
  ['losePower', 1],
  ['recreate', 1],
] as const;

type Step = (typeof steps)[number][0];

/**
 * A broker's life by chance: appends to topics of every flush mode, syncs that end when they like, rolls, new
 * epochs, checkpoints, stops, kills and power cuts. One seed is one life.
 */
export class Workload {
  readonly histories: History[];
  readonly #random: Random;
  readonly #watch: Watch;
  readonly #options: WorkloadOptions;
  #running: Machine | null = null;
  #now = 1_700_000_000_000;

  constructor(random: Random, watch: Watch, options: WorkloadOptions = {}) {
    this.#random = random;
    this.#watch = watch;
    this.#options = options;
    this.histories = Object.keys(topics).map((topic) => this.#historyOf(topic));
  }

  get machine(): Machine {
    return this.#running!;
  }

  async boot(): Promise<void> {
    await this.#boot(this.#options.disk ?? new MemoryFileSystem());
    for (const history of this.histories) if (history.topic !== 'fleeting') this.#create(history);
  }

  /** One more thing happens. */
  async step(): Promise<void> {
    await this[this.#choose()]();
    this.#listen();
  }

  append(): void {
    const history = this.#random.pick(this.histories);
    const log = this.machine.log(history.topic);
    if (log === undefined || log.offlineReason !== null || history.isBeingCut) return;
    const isNumbered = this.#random.below(2) === 0;
    const batches = isNumbered
      ? [this.#batch(history, 7 + this.#random.below(2))]
      : Array.from({ length: 1 + this.#random.below(3) }, () => this.#batch(history, -1));
    history.appending(batches, log.logEndOffset, this.machine.clock.now());
    log.appendAsLeader(batches, history.leaderEpoch);
  }

  turn(): void {
    this.machine.clock.turn();
  }

  async finishSync(): Promise<void> {
    await this.machine.finishSync(this.#random.below(Math.max(1, this.machine.syncsUnderWay)));
  }

  passTime(): void {
    this.machine.clock.advance(1 + this.#random.below(1_200));
  }

  roll(): void {
    const history = this.#random.pick(this.histories);
    if (!history.isBeingCut) this.machine.log(history.topic)?.roll();
  }

  newEpoch(): void {
    const history = this.#random.pick(this.histories);
    const log = this.machine.log(history.topic);
    if (log !== undefined && !history.isBeingCut) this.#lead(history, log);
  }

  #lead(history: History, log: PartitionLog): void {
    history.leaderEpoch++;
    log.assignLeaderEpoch(history.leaderEpoch, log.logEndOffset);
  }

  checkpoint(): void {
    void this.machine.logs.checkpoint();
  }

  retain(): void {
    void this.machine.logs.retain();
  }

  compact(): void {
    void this.machine.logs.compact();
  }

  /** Somebody deletes records; they are only told of it when that is safe. */
  deleteRecords(): void {
    const history = this.#random.pick(this.histories);
    const log = this.machine.log(history.topic);
    if (log === undefined) return;
    const offset = log.logStartOffset + this.#random.below(1 + log.highWatermark - log.logStartOffset);
    log.deleteBefore(offset).then(
      () => history.deletedBefore(offset),
      // The log was closed meanwhile: nobody was told anything.
      () => {},
    );
  }

  /** The end is cut, as that of a follower whose leader has other records there; then another one leads. */
  truncate(): void {
    const history = this.#random.pick(this.histories);
    const log = this.machine.log(history.topic);
    if (log === undefined || log.offlineReason !== null || history.isBeingCut) return;
    // What is agreed on may have been compacted, and is never cut.
    const from = log.config.isCompacted ? log.highWatermark : log.logStartOffset;
    const offset = from + this.#random.below(1 + log.logEndOffset - from);
    history.truncating(Math.max(offset, log.logStartOffset));
    log.truncateTo(offset).then(
      () => {
        if (this.machine.log(history.topic) !== log) return;
        history.truncated(log.logEndOffset);
        this.#lead(history, log);
      },
      // The log was closed meanwhile.
      () => {},
    );
  }

  async restart(): Promise<void> {
    // The directory keeps its lock until the very end, and a promise made while stopping counts too.
    await this.#reboot(await this.machine.stop(), 'kill');
  }

  async kill(): Promise<void> {
    await this.#reboot(this.machine.kill(), 'kill');
  }

  async losePower(): Promise<void> {
    const chance = (): number => this.#random.next();
    await this.#reboot(this.machine.losePower(loseSome(chance)), 'power cut');
  }

  /** The topic that comes and goes: deleted when it is there, made anew when it is not. */
  recreate(): void {
    const index = this.histories.findIndex(({ topic }) => topic === 'fleeting');
    const history = this.histories[index]!;
    if (history.existence === 'gone') return this.#create(history);
    history.existence = 'unsure';
    this.machine.logs.delete(history.topic, 0);
    this.histories[index] = this.#historyOf(history.topic);
  }

  /** The topic is there although its partition is not, or nobody knows any more whose it is. */
  #makeAgain(history: History): PartitionLog {
    const log = this.machine.create(history.topic);
    history.existence = 'there';
    return log;
  }

  #historyOf(topic: string): History {
    return new History(topic, configOf(topic), this.#options.believes);
  }

  #choose(): Step {
    const total = steps.reduce((sum, [, weight]) => sum + weight, 0);
    let at = this.#random.below(total);
    for (const [step, weight] of steps) if ((at -= weight) < 0) return step;
    return 'append';
  }

  #batch(history: History, producerId: number): RecordBatch {
    const now = this.machine.clock.now();
    const records: NewRecord[] = Array.from({ length: 1 + this.#random.below(4) }, () => ({
      key: Buffer.from(`key-${this.#random.below(9)}`),
      value: this.#random.below(8) === 0 ? null : this.#value(),
      timestamp: now - this.#random.below(500),
    }));
    const baseSequence = producerId < 0 ? -1 : history.nextSequence(producerId);
    const producerEpoch = producerId < 0 ? -1 : 0;
    return RecordBatch.split([encodeBatch(records, { producerId, producerEpoch, baseSequence })])[0]!;
  }

  /** Most are small; some are larger than a sector, so that they can be torn. */
  #value(): Buffer {
    const size = this.#random.below(this.#random.below(5) === 0 ? 900 : 90);
    return Buffer.alloc(size, this.#random.below(256));
  }

  #create(history: History): void {
    history.existence = 'unsure';
    const log = this.machine.create(history.topic);
    history.existence = 'there';
    log.assignLeaderEpoch(history.leaderEpoch, 0);
  }

  async #boot(disk: MemoryFileSystem): Promise<void> {
    this.#watch(disk, (kind) => this.#promises(kind));
    this.#running = await Machine.boot(disk, configOf, new ManualClock({ now: this.#now }));
  }

  async #reboot(disk: MemoryFileSystem, kind: CrashKind): Promise<void> {
    const promises = this.#promises(kind);
    this.#now = this.machine.clock.now();
    this.machine.disk.beforeOperation = null;
    this.#running = null;
    const there = new Set(this.histories.filter(({ existence }) => existence === 'there'));
    if (kind === 'power cut') for (const history of this.histories) history.powerCut();
    await this.#boot(disk);
    const broken = brokenClaims(this.machine, promises);
    if (broken.length > 0) throw new BrokenPromise(`after a ${kind} of the life itself`, disk, broken);
    for (const history of this.histories) {
      const found = this.machine.log(history.topic);
      const log = found === undefined && there.has(history) ? this.#makeAgain(history) : found;
      if (log === undefined) continue;
      if (there.has(history)) history.existence = 'there';
      history.recovered(log);
      // Whoever leads says so at every start.
      log.assignLeaderEpoch(history.leaderEpoch, log.logEndOffset);
    }
  }

  #promises(kind: CrashKind): Promised[] {
    this.#listen();
    return this.histories.map((history) => history.promised(kind));
  }

  #listen(): void {
    for (const history of this.histories) {
      const log = this.#running?.log(history.topic);
      if (log !== undefined) history.listen(log);
    }
  }
}
