import type { ErrorName } from '@rookery/wire';
import { beforeEach, describe, expect, test } from 'vitest';
import { ClassicGroup, type JoinRequest } from './classic-group.ts';
import type { JoinAnswer, SyncAnswer } from './group-answers.ts';

type Persisted = (error: ErrorName | null) => void;

/** One group under test: time is a number that the test sets, the log answers when the test says so. */
let now: number;
let group: ClassicGroup;
let persisted: { assignments: ReadonlyMap<string, Buffer>; done: Persisted }[];
let persistAtOnce: boolean;
let expired: string[];

function groupWith(rules: { sizeMax?: number; initialDelayMs?: number } = {}): ClassicGroup {
  let ids = 0;
  persisted = [];
  persistAtOnce = true;
  expired = [];
  return new ClassicGroup(
    'g',
    now,
    { sizeMax: 100, initialDelayMs: 0, ...rules },
    {
      persist: (_, assignments, done) => {
        if (persistAtOnce) done(null);
        else persisted.push({ assignments, done });
      },
      newMemberId: (clientId) => `${clientId}-${++ids}`,
      rebalanced: () => {},
      expired: (_, member) => expired.push(member),
    },
  );
}

beforeEach(() => {
  now = 1_000_000;
  group = groupWith();
});

/** What was told, undefined while nothing was. */
interface Told<T> {
  answer?: T;
}

const sessionMs = 10_000;
const rebalanceMs = 30_000;

function join(options: Partial<JoinRequest> & { metadata?: string } = {}): Told<JoinAnswer> {
  const { metadata = 'm', ...request } = options;
  const told: Told<JoinAnswer> = {};
  group.join(
    {
      memberId: '',
      instanceId: null,
      clientId: 'c',
      clientHost: '/h',
      sessionTimeoutMs: sessionMs,
      rebalanceTimeoutMs: rebalanceMs,
      protocolType: 'consumer',
      protocols: [{ name: 'range', metadata: Buffer.from(metadata) }],
      takesMemberId: false,
      maySkipAssignment: true,
      ...request,
    },
    now,
    (answer) => (told.answer = answer),
  );
  return told;
}

function sync(
  memberId: string,
  assignments: Record<string, string> = {},
  options: { generation?: number; instanceId?: string; protocol?: string; protocolType?: string } = {},
): Told<SyncAnswer> {
  const told: Told<SyncAnswer> = {};
  group.sync(
    {
      memberId,
      instanceId: options.instanceId ?? null,
      generation: options.generation ?? group.generation,
      protocolType: options.protocolType ?? null,
      protocol: options.protocol ?? null,
      assignments: new Map(Object.entries(assignments).map(([id, text]) => [id, Buffer.from(text)])),
    },
    now,
    (answer) => (told.answer = answer),
  );
  return told;
}

const heartbeat = (memberId: string, generation = group.generation, instanceId: string | null = null) =>
  group.heartbeat({ memberId, instanceId, generation }, now);

/** Lets time pass the way the coordinator does: every deadline is honoured when it comes. */
function pass(ms: number): void {
  const until = now + ms;
  while (group.nextDeadline <= until) {
    now = Math.max(now, group.nextDeadline);
    group.expire(now);
  }
  now = until;
}

/** A stable group of so many members; their ids. The first one leads. */
function stableGroup(count: number, options: Partial<JoinRequest> = {}): string[] {
  const first = join(options).answer!.memberId;
  sync(first, { [first]: 'alone' });
  const ids = [first];
  for (let i = 1; i < count; i++) {
    const joining = join(options);
    const others = ids.map((memberId) => join({ memberId, ...options }));
    const answers = [...others, joining].map(({ answer }) => answer!);
    ids.push(joining.answer!.memberId);
    const leader = answers.find(({ leader: id, memberId }) => id === memberId)!.memberId;
    for (const id of ids) if (id !== leader) sync(id);
    sync(leader, Object.fromEntries(ids.map((id) => [id, `for ${id}`])));
  }
  expect(group.state).toBe('Stable');
  return ids;
}

describe('joining', () => {
  test('a first member leads alone, gets its own assignment back, and the group is stable', () => {
    const { answer } = join();
    expect(answer).toMatchObject({
      error: 'NONE',
      generation: 1,
      protocol: 'range',
      protocolType: 'consumer',
    });
    expect(answer!.leader).toBe(answer!.memberId);
    expect(answer!.members.map(({ id }) => id)).toEqual([answer!.memberId]);
    expect(group.state).toBe('CompletingRebalance');
    expect(sync(answer!.memberId, { [answer!.memberId]: 'all' }).answer).toMatchObject({
      error: 'NONE',
      assignment: Buffer.from('all'),
    });
    expect(group.state).toBe('Stable');
  });

  test('a member that can take an id is told one first, and no ghost stays if it does not come back', () => {
    const { answer } = join({ takesMemberId: true });
    expect(answer).toMatchObject({ error: 'MEMBER_ID_REQUIRED', memberId: 'c-1' });
    expect(group.isEmpty).toBe(true);
    pass(sessionMs);
    expect(join({ memberId: 'c-1', takesMemberId: true }).answer!.error).toBe('UNKNOWN_MEMBER_ID');
    expect(group.isForgettable).toBe(true);
  });

  test('an id that was told is good for one join', () => {
    const { answer } = join({ takesMemberId: true });
    const joined = join({ memberId: answer!.memberId, takesMemberId: true });
    expect(joined.answer).toMatchObject({ error: 'NONE', memberId: answer!.memberId, generation: 1 });
  });

  test('ids that are told to members that never come do not grow without end', () => {
    group = groupWith({ sizeMax: 1_000_000 });
    const first = join({ takesMemberId: true }).answer!.memberId;
    const ids = Array.from({ length: 10_000 }, () => join({ takesMemberId: true }).answer!.memberId);
    expect(join({ memberId: first, takesMemberId: true }).answer!.error).toBe('UNKNOWN_MEMBER_ID');
    expect(join({ memberId: ids.at(-1)!, takesMemberId: true }).answer).toBeUndefined();
  });

  test('a second member makes the first one rejoin, and nobody is answered before both are there', () => {
    const [first] = stableGroup(1);
    const second = join();
    expect(second.answer).toBeUndefined();
    expect(heartbeat(first!)).toBe('REBALANCE_IN_PROGRESS');
    const again = join({ memberId: first! });
    expect(again.answer).toMatchObject({ error: 'NONE', generation: 2 });
    expect(second.answer).toMatchObject({ error: 'NONE', generation: 2, leader: first, members: [] });
    expect(again.answer!.members.map(({ id }) => id)).toEqual([first, second.answer!.memberId]);
  });

  test('a member that does not rejoin in time is left behind', () => {
    const [first, silent] = stableGroup(2);
    const again = join({ memberId: first! });
    expect(again.answer).toBeUndefined();
    for (let i = 0; i < 6; i++) {
      pass(rebalanceMs / 6 - 1);
      if (group.members.has(silent!)) heartbeat(silent!);
    }
    pass(10);
    expect(again.answer).toMatchObject({ error: 'NONE', members: [{ id: first }] });
    expect(heartbeat(silent!)).toBe('UNKNOWN_MEMBER_ID');
  });

  test('the last place of a full group can be taken, by members that are told an id too', () => {
    group = groupWith({ sizeMax: 2 });
    const first = join({ takesMemberId: true }).answer!.memberId;
    const second = join({ takesMemberId: true }).answer!.memberId;
    expect(join({ takesMemberId: true }).answer!.error).toBe('GROUP_MAX_SIZE_REACHED');
    join({ memberId: first, takesMemberId: true });
    expect(join({ memberId: second, takesMemberId: true }).answer?.error ?? 'NONE').toBe('NONE');
    expect(group.members.size).toBe(2);
    expect(join().answer!.error).toBe('GROUP_MAX_SIZE_REACHED');
    expect(join({ memberId: first }).answer?.error ?? 'NONE').toBe('NONE');
  });

  test('members that share no protocol, or speak of another kind of group, are refused', () => {
    stableGroup(1);
    const other = [{ name: 'sticky', metadata: Buffer.alloc(0) }];
    expect(join({ protocols: other }).answer!.error).toBe('INCONSISTENT_GROUP_PROTOCOL');
    expect(join({ protocolType: 'connect' }).answer!.error).toBe('INCONSISTENT_GROUP_PROTOCOL');
    expect(join({ protocols: [] }).answer!.error).toBe('INCONSISTENT_GROUP_PROTOCOL');
    expect(join({ protocolType: '' }).answer!.error).toBe('INCONSISTENT_GROUP_PROTOCOL');
    expect(group.members.size).toBe(1);
    expect(group.state).toBe('Stable');
  });

  test('the protocol that most members like best of those that all have is chosen', () => {
    const named = (...names: string[]) => names.map((name) => ({ name, metadata: Buffer.from(name) }));
    const first = join({ protocols: named('a', 'b', 'c') });
    const id = first.answer!.memberId;
    const second = join({ protocols: named('x', 'c', 'b') });
    const third = join({ protocols: named('c', 'b') });
    const again = join({ memberId: id, protocols: named('a', 'b', 'c') });
    for (const { answer } of [second, third, again]) expect(answer!.protocol).toBe('c');
    expect(again.answer!.members.map(({ metadata }) => metadata.toString())).toEqual(['c', 'c', 'c']);
  });

  test('a member of the current generation that asks again is answered again, without a rebalance', () => {
    const [leader, follower] = stableGroup(2);
    const { generation } = group;
    expect(join({ memberId: follower! }).answer).toMatchObject({ error: 'NONE', generation, leader });
    expect(group.state).toBe('Stable');
    join({ memberId: leader! });
    expect(group.state).toBe('PreparingRebalance');
  });

  test('a member that subscribes to something else starts a rebalance', () => {
    const [, follower] = stableGroup(2);
    join({ memberId: follower!, metadata: 'more' });
    expect(group.state).toBe('PreparingRebalance');
  });

  test('new groups wait for more members, again with each that comes, up to the rebalance timeout', () => {
    group = groupWith({ initialDelayMs: 3_000 });
    const first = join();
    pass(2_000);
    const second = join();
    pass(2_000);
    expect(first.answer).toBeUndefined();
    pass(1_000);
    expect(first.answer).toMatchObject({ error: 'NONE', generation: 1 });
    expect(second.answer).toMatchObject({ error: 'NONE', generation: 1 });
    group = groupWith({ initialDelayMs: 3_000 });
    const early = join();
    for (let i = 0; i < 14; i++) {
      pass(2_000);
      join();
    }
    expect(early.answer).toBeUndefined();
    pass(2_000);
    expect(early.answer!.members.length).toBe(15);
  });
});

describe('syncing', () => {
  test('followers wait for the leader, whoever comes first, and get what it decided', () => {
    const [leader, follower] = stableGroup(2);
    join({ memberId: leader! });
    join({ memberId: follower! });
    const waiting = sync(follower!);
    expect(waiting.answer).toBeUndefined();
    sync(leader!, { [leader!]: 'L', [follower!]: 'F' });
    expect(waiting.answer!.assignment.toString()).toBe('F');
    expect(sync(follower!).answer!.assignment.toString()).toBe('F');
  });

  test('a member without an assignment gets empty bytes', () => {
    const [first, second] = stableGroup(2);
    join({ memberId: first! });
    join({ memberId: second! });
    const waiting = sync(second!);
    sync(first!, { [first!]: 'everything' });
    expect(waiting.answer).toMatchObject({ error: 'NONE', assignment: Buffer.alloc(0) });
  });

  test('nobody is told before the assignment is durable, and nobody if it cannot be', () => {
    const id = join().answer!.memberId;
    persistAtOnce = false;
    const synced = sync(id, { [id]: 'a' });
    expect(synced.answer).toBeUndefined();
    expect(group.state).toBe('CompletingRebalance');
    persisted[0]!.done('COORDINATOR_NOT_AVAILABLE');
    expect(synced.answer!.error).toBe('COORDINATOR_NOT_AVAILABLE');
    expect(group.state).toBe('PreparingRebalance');
  });

  test("an assignment that becomes durable after the group has moved on is nobody's", () => {
    const id = join().answer!.memberId;
    persistAtOnce = false;
    const synced = sync(id, { [id]: 'old' });
    join();
    expect(synced.answer!.error).toBe('REBALANCE_IN_PROGRESS');
    persisted[0]!.done(null);
    expect(group.state).toBe('PreparingRebalance');
    expect(group.members.get(id)!.assignment.length).toBe(0);
  });

  test('the wrong generation, member, protocol and state each have their error', () => {
    const [first] = stableGroup(1);
    expect(sync(first!, {}, { generation: 7 }).answer!.error).toBe('ILLEGAL_GENERATION');
    expect(sync('nobody').answer!.error).toBe('UNKNOWN_MEMBER_ID');
    expect(sync(first!, {}, { protocol: 'sticky' }).answer!.error).toBe('INCONSISTENT_GROUP_PROTOCOL');
    expect(sync(first!, {}, { protocolType: 'x' }).answer!.error).toBe('INCONSISTENT_GROUP_PROTOCOL');
    expect(sync(first!, {}, { protocol: 'range', protocolType: 'consumer' }).answer!.error).toBe('NONE');
    join();
    expect(sync(first!).answer!.error).toBe('REBALANCE_IN_PROGRESS');
  });

  test('a member that waits for a slow leader is not taken for dead when the answer comes', () => {
    const [leader, follower] = stableGroup(2);
    join({ memberId: leader! });
    join({ memberId: follower! });
    const waiting = sync(follower!);
    for (let i = 0; i < 4; i++) {
      pass(sessionMs / 2);
      heartbeat(leader!);
    }
    sync(leader!, { [follower!]: 'late' });
    expect(waiting.answer!.error).toBe('NONE');
    pass(sessionMs - 1);
    expect(heartbeat(follower!)).toBe('NONE');
  });

  test('a member that beats its heart but never syncs is let go, while it completes and when it is stable', () => {
    const [leader, follower] = stableGroup(2);
    const rejoin = () => [join({ memberId: leader! }), join({ memberId: follower! })];
    rejoin();
    sync(leader!, { [leader!]: 'all' });
    expect(group.state).toBe('Stable');
    for (let i = 0; i < 8; i++) {
      pass(rebalanceMs / 8);
      heartbeat(leader!);
      if (group.members.has(follower!)) heartbeat(follower!);
    }
    expect(heartbeat(follower!)).toBe('UNKNOWN_MEMBER_ID');
    expect(heartbeat(leader!)).toBe('REBALANCE_IN_PROGRESS');
  });
});

describe('staying and leaving', () => {
  test('a heartbeat extends the session, silence ends it and rebalances the others', () => {
    const [first, second] = stableGroup(2);
    for (let i = 0; i < 3; i++) {
      pass(sessionMs - 1);
      expect(heartbeat(first!)).toBe(i === 0 ? 'NONE' : 'REBALANCE_IN_PROGRESS');
    }
    expect(expired).toEqual([second]);
  });

  test('heartbeats know generation, member and rebalance', () => {
    const [first] = stableGroup(1);
    expect(heartbeat(first!)).toBe('NONE');
    expect(heartbeat(first!, group.generation - 1)).toBe('ILLEGAL_GENERATION');
    expect(heartbeat('nobody')).toBe('UNKNOWN_MEMBER_ID');
    join({ memberId: first! });
    expect(group.state).toBe('CompletingRebalance');
    expect(heartbeat(first!)).toBe('NONE');
  });

  test('a member that leaves is gone at once, and the last one leaves an empty group of a new generation', () => {
    const [first, second] = stableGroup(2);
    expect(group.leave({ memberId: second!, instanceId: null }, now)).toBe('NONE');
    expect(heartbeat(first!)).toBe('REBALANCE_IN_PROGRESS');
    expect(join({ memberId: first! }).answer!.members.length).toBe(1);
    const { generation } = group;
    expect(group.leave({ memberId: first!, instanceId: null }, now)).toBe('NONE');
    expect(group).toMatchObject({ state: 'Empty', generation: generation + 1, protocol: null, leader: null });
    expect(group.leave({ memberId: first!, instanceId: null }, now)).toBe('UNKNOWN_MEMBER_ID');
  });

  test('a member that was told an id may leave before it has joined', () => {
    const { answer } = join({ takesMemberId: true });
    expect(group.leave({ memberId: answer!.memberId, instanceId: null }, now)).toBe('NONE');
    expect(group.isForgettable).toBe(true);
  });

  test('a rebalance does not wait for a member that leaves in the middle of it', () => {
    const [first, second] = stableGroup(2);
    const again = join({ memberId: first! });
    expect(again.answer).toBeUndefined();
    group.leave({ memberId: second!, instanceId: null }, now);
    expect(again.answer).toMatchObject({ error: 'NONE', leader: first });
  });

  test('after the leader leaves another one leads', () => {
    const [first, second] = stableGroup(2);
    group.leave({ memberId: first!, instanceId: null }, now);
    expect(join({ memberId: second! }).answer).toMatchObject({ leader: second, error: 'NONE' });
  });
});

describe('concurrent rebalances', () => {
  test('a member that left and joins under a new id leaves nothing of the old one', () => {
    const [first, second] = stableGroup(2);
    const third = join();
    const firstAgain = join({ memberId: first! });
    group.leave({ memberId: second!, instanceId: null }, now);
    for (const { answer } of [third, firstAgain]) expect(answer!.error).toBe('NONE');
    expect(join({ memberId: second! }).answer!.error).toBe('UNKNOWN_MEMBER_ID');
    expect(sync(second!).answer!.error).toBe('UNKNOWN_MEMBER_ID');
    expect(heartbeat(second!)).toBe('UNKNOWN_MEMBER_ID');
    sync(third.answer!.memberId);
    sync(first!, {});
    expect(group.state).toBe('Stable');
  });

  test('a join in the middle of a completing rebalance starts the next one, and refuses those who wait', () => {
    const [first, second] = stableGroup(2);
    join({ memberId: first! });
    join({ memberId: second! });
    const waiting = sync(second!);
    const third = join();
    expect(waiting.answer!.error).toBe('REBALANCE_IN_PROGRESS');
    expect(sync(first!, {}).answer!.error).toBe('REBALANCE_IN_PROGRESS');
    const answers = [join({ memberId: first! }), join({ memberId: second! }), third];
    expect(new Set(answers.map(({ answer }) => answer!.generation)).size).toBe(1);
    expect(answers[0]!.answer!.members.length).toBe(3);
  });

  test('whatever members do in whatever order, they agree, and the group settles', () => {
    const seed = 4_711;
    let state = seed;
    const chance = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    for (let round = 0; round < 50; round++) {
      group = groupWith();
      const members = new Map<number, { id: string; generation: number }>();
      const joins = new Map<number, Told<JoinAnswer>>();
      const step = (who: number): void => {
        const pending = joins.get(who);
        if (pending !== undefined) {
          if (pending.answer === undefined) return;
          joins.delete(who);
          const { error, memberId, generation, leader, members: all } = pending.answer;
          if (error !== 'NONE') return void members.delete(who);
          members.set(who, { id: memberId, generation });
          const assignments = Object.fromEntries(all.map(({ id }) => [id, `${generation} ${id}`]));
          sync(memberId, leader === memberId ? assignments : {}, { generation });
          return;
        }
        const member = members.get(who);
        const isDue =
          member === undefined || chance(4) === 0 || heartbeat(member.id, member.generation) !== 'NONE';
        if (member !== undefined && chance(10) === 0) {
          group.leave({ memberId: member.id, instanceId: null }, now);
          members.delete(who);
        } else if (isDue) joins.set(who, join({ memberId: member?.id ?? '' }));
        if (member !== undefined && !group.members.has(member.id)) members.delete(who);
      };
      for (let i = 0; i < 200; i++) {
        pass(chance(500));
        step(chance(6));
        // An invariant of every state: at most one leader, which is a member; a stable group has a protocol.
        if (group.leader !== null) expect(group.members.has(group.leader), `seed ${seed}`).toBe(true);
        if (group.state === 'Stable') expect(group.protocol).toBe('range');
        if (group.state === 'Empty') expect(group.members.size).toBe(0);
      }
      // Everyone goes on as clients do, without leaving: soon all are in the same generation.
      for (let i = 0; i < 40 && !(group.state === 'Stable' && joins.size === 0); i++) {
        pass(1_000);
        for (let who = 0; who < 6; who++) {
          const pending = joins.get(who);
          const member = members.get(who);
          if (pending !== undefined) {
            if (pending.answer === undefined) continue;
            joins.delete(who);
            const { error, memberId, generation, leader, members: all } = pending.answer;
            if (error !== 'NONE') members.delete(who);
            else {
              members.set(who, { id: memberId, generation });
              sync(memberId, leader === memberId ? Object.fromEntries(all.map(({ id }) => [id, id])) : {}, {
                generation,
              });
            }
          } else if (member === undefined) joins.set(who, join());
          else {
            const error = heartbeat(member.id, member.generation);
            if (error === 'UNKNOWN_MEMBER_ID') members.delete(who);
            if (error !== 'NONE') joins.set(who, join({ memberId: members.get(who)?.id ?? '' }));
          }
        }
      }
      expect(group.state, `seed ${seed}, round ${round}`).toBe('Stable');
      expect(group.members.size, `seed ${seed}, round ${round}`).toBe(6);
    }
  });
});

describe('static members', () => {
  const instanceId = 'i-1';

  test('one that comes back unchanged takes its place and assignment over, and nobody notices', () => {
    const old = join({ instanceId }).answer!.memberId;
    const other = join({ instanceId: 'i-2' });
    join({ instanceId, memberId: old });
    sync(other.answer!.memberId, {}, { instanceId: 'i-2' });
    sync(old, { [old]: 'mine', [other.answer!.memberId]: 'yours' }, { instanceId });
    const { generation } = group;
    const back = join({ instanceId }).answer!;
    expect(back).toMatchObject({ error: 'NONE', generation, leader: back.memberId, skipAssignment: true });
    expect(back.memberId).not.toBe(old);
    expect(group.state).toBe('Stable');
    expect(sync(back.memberId, {}, { instanceId }).answer!.assignment.toString()).toBe('mine');
    expect(heartbeat(other.answer!.memberId, generation, 'i-2')).toBe('NONE');
  });

  test('a leader that cannot skip the assignment is told that its old self leads', () => {
    const old = join({ instanceId }).answer!.memberId;
    sync(old, { [old]: 'mine' }, { instanceId });
    const back = join({ instanceId, maySkipAssignment: false }).answer!;
    expect(back).toMatchObject({ error: 'NONE', leader: old, members: [], skipAssignment: false });
    expect(sync(back.memberId, {}, { instanceId }).answer!.assignment.toString()).toBe('mine');
  });

  test('the old self is fenced, wherever it comes from', () => {
    const old = join({ instanceId }).answer!.memberId;
    sync(old, { [old]: 'mine' }, { instanceId });
    join({ instanceId });
    expect(heartbeat(old, group.generation, instanceId)).toBe('FENCED_INSTANCE_ID');
    expect(sync(old, {}, { instanceId }).answer!.error).toBe('FENCED_INSTANCE_ID');
    expect(join({ memberId: old, instanceId }).answer!.error).toBe('FENCED_INSTANCE_ID');
    expect(group.leave({ memberId: old, instanceId }, now)).toBe('FENCED_INSTANCE_ID');
    const { generation } = group;
    expect(group.commitProblem({ memberId: old, instanceId, generation }, now)).toBe('FENCED_INSTANCE_ID');
    expect(heartbeat('x', generation, 'nobody')).toBe('UNKNOWN_MEMBER_ID');
  });

  test('of two that wait under one instance id the first is fenced', () => {
    stableGroup(1);
    const one = join({ instanceId });
    const two = join({ instanceId });
    expect(one.answer!.error).toBe('FENCED_INSTANCE_ID');
    expect(two.answer).toBeUndefined();
    expect(group.members.size).toBe(2);
  });

  test('its replacement is durable before it is told', () => {
    const old = join({ instanceId }).answer!.memberId;
    sync(old, { [old]: 'mine' }, { instanceId });
    persistAtOnce = false;
    const back = join({ instanceId });
    expect(back.answer).toBeUndefined();
    expect([...persisted[0]!.assignments.values()].map(String)).toEqual(['mine']);
    expect([...persisted[0]!.assignments.keys()]).not.toContain(old);
    persisted[0]!.done(null);
    expect(back.answer!.error).toBe('NONE');
  });

  test('one that wants something else starts a rebalance', () => {
    const old = join({ instanceId }).answer!.memberId;
    sync(old, { [old]: 'mine' }, { instanceId });
    const { generation } = group;
    expect(join({ instanceId, metadata: 'other topics' }).answer!.generation).toBe(generation + 1);
  });

  test('one that is away keeps its place through a rebalance until its session ends', () => {
    const away = join({ instanceId, sessionTimeoutMs: 100_000 }).answer!.memberId;
    sync(away, { [away]: 'mine' }, { instanceId });
    const other = join({ sessionTimeoutMs: 100_000 });
    pass(rebalanceMs);
    expect(other.answer).toMatchObject({ error: 'NONE' });
    expect(group.members.has(away)).toBe(true);
    pass(100_000);
    expect(group.members.has(away)).toBe(false);
  });

  test('it leaves by its instance id alone', () => {
    join({ instanceId });
    expect(group.leave({ memberId: '', instanceId }, now)).toBe('NONE');
    expect(group.isEmpty).toBe(true);
    expect(group.leave({ memberId: '', instanceId }, now)).toBe('UNKNOWN_MEMBER_ID');
  });
});

describe('who may commit', () => {
  const problem = (memberId: string, generation: number) =>
    group.commitProblem({ memberId, instanceId: null, generation }, now);

  test('a group without members takes commits of anyone without a generation', () => {
    expect(problem('', -1)).toBeNull();
    expect(problem('x', 3)).toBe('UNKNOWN_MEMBER_ID');
  });

  test('a member commits in its generation, also while the next is being prepared, not while it completes', () => {
    const [first] = stableGroup(1);
    const { generation } = group;
    expect(problem(first!, generation)).toBeNull();
    expect(problem(first!, generation - 1)).toBe('ILLEGAL_GENERATION');
    expect(problem('', -1)).toBe('UNKNOWN_MEMBER_ID');
    join();
    expect(group.state).toBe('PreparingRebalance');
    expect(problem(first!, generation)).toBeNull();
    join({ memberId: first! });
    expect(problem(first!, generation)).toBe('ILLEGAL_GENERATION');
    expect(problem(first!, generation + 1)).toBe('REBALANCE_IN_PROGRESS');
  });

  test('a commit is a sign of life', () => {
    const [first] = stableGroup(1);
    for (let i = 0; i < 4; i++) {
      pass(sessionMs - 1);
      expect(problem(first!, group.generation)).toBeNull();
    }
  });
});
