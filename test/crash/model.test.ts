import { Config } from '@rookery/sidecar/rooms/config';
import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import type { LogConfig } from '@rookery/sidecar/rooms/log-config';
import { ManualClock } from '@rookery/sidecar/rooms/manual-clock';
import { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { loseUnsynced } from '@rookery/sidecar/rooms/vfs/power-cut';
import { encodeBatch, RecordBatch } from '@rookery/wire';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { brokenClaims, brokenTimeLookups } from './claims.ts';
import { History } from './history.ts';
import { Machine } from './machine.ts';

// A log against a list of what it was given: any sequence of its verbs, and after each of them the two must agree.
// fast-check shortens a sequence that fails, and says by what it is found again: ROOKERY_SEED, ROOKERY_PATH and
// ROOKERY_REPLAY repeat it, ROOKERY_RUNS asks for more of them.
const { ROOKERY_SEED: seed, ROOKERY_PATH: path, ROOKERY_REPLAY: replayPath } = process.env;
const numRuns = Number(process.env['ROOKERY_RUNS'] ?? 200);
const replayed = {
  ...(seed === undefined ? {} : { seed: Number(seed) }),
  ...(path === undefined ? {} : { path, endOnFailure: true }),
};

const config: LogConfig = {
  ...new Config({}).logConfig({}),
  segmentBytes: 900,
  indexIntervalBytes: 150,
  fileDeleteDelayMs: 500,
  flushMode: 'sync',
};
const compacted = {
  isCompacted: true,
  isDeleted: false,
  minCleanableDirtyRatio: 0.01,
  deleteRetentionMs: 3_000,
};
const topic = 'log';

/**
 * The log under test, which its restarts replace. Its high watermark moves when it is told to, as where replicas
 * have to agree: nothing at or after it is compacted or deleted.
 */
class Real {
  machine: Machine;
  readonly #config: LogConfig;

  private constructor(machine: Machine, own: LogConfig) {
    this.#config = own;
    this.machine = machine;
    machine.create(topic).assignLeaderEpoch(0, 0);
    this.log.onDurable = () => {};
  }

  static async boot(own: LogConfig): Promise<Real> {
    return new Real(await Machine.boot(new MemoryFileSystem(), () => own), own);
  }

  get log(): PartitionLog {
    return this.machine.log(topic)!;
  }

  /** Does what takes turns and syncs, to its end. */
  async finish(work: Promise<unknown>): Promise<void> {
    let isDone = false;
    void work.finally(() => (isDone = true));
    do await this.machine.settle();
    while (!isDone);
    await work;
  }

  async reboot(disk: MemoryFileSystem, { leaderEpoch }: History): Promise<void> {
    const now = this.machine.clock.now();
    this.machine = await Machine.boot(disk, () => this.#config, new ManualClock({ now }));
    const log = this.machine.log(topic) ?? this.machine.create(topic);
    // Whoever leads says so at every start.
    log.assignLeaderEpoch(leaderEpoch, log.logEndOffset);
    log.onDurable = () => {};
  }
}

type Step = fc.AsyncCommand<History, Real>;

/** A step that is always possible; after it, log and list must agree. */
function step(name: string, run: (history: History, real: Real) => Promise<void> | void): Step {
  return {
    check: () => true,
    toString: () => name,
    async run(history, real) {
      await run(history, real);
      await real.machine.settle();
      history.listen(real.log);
      const promised = history.promised('kill');
      expect(promised.end).toBe(Math.max(promised.start, (promised.batches.at(-1)?.lastOffset ?? -1) + 1));
      expect(brokenClaims(real.machine, [promised])).toEqual([]);
      expect(await brokenTimeLookups(real.machine, [promised])).toEqual([]);
    },
  };
}

const record = fc.record({ key: fc.integer({ min: 0, max: 5 }), size: fc.integer({ min: -1, max: 120 }) });

const append = fc.array(record, { minLength: 1, maxLength: 4 }).map((records) =>
  step(`append ${JSON.stringify(records)}`, (history, real) => {
    const timestamp = real.machine.clock.now();
    const bytes = encodeBatch(
      records.map(({ key, size }, i) => ({
        key: Buffer.from(`key ${key}`),
        value: size < 0 ? null : Buffer.alloc(size, 97 + key),
        timestamp: timestamp + i,
      })),
    );
    const batches = RecordBatch.split([bytes]);
    history.appending(batches, real.log.logEndOffset, timestamp);
    real.log.appendAsLeader(batches, history.leaderEpoch);
  }),
);

const truncate = fc.double({ min: 0, max: 1, noNaN: true }).map((part) =>
  step(`truncate ${part}`, async (history, real) => {
    const { log } = real;
    const { highWatermark, logStartOffset, logEndOffset } = log;
    // What replicas have agreed on is never cut; a compacted log could not give back what its later records replaced.
    const from = log.config.isCompacted ? highWatermark : logStartOffset;
    const offset = from + Math.floor(part * (logEndOffset - from));
    await real.finish(log.truncateTo(offset));
    expect(log.logEndOffset).toBeLessThanOrEqual(offset);
    history.truncated(log.logEndOffset);
    // Whoever cuts its log follows another leader.
    history.leaderEpoch++;
    log.assignLeaderEpoch(history.leaderEpoch, log.logEndOffset);
  }),
);

const deleteBefore = fc.double({ min: 0, max: 1, noNaN: true }).map((part) =>
  step(`delete ${part}`, async (history, real) => {
    const { log } = real;
    const offset = log.logStartOffset + Math.floor(part * (log.highWatermark - log.logStartOffset));
    await real.finish(log.deleteBefore(offset));
    expect(log.logStartOffset).toBe(offset);
    history.deletedBefore(offset);
  }),
);

const passTime = fc
  .integer({ min: 1, max: 5_000 })
  .map((ms) => step(`pass ${ms}`, (_, real) => real.machine.clock.advance(ms)));

const others = fc.constantFrom(
  step('agree', (_, { log }) => log.advanceHighWatermark(log.durableEndOffset)),
  step('roll', (_, real) => real.log.roll()),
  step('checkpoint', (_, real) => real.finish(real.machine.logs.checkpoint())),
  step('compact', (_, real) => real.finish(real.machine.logs.compact())),
  step('new epoch', (history, { log }) => {
    history.leaderEpoch++;
    log.assignLeaderEpoch(history.leaderEpoch, log.logEndOffset);
  }),
  step('restart', async (history, real) => real.reboot(await real.machine.stop(), history)),
  step('kill', (history, real) => real.reboot(real.machine.kill(), history)),
  step('lose power', (history, real) => real.reboot(real.machine.losePower(loseUnsynced), history)),
);

const steps = fc.commands([append, append, append, truncate, deleteBefore, passTime, others, others], {
  maxCommands: 60,
  size: 'max',
  ...(replayPath === undefined ? {} : { replayPath }),
});

test.each([
  ['a log', config],
  ['a compacted log', { ...config, ...compacted }],
])('%s is what a list of its batches is, whatever is done to it', { timeout: 3_600_000 }, async (_, own) => {
  await fc.assert(
    fc.asyncProperty(steps, (commands) =>
      fc.asyncModelRun(async () => {
        const history = new History(topic, own);
        history.existence = 'there';
        return { model: history, real: await Real.boot(own) };
      }, commands),
    ),
    { numRuns, ...replayed },
  );
});
