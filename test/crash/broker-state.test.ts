import { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { loseSome, loseUnsynced } from '@rookery/sidecar/rooms/vfs/power-cut';
import { expect, test } from 'vitest';
import { Random } from '../protocol/random.ts';
import { StatefulBroker } from './broker-state.ts';

// What a broker has told somebody about topics, producer ids and committed offsets is there after any crash.

const seed = Number(process.env['ROOKERY_SEED'] ?? 1);

/** What was asked for under one name: the newest that was acknowledged, and what may have come to be after it. */
interface Asked {
  readonly acknowledged: string | null;
  readonly pending: readonly string[];
}

/** What somebody has been told so far. Never changed, because crash states hold on to the one of their moment. */
interface Told {
  readonly entries: ReadonlyMap<string, Asked>;
  readonly offsets: ReadonlyMap<string, Asked>;
  readonly producerId: number;
}

const nothing: Told = { entries: new Map(), offsets: new Map(), producerId: -1 };
const unknown: Asked = { acknowledged: null, pending: [] };

const asking = (asked: ReadonlyMap<string, Asked>, name: string, value: string): Map<string, Asked> => {
  const { acknowledged, pending } = asked.get(name) ?? unknown;
  return new Map(asked).set(name, { acknowledged, pending: [...pending, value] });
};

/**
 * Those that were asked for before it have come to be, or not; either way they are behind. One whose answer comes
 * after that of a later one is behind already.
 */
const answered = (
  asked: ReadonlyMap<string, Asked>,
  name: string,
  value: string,
): ReadonlyMap<string, Asked> => {
  const { pending } = asked.get(name) ?? unknown;
  const place = pending.indexOf(value);
  if (place < 0) return asked;
  return new Map(asked).set(name, { acknowledged: value, pending: pending.slice(place + 1) });
};

async function brokenPromises(broker: StatefulBroker, told: Told): Promise<string[]> {
  const broken: string[] = [];
  const judge = (name: string, { acknowledged, pending }: Asked, found: string | null): void => {
    if (found === acknowledged || (found !== null && pending.includes(found))) return;
    broken.push(`${name} is ${found}, told was ${acknowledged}, perhaps ${pending.join(', ')}`);
  };
  for (const [key, asked] of told.entries) judge(key, asked, (await broker.store.get(key))?.value ?? null);
  for (const [name, asked] of told.offsets) {
    const [group, partition] = name.split(' ') as [string, string];
    const offset = await broker.committed(group, Number(partition));
    judge(name, asked, offset < 0 ? null : String(offset));
  }
  const id = await broker.finish(broker.nextProducerId());
  if (id <= told.producerId) broken.push(`producer id ${id} is given again`);
  return broken;
}

interface Life {
  readonly states: number;
  readonly broken: readonly string[];
}

async function live(
  ownSeed: number,
  steps: number,
  ignores: MemoryFileSystem['ignores'] = null,
): Promise<Life> {
  const random = new Random(ownSeed);
  const chance = (): number => random.next();
  let told = nothing;
  let value = 0;
  let states = 0;
  let now = 1_700_000_000_000;
  /** What was broken when this life's own broker came back. */
  let ownBroken: readonly string[] = [];
  const crashed: { readonly disk: MemoryFileSystem; readonly how: string; readonly told: Told }[] = [];
  const boot = async (disk: MemoryFileSystem): Promise<StatefulBroker> => {
    disk.ignores = ignores;
    disk.beforeOperation = ({ name, path }) => {
      if (name === 'read' || name === 'open' || random.below(3) > 0) return;
      const how = `life ${ownSeed}, before ${name} ${path}`;
      crashed.push({ disk: disk.afterKill(), how: `${how}, killed`, told });
      crashed.push({ disk: disk.afterPowerCut(loseUnsynced), how: `${how}, power cut`, told });
      crashed.push({ disk: disk.afterPowerCut(loseSome(chance)), how: `${how}, power cut, some lost`, told });
    };
    return StatefulBroker.boot(disk, now);
  };
  let broker = await boot(new MemoryFileSystem());
  /** Does something that is acknowledged when it likes, unless the broker is gone by then. */
  const ask = (asked: 'entries' | 'offsets', name: string, made: string, work: Promise<unknown>): void => {
    const asker = broker;
    told = { ...told, [asked]: asking(told[asked], name, made) };
    void work.then((isDone) => {
      if (asker === broker && isDone !== false)
        told = { ...told, [asked]: answered(told[asked], name, made) };
    });
  };
  const acts: readonly (() => Promise<void> | void)[] = [
    () => {
      const [key, made] = [`topics/${random.below(5)}`, String(value++)];
      ask('entries', key, made, broker.store.commit({ put: [{ key, value: made }] }));
    },
    () => {
      const [group, partition, offset] = [`group-${random.below(3)}`, random.below(2), value++];
      ask('offsets', `${group} ${partition}`, String(offset), broker.commit(group, partition, offset));
    },
    () => {
      const asker = broker;
      void broker.nextProducerId().then((producerId) => {
        if (asker === broker) told = { ...told, producerId: Math.max(told.producerId, producerId) };
      });
    },
    () => broker.machine.clock.turn(),
    () => broker.machine.finishSync(random.below(Math.max(1, broker.machine.syncsUnderWay))),
    () => broker.machine.finishSync(random.below(Math.max(1, broker.machine.syncsUnderWay))),
    () => broker.machine.clock.advance(1 + random.below(1_500)),
    () => void (random.below(2) === 0 ? broker.machine.logs.checkpoint() : broker.machine.logs.compact()),
    async () => {
      if (random.below(6) > 0) return;
      now = broker.machine.clock.now();
      const { machine } = broker;
      machine.disk.beforeOperation = null;
      const disk = random.below(2) === 0 ? machine.kill() : machine.losePower(loseSome(chance));
      broker = await boot(disk);
      // What it finds is what it goes on with; nobody waits for an answer any more.
      const broken = await brokenPromises(broker, told);
      if (broken.length > 0) ownBroken = [`life ${ownSeed} itself`, ...broken];
      for (const [key, asked] of told.entries) {
        const found = (await broker.store.get(key))?.value ?? null;
        if (asked.pending.length > 0)
          told = { ...told, entries: new Map(told.entries).set(key, { acknowledged: found, pending: [] }) };
      }
      for (const [name, asked] of told.offsets) {
        const [group, partition] = name.split(' ') as [string, string];
        const offset = await broker.committed(group, Number(partition));
        const acknowledged = offset < 0 ? null : String(offset);
        if (asked.pending.length > 0)
          told = { ...told, offsets: new Map(told.offsets).set(name, { acknowledged, pending: [] }) };
      }
    },
  ];
  for (let step = 0; step < steps; step++) {
    await random.pick(acts)();
    if (ownBroken.length > 0) return { states, broken: ownBroken };
    for (const { disk, how, told: then } of crashed.splice(0)) {
      states++;
      const broken = await brokenPromises(await StatefulBroker.boot(disk, now), then);
      if (broken.length > 0) return { states, broken: [how, ...broken] };
    }
  }
  return { states, broken: [] };
}

test('whatever a crash leaves, what was acknowledged of topics, producer ids and groups is there', async () => {
  let states = 0;
  for (let i = 0; i < 8; i++) {
    const life = await live(seed + i, 150);
    expect(life.broken).toEqual([]);
    states += life.states;
  }
  console.log(`seed ${seed}: ${states} crashes`);
  expect(states).toBeGreaterThan(1_000);
});

test.each(['metadata.journal', '.log'])(
  'a disk that only says it has synced the %s is found out',
  async (name) => {
    const ignores = (operation: { name: string; path: string }): boolean =>
      operation.name === 'sync' && operation.path.endsWith(name);
    let found: readonly string[] = [];
    for (let i = 0; i < 8 && found.length === 0; i++) found = (await live(seed + i, 150, ignores)).broken;
    expect(found.join('\n')).toMatch(/told was|is given again|RK0305/);
  },
);
