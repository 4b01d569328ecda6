import { hash } from 'node:crypto';
import { MemoryFileSystem, type Operation } from '@rookery/sidecar/rooms/vfs/memory';
import { loseAfter, loseSome, loseUnsynced, tear, tears } from '@rookery/sidecar/rooms/vfs/power-cut';
import { encodeBatch, RecordBatch } from '@rookery/wire';
import { Random } from '../protocol/random.ts';
import { BrokenPromise } from './broken-promise.ts';
import { brokenClaims, brokenTimeLookups, stateOf } from './claims.ts';
import type { CrashKind, Promised } from './history.ts';
import { dataDirectory, Machine } from './machine.ts';
import { configOf, Workload, type Watch, type WorkloadOptions } from './workload.ts';

export interface CampaignOptions {
  readonly seed: number;
  /** Wall-clock time after which it ends. */
  readonly seconds?: number;
  /** How many distinct directories are enough. */
  readonly states?: number;
  /** How many steps one life has. */
  readonly steps?: number;
  /** How many disks with some of the unsynced changes lost are tried at each moment. */
  readonly samples?: number;
  /** For the tests of the claims: a disk that lies, promises that nobody made. */
  readonly planted?: Pick<WorkloadOptions, 'believes'> & { readonly ignores?: MemoryFileSystem['ignores'] };
}

export interface Tally {
  lives: number;
  /** Operations at which crashes were tried. */
  moments: number;
  /** Directories that differ in their bytes. */
  states: number;
  /** Boots on one of them. */
  boots: number;
}

/** A disk that a crash may leave, and what must be true of what is recovered from it. */
interface CrashState {
  readonly disk: MemoryFileSystem;
  readonly how: string;
  readonly promises: readonly Promised[];
  /** What must still be true if the power goes, too. */
  readonly afterPowerCut: readonly Promised[];
}

/**
 * Lives of a broker, and at every operation of each the crashes that may strike there: the kill, the torn
 * write, the power cut with all or some of the unsynced changes lost. Each disk is recovered, and so is what
 * a second crash inside that recovery leaves.
 */
export class Campaign {
  readonly tally: Tally = { lives: 0, moments: 0, states: 0, boots: 0 };
  readonly #options: Required<CampaignOptions>;
  readonly #seen = new Set<string>();
  readonly #judged = new Set<string>();

  constructor(options: CampaignOptions) {
    this.#options = { seconds: Infinity, states: Infinity, steps: 160, samples: 3, planted: {}, ...options };
  }

  /** What has been done so far, in a line. */
  get summary(): string {
    const { lives, moments, states, boots } = this.tally;
    return `${states} distinct directories at ${moments} moments of ${lives} lives, ${boots} recoveries`;
  }

  /** Lives on until there are enough states or the time is up. @throws BrokenPromise */
  async run(): Promise<Tally> {
    const until = performance.now() + this.#options.seconds * 1_000;
    const isOver = (): boolean => this.tally.states >= this.#options.states || performance.now() >= until;
    for (let seed = this.#options.seed; !isOver(); seed++) {
      try {
        await this.#live(seed, isOver);
      } catch (error) {
        // The seed replays the life, and the place tells the rest.
        if (error instanceof Error) error.message = `life ${seed}, ${error.message}`;
        throw error;
      }
    }
    return this.tally;
  }

  /** One life and all its deaths. */
  async #live(seed: number, isOver: () => boolean): Promise<void> {
    const random = new Random(seed);
    const deaths = new Random(seed ^ 0x5eed);
    const waiting: CrashState[] = [];
    const { samples, steps, planted } = this.#options;
    const disk = new MemoryFileSystem();
    disk.ignores = planted.ignores ?? null;
    const watched: Watch = (disk, promised) =>
      watch(disk, promised, deaths, samples, (states) => {
        this.tally.moments++;
        waiting.push(...states);
      });
    const { believes } = planted;
    const workload = new Workload(random, watched, believes === undefined ? { disk } : { disk, believes });
    await workload.boot();
    this.tally.lives++;
    for (let step = 0; step < steps && !isOver(); step++) {
      await workload.step();
      for (const state of waiting.splice(0)) await this.#judge(state, deaths);
    }
  }

  async #judge(state: CrashState, random: Random): Promise<void> {
    const print = state.disk.fingerprint(dataDirectory, digest);
    if (!this.#seen.has(print)) {
      this.#seen.add(print);
      this.tally.states++;
    }
    const key = `${print} ${state.promises.map(wordOf).join(' ')}`;
    if (this.#judged.has(key)) return;
    this.#judged.add(key);
    const operations = await this.#recover(state, random);
    if (random.below(3) === 0) await this.#crashInside(state, operations, random);
  }

  /** @returns how many operations the recovery took */
  async #recover(state: CrashState, random: Random): Promise<number> {
    const fail = (how: string, broken: readonly string[]): void => {
      if (broken.length > 0) throw new BrokenPromise(`${state.how}${how}`, state.disk, broken);
    };
    const boot = async (disk: MemoryFileSystem, how: string): Promise<Machine> => {
      this.tally.boots++;
      try {
        return await Machine.boot(disk, configOf);
      } catch (error) {
        throw new BrokenPromise(`${state.how}${how}`, state.disk, [String(error)]);
      }
    };
    // On a copy, so that what the crash left can be told when its recovery fails.
    const machine = await boot(state.disk.afterKill(), '');
    const operations = machine.disk.operations.length;
    fail('', brokenClaims(machine, state.promises));
    const again = await boot(machine.kill(), ', recovered again');
    if (stateOf(again) !== stateOf(machine))
      fail(', recovered again', [`it was ${stateOf(machine)}\n  it is ${stateOf(again)}`]);
    fail(', recovered again', brokenClaims(again, state.promises));
    if (random.below(8) === 0) {
      fail('', await brokenTimeLookups(machine, state.promises));
      const grown = await goOn(machine, state.promises);
      fail(', gone on', brokenClaims(machine, grown));
      fail(', gone on, killed', brokenClaims(await boot(machine.kill(), ', gone on, killed'), grown));
    }
    return operations;
  }

  /** The recovery is struck by a second crash, at any of its operations. */
  async #crashInside(state: CrashState, operations: number, random: Random): Promise<void> {
    const at = random.below(operations);
    const chance = (): number => random.next();
    const isKill = random.below(2) === 0;
    let second: MemoryFileSystem | null = null;
    const disk = state.disk.afterKill();
    disk.beforeOperation = () => {
      if (disk.operations.length !== at) return;
      second = isKill ? disk.afterKill() : disk.afterPowerCut(loseSome(chance));
    };
    await Machine.boot(disk, configOf);
    disk.beforeOperation = null;
    if (second === null) return;
    const print = (second as MemoryFileSystem).fingerprint(dataDirectory, digest);
    if (!this.#seen.has(print)) {
      this.#seen.add(print);
      this.tally.states++;
    }
    const how = `${state.how}, ${isKill ? 'killed' : 'power cut'} at operation ${at} of the recovery`;
    const promises = isKill ? state.promises : state.afterPowerCut;
    await this.#recover({ ...state, disk: second, how, promises }, random);
  }
}

/** Tells of every disk that a crash at any operation may leave, before the operation is done. */
function watch(
  disk: MemoryFileSystem,
  promised: (kind: CrashKind) => Promised[],
  random: Random,
  samples: number,
  tell: (states: CrashState[]) => void,
): void {
  let known = -1;
  let killedBefore: readonly Promised[] = [];
  const chance = (): number => random.next();
  disk.beforeOperation = (operation) => {
    if (operation.name === 'read' || operation.name === 'open') return;
    const last = disk.lastChange;
    const sequence = last?.sequence ?? 0;
    const isNew = sequence !== known;
    known = sequence;
    const killed = promised('kill');
    const cut = promised('power cut');
    const states: CrashState[] = [];
    const crash = (promises: readonly Promised[], how: string, after: MemoryFileSystem): void => {
      how += ` ${momentOf(disk, operation)}`;
      states.push({ disk: after, how, promises, afterPowerCut: cut });
    };
    const cutAs = crash.bind(null, cut);
    crash(killed, 'killed', disk.afterKill());
    cutAs('power cut, all unsynced lost', disk.afterPowerCut(loseUnsynced));
    if (isNew && last?.kind === 'write') {
      for (const extent of tears(last.sizeInBytes, chance)) {
        const part = `bytes ${extent.from} to ${extent.to} of ${last.sizeInBytes}`;
        // A kill inside the write came before anything was promised for it.
        if (extent.from === 0) crash(killedBefore, `killed after ${part}`, disk.afterKill(extent));
        cutAs(`power cut after ${part}`, disk.afterPowerCut(tear(sequence, extent)));
      }
    }
    cutAs('power cut, the latest lost', disk.afterPowerCut(loseAfter(sequence - random.below(20))));
    for (let i = 0; i < samples; i++) cutAs('power cut, some lost', disk.afterPowerCut(loseSome(chance)));
    killedBefore = killed;
    tell(states);
  };
}

/** Equal for promises that ask the same of one and the same disk. */
const wordOf = ({ existence, end, start, startMax, batches }: Promised): string =>
  `${existence}:${start}:${startMax}:${end}:${batches.length}`;

const momentOf = (disk: MemoryFileSystem, { name, path }: Operation): string =>
  `before operation ${disk.operations.length}, ${name} ${path}`;

/** Appends one more batch to every log, and lets it become as safe as it can. */
async function goOn(machine: Machine, promises: readonly Promised[]): Promise<Promised[]> {
  const appended = promises.map((promised): Promised => {
    const log = machine.log(promised.topic);
    if (log === undefined) return promised;
    const bytes = encodeBatch([
      { key: Buffer.from('k'), value: Buffer.from('after'), timestamp: machine.clock.now() },
    ]);
    const [batch] = RecordBatch.split([bytes]) as [RecordBatch];
    const epoch = Math.max(0, log.latestEpoch);
    log.assignLeaderEpoch(epoch, log.logEndOffset);
    const kept = promised.batches.filter(({ lastOffset }) => lastOffset < log.logEndOffset);
    log.appendAsLeader([batch], epoch);
    const { baseOffset, lastOffset, producerId } = batch;
    const more = { baseOffset, lastOffset, producerId, lastSequence: -1, leaderEpoch: epoch };
    const known = { ...more, bytes: Buffer.concat(batch.chunks) };
    return { ...promised, batches: [...kept, known], end: log.logEndOffset };
  });
  await machine.settle();
  return appended;
}

const digests = new WeakMap<Buffer, string>();

/** A file's bytes are the same Buffer for as long as they are the same, so most are known already. */
function digest(content: Buffer | string): string {
  if (typeof content === 'string') return hash('sha1', content, 'base64');
  let known = digests.get(content);
  if (known === undefined) digests.set(content, (known = hash('sha1', content, 'base64')));
  return known;
}
