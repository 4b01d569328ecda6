import { setImmediate as turn } from 'node:timers/promises';
import {
  consumerProtocolSubscription,
  decodeRecords,
  encodeBatch,
  encodeMessage,
  ErrorCode,
  RecordBatch,
  zeroUuid,
  type ErrorName,
} from '@rookery/wire';
import { expect, test } from 'vitest';
import { EventBus } from '../events.ts';
import { ManualClock } from '../manual-clock.ts';
import { GroupAdministration } from './group-administration.ts';
import { GroupCoordinator, type GroupSettings } from './group-coordinator.ts';
import type { OffsetsPartition } from './group-shard.ts';
import { partitionOf } from './group-records.ts';

const minuteMs = 60_000;

/** `__consumer_offsets` in memory: batches by partition, which may refuse, or be slow. */
class OffsetsLog {
  readonly batches = new Map<number, Buffer[]>();
  fails: ErrorName | null = null;
  isLed = true;
  /** Appends wait until it is called, when it is set. */
  held: (() => void)[] | null = null;

  partition = async (index: number): Promise<OffsetsPartition | null> => {
    if (!this.isLed) return null;
    const batches = this.batches.get(index) ?? [];
    this.batches.set(index, batches);
    return {
      append: (batch) => {
        if (this.fails !== null) return Promise.resolve(this.fails);
        batches.push(batch);
        if (this.held === null) return Promise.resolve(null);
        return new Promise((resolve) => this.held!.push(() => resolve(null)));
      },
      async readAll(take) {
        for (const bytes of batches) take(RecordBatch.read(bytes, 0)!);
      },
    };
  };

  /** Keys of all records, and whether they are tombstones, in the order in which they were written. */
  get tombstones(): number {
    return [...this.batches.values()]
      .flat()
      .flatMap((bytes) => decodeRecords(RecordBatch.read(bytes, 0)!))
      .filter(({ value }) => value === null).length;
  }
}

interface Setup {
  readonly log: OffsetsLog;
  readonly clock: ManualClock;
  readonly groups: GroupCoordinator;
  readonly administration: GroupAdministration;
  readonly failures: unknown[];
}

function coordinator(
  { log = new OffsetsLog(), clock = new ManualClock() }: { log?: OffsetsLog; clock?: ManualClock } = {},
  settings: Partial<GroupSettings> = {},
): Setup {
  const events = new EventBus();
  const failures: unknown[] = [];
  events.on('backgroundFailed', (info) => failures.push(info));
  const hasPartition = (topic: string, partition: number) => topic.startsWith('t') && partition < 4;
  const groups = new GroupCoordinator({
    clock,
    events,
    settings: {
      partitions: 50,
      sessionTimeoutMinMs: 6_000,
      sessionTimeoutMaxMs: 30 * minuteMs,
      sizeMax: 100,
      initialDelayMs: 0,
      metadataBytesMax: 100,
      retentionMs: 60 * minuteMs,
      retentionCheckMs: 10 * minuteMs,
      ...settings,
    },
    partition: log.partition,
    topicName: (id) => (id === 'id-of-t1' ? 't1' : undefined),
    topicId: (name) => `id-of-${name}`,
    hasPartition,
  });
  return { log, clock, groups, administration: new GroupAdministration(groups, hasPartition), failures };
}

/** Lets what is under way finish: promises run by themselves, ends of turns are the clock's. */
async function settle({ clock }: Setup): Promise<void> {
  for (let i = 0; i < 5; i++) {
    await turn();
    clock.turn();
  }
  await turn();
}

async function pass(setup: Setup, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 5 * minuteMs) {
    setup.clock.advance(Math.min(left, 5 * minuteMs));
    await settle(setup);
  }
}

async function settled<T>(setup: Setup, promise: Promise<T>): Promise<T> {
  await settle(setup);
  return promise;
}

const caller = { version: 9, clientId: 'c', clientHost: '/127.0.0.1' };

const joinRequest = {
  groupId: 'g',
  sessionTimeoutMs: 10_000,
  rebalanceTimeoutMs: 30_000,
  memberId: '',
  groupInstanceId: null,
  protocolType: 'consumer',
  protocols: [{ name: 'range', metadata: Buffer.from('m') }],
  reason: null,
};

async function joinAndSync(setup: Setup, options: Partial<typeof joinRequest> = {}) {
  const { groups } = setup;
  const request = { ...joinRequest, ...options };
  const joined = await settled(setup, groups.joinGroup(request, { ...caller, version: 3 }));
  expect(joined.errorCode).toBe(0);
  const synced = await settled(
    setup,
    groups.syncGroup(
      {
        groupId: request.groupId,
        generationId: joined.generationId!,
        memberId: joined.memberId,
        groupInstanceId: null,
        protocolType: null,
        protocolName: null,
        assignments: [{ memberId: joined.memberId, assignment: Buffer.from('all') }],
      },
      { version: 5 },
    ),
  );
  expect(synced.errorCode).toBe(0);
  return { memberId: joined.memberId, generationId: joined.generationId! };
}

interface CommitOptions {
  groupId?: string;
  memberId?: string;
  generation?: number;
  topic?: string;
  partition?: number;
  offset?: number;
  leaderEpoch?: number;
  metadata?: string | null;
}

async function startCommit({ groups }: Setup, options: CommitOptions): Promise<ErrorName> {
  const { topics } = await groups.offsetCommit(
    {
      groupId: options.groupId ?? 'g',
      generationIdOrMemberEpoch: options.generation ?? -1,
      memberId: options.memberId ?? '',
      groupInstanceId: null,
      retentionTimeMs: -1,
      topics: [
        {
          name: options.topic ?? 't1',
          topicId: zeroUuid,
          partitions: [
            {
              partitionIndex: options.partition ?? 0,
              committedOffset: options.offset ?? 1,
              committedLeaderEpoch: options.leaderEpoch ?? -1,
              committedMetadata: options.metadata ?? null,
            },
          ],
        },
      ],
    },
    { version: 9 },
  );
  return nameOf(topics[0]!.partitions[0]!.errorCode);
}

const commit = (setup: Setup, options: CommitOptions = {}): Promise<ErrorName> =>
  settled(setup, startCommit(setup, options));

const nameOf = (code: number): ErrorName =>
  (Object.keys(ErrorCode) as ErrorName[]).find((name) => ErrorCode[name] === code)!;

async function fetchAll(setup: Setup, groupId = 'g') {
  const answer = await settled(
    setup,
    setup.groups.offsetFetch(
      {
        groupId: '',
        topics: null,
        groups: [{ groupId, memberId: null, memberEpoch: -1, topics: null }],
        requireStable: false,
      },
      { version: 9 },
    ),
  );
  const [group] = answer.groups!;
  expect(group!.errorCode).toBe(0);
  return group!.topics.flatMap(({ name, partitions }) =>
    partitions.map(({ partitionIndex, committedOffset, committedLeaderEpoch, metadata }) => [
      name,
      partitionIndex,
      committedOffset,
      committedLeaderEpoch,
      metadata,
    ]),
  );
}

const restarted = (setup: Setup, settings: Partial<GroupSettings> = {}): Setup => {
  setup.groups.close();
  return coordinator({ log: setup.log, clock: setup.clock }, settings);
};

test('offset, leader epoch and metadata of a commit come back as they were, also after a restart', async () => {
  const setup = coordinator();
  expect(await commit(setup, { offset: 42, leaderEpoch: 3, metadata: 'wörds 😀' })).toBe('NONE');
  expect(await commit(setup, { partition: 2, offset: 2 ** 53 - 1 })).toBe('NONE');
  const expected = [
    ['t1', 0, 42, 3, 'wörds 😀'],
    ['t1', 2, 2 ** 53 - 1, -1, ''],
  ];
  expect(await fetchAll(setup)).toEqual(expected);
  const again = restarted(setup);
  expect(await fetchAll(again)).toEqual(expected);
});

test('what nobody committed is offset -1 without an error, whether the group is there or not', async () => {
  const setup = coordinator();
  const ask = (version: number) =>
    settled(
      setup,
      setup.groups.offsetFetch(
        {
          groupId: 'none',
          topics: [{ name: 't1', partitionIndexes: [0] }],
          groups: [],
          requireStable: false,
        },
        { version },
      ),
    );
  for (const version of [1, 5, 7])
    expect((await ask(version)).topics![0]!.partitions[0]).toMatchObject({
      committedOffset: -1,
      errorCode: 0,
    });
  expect(setup.groups.groupCount).toBe(0);
});

test('topics by id are found, and one that is not known has its error', async () => {
  const setup = coordinator();
  const partitions = [
    { partitionIndex: 1, committedOffset: 7, committedLeaderEpoch: 0, committedMetadata: '' },
  ];
  const answer = await settled(
    setup,
    setup.groups.offsetCommit(
      {
        groupId: 'g',
        generationIdOrMemberEpoch: -1,
        memberId: '',
        groupInstanceId: null,
        retentionTimeMs: -1,
        topics: [
          { name: '', topicId: 'id-of-t1', partitions },
          { name: '', topicId: 'id-of-nothing', partitions },
        ],
      },
      { version: 10 },
    ),
  );
  expect(answer.topics.map(({ partitions: [first] }) => nameOf(first!.errorCode))).toEqual([
    'NONE',
    'UNKNOWN_TOPIC_ID',
  ]);
  expect(await fetchAll(setup)).toEqual([['t1', 1, 7, 0, '']]);
});

test('commits that cannot be are refused each with its error, and leave no group behind', async () => {
  const setup = coordinator();
  expect(await commit(setup, { topic: 'x' })).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  expect(await commit(setup, { partition: 4 })).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  expect(await commit(setup, { metadata: 'x'.repeat(101) })).toBe('OFFSET_METADATA_TOO_LARGE');
  expect(await commit(setup, { groupId: '' })).toBe('INVALID_GROUP_ID');
  expect(await commit(setup, { generation: 1, memberId: 'm' })).toBe('ILLEGAL_GENERATION');
  expect(setup.groups.groupCount).toBe(0);
});

test('members commit in their generation alone', async () => {
  const setup = coordinator();
  const { memberId, generationId } = await joinAndSync(setup);
  expect(await commit(setup, { memberId, generation: generationId })).toBe('NONE');
  expect(await commit(setup, { memberId, generation: generationId + 1 })).toBe('ILLEGAL_GENERATION');
  expect(await commit(setup, { memberId: 'other', generation: generationId })).toBe('UNKNOWN_MEMBER_ID');
  expect(await commit(setup)).toBe('UNKNOWN_MEMBER_ID');
});

test('a commit is told, and can be read, only when it is in the log', async () => {
  const setup = coordinator();
  await commit(setup, { offset: 1 });
  setup.log.held = [];
  let told: ErrorName | undefined;
  void startCommit(setup, { offset: 2 }).then((error) => (told = error));
  await settle(setup);
  expect(told).toBeUndefined();
  expect((await fetchAll(setup))[0]![2]).toBe(1);
  for (const go of setup.log.held.splice(0)) go();
  await settle(setup);
  expect(told).toBe('NONE');
  expect((await fetchAll(setup))[0]![2]).toBe(2);
});

test('a log that refuses is an error that clients of a coordinator know, and nothing changes', async () => {
  const setup = coordinator();
  await commit(setup, { offset: 1 });
  for (const [fails, expected] of [
    ['NOT_LEADER_OR_FOLLOWER', 'NOT_COORDINATOR'],
    ['KAFKA_STORAGE_ERROR', 'NOT_COORDINATOR'],
    ['MESSAGE_TOO_LARGE', 'INVALID_COMMIT_OFFSET_SIZE'],
    ['NOT_ENOUGH_REPLICAS', 'COORDINATOR_NOT_AVAILABLE'],
  ] as const) {
    setup.log.fails = fails;
    expect(await commit(setup, { offset: 2 })).toBe(expected);
  }
  setup.log.fails = null;
  expect((await fetchAll(setup))[0]![2]).toBe(1);
});

test('many commits of one turn go in few batches, and each is told of its own', async () => {
  const setup = coordinator({}, { metadataBytesMax: 1_000_000 });
  const large = 'x'.repeat(30_000);
  const commits = Array.from({ length: 40 }, (_, i) =>
    startCommit(setup, { partition: i % 4, offset: i, metadata: large }),
  );
  await settle(setup);
  expect(new Set(await Promise.all(commits))).toEqual(new Set(['NONE']));
  expect([...setup.log.batches.values()].flat().length).toBe(3);
  expect((await fetchAll(setup)).map(([, , offset]) => offset)).toEqual([36, 37, 38, 39]);
  const small = Array.from({ length: 50 }, (_, i) => startCommit(setup, { groupId: 'g', offset: i }));
  await settle(setup);
  expect(new Set(await Promise.all(small))).toEqual(new Set(['NONE']));
  expect([...setup.log.batches.values()].flat().length).toBe(4);
});

test('members and their assignments are there after a restart, with a new session', async () => {
  const setup = coordinator();
  const { memberId, generationId } = await joinAndSync(setup);
  await pass(setup, 9_000);
  const again = restarted(setup);
  await again.groups.load(partitionOf('g', 50));
  await pass(again, 9_000);
  const beat = (s: Setup) =>
    settled(
      s,
      s.groups.heartbeat({ groupId: 'g', generationId, memberId, groupInstanceId: null }, { version: 4 }),
    );
  expect(nameOf((await beat(again)).errorCode)).toBe('NONE');
  const synced = await settled(
    again,
    again.groups.syncGroup(
      {
        groupId: 'g',
        generationId,
        memberId,
        groupInstanceId: null,
        protocolType: 'consumer',
        protocolName: 'range',
        assignments: [],
      },
      { version: 5 },
    ),
  );
  expect(synced).toMatchObject({ errorCode: 0, assignment: Buffer.from('all') });
  await pass(again, 10_001);
  expect(nameOf((await beat(again)).errorCode)).toBe('UNKNOWN_MEMBER_ID');
});

test('sessions end by the clock, and an empty group is loaded as empty', async () => {
  const setup = coordinator();
  await joinAndSync(setup);
  await commit(setup).catch(() => {});
  await pass(setup, 10_001);
  expect(setup.administration.listGroups({ statesFilter: [], typesFilter: [] }).groups).toMatchObject([
    { groupId: 'g', groupState: 'Empty', protocolType: 'consumer' },
  ]);
  const again = restarted(setup);
  await again.groups.load(partitionOf('g', 50));
  const [held] = [...again.groups.groups()];
  expect(held!.group).toMatchObject({ state: 'Empty', generation: 2 });
});

test('session timeouts outside the limits and empty group ids are refused', async () => {
  const setup = coordinator();
  const join = async (options: Partial<typeof joinRequest>) =>
    nameOf((await settled(setup, setup.groups.joinGroup({ ...joinRequest, ...options }, caller))).errorCode);
  expect(await join({ sessionTimeoutMs: 5_999 })).toBe('INVALID_SESSION_TIMEOUT');
  expect(await join({ sessionTimeoutMs: 30 * minuteMs + 1 })).toBe('INVALID_SESSION_TIMEOUT');
  expect(await join({ groupId: '' })).toBe('INVALID_GROUP_ID');
  expect(await join({ memberId: 'nobody' })).toBe('UNKNOWN_MEMBER_ID');
  const large = [{ name: 'range', metadata: Buffer.alloc(1024 * 1024 + 1) }];
  expect(await join({ protocols: large })).toBe('INVALID_REQUEST');
});

test('groups that are only knocked at leave nothing in memory and nothing in the log', async () => {
  const setup = coordinator();
  for (let i = 0; i < 200; i++) {
    const groupId = `knock-${i}`;
    const { errorCode } = await settled(setup, setup.groups.joinGroup({ ...joinRequest, groupId }, caller));
    expect(nameOf(errorCode)).toBe('MEMBER_ID_REQUIRED');
  }
  expect(setup.groups.groupCount).toBe(200);
  await pass(setup, 10_001);
  expect(setup.groups.groupCount).toBe(0);
  const refused = { ...joinRequest, protocols: [] };
  expect(nameOf((await settled(setup, setup.groups.joinGroup(refused, caller))).errorCode)).toBe(
    'INCONSISTENT_GROUP_PROTOCOL',
  );
  expect(setup.groups.groupCount).toBe(0);
  expect([...setup.log.batches.values()].flat()).toEqual([]);
});

test('offsets of a group without members expire, and the group with them', async () => {
  const setup = coordinator();
  await commit(setup, { partition: 0 });
  await pass(setup, 30 * minuteMs);
  await commit(setup, { partition: 1 });
  await pass(setup, 40 * minuteMs);
  expect((await fetchAll(setup)).map(([, partition]) => partition)).toEqual([1]);
  await pass(setup, 40 * minuteMs);
  expect(await fetchAll(setup)).toEqual([]);
  expect(setup.log.tombstones).toBe(2);
  const again = restarted(setup);
  expect(await fetchAll(again)).toEqual([]);
});

test('offsets of a group with members never expire, and after that not before the retention is over', async () => {
  const setup = coordinator({}, { sessionTimeoutMaxMs: 1_000 * minuteMs });
  const { memberId, generationId } = await joinAndSync(setup, { sessionTimeoutMs: 300 * minuteMs });
  await commit(setup, { memberId, generation: generationId });
  await pass(setup, 200 * minuteMs);
  expect((await fetchAll(setup)).length).toBe(1);
  await settled(
    setup,
    setup.groups.leaveGroup(
      { groupId: 'g', memberId: '', members: [{ memberId, groupInstanceId: null, reason: null }] },
      { version: 5 },
    ),
  );
  await pass(setup, 50 * minuteMs);
  expect((await fetchAll(setup)).length).toBe(1);
  // A restart does not begin the time anew, nor end it early.
  const again = restarted(setup);
  await again.groups.load(partitionOf('g', 50));
  await pass(again, 5 * minuteMs);
  expect((await fetchAll(again)).length).toBe(1);
  await pass(again, 20 * minuteMs);
  expect(await fetchAll(again)).toEqual([]);
  await pass(again, 10 * minuteMs);
  expect(again.groups.groupCount).toBe(0);
});

test('a commit that races the end of its group is kept', async () => {
  const setup = coordinator();
  await commit(setup, { offset: 1 });
  await pass(setup, 55 * minuteMs);
  setup.log.held = [];
  const late = startCommit(setup, { offset: 2 });
  await settle(setup);
  setup.clock.advance(10 * minuteMs);
  for (let i = 0; i < 3; i++) {
    for (const go of setup.log.held.splice(0)) go();
    await settle(setup);
  }
  setup.log.held = null;
  expect(await late).toBe('NONE');
  const kept = await fetchAll(setup);
  expect(kept.map(([, , offset]) => offset)).toEqual([2]);
  expect(await fetchAll(restarted(setup))).toEqual(kept);
});

test('what is in memory is what the log says, however commits and deletions of one turn are mixed', async () => {
  const setup = coordinator();
  await commit(setup, { offset: 1 });
  const first = startCommit(setup, { offset: 2 });
  await turn();
  setup.groups.forgetTopic('t1');
  await settle(setup);
  expect(await first).toBe('NONE');
  const kept = await fetchAll(setup);
  expect(await fetchAll(restarted(setup))).toEqual(kept);
});

test('texts that the log could not hold are refused, and harm nobody', async () => {
  const setup = coordinator();
  const join = async (options: Partial<typeof joinRequest> | { groupInstanceId: string }) =>
    nameOf(
      (
        await settled(
          setup,
          setup.groups.joinGroup({ ...joinRequest, ...options }, { ...caller, version: 3 }),
        )
      ).errorCode,
    );
  const long = 'x'.repeat(40_000);
  expect(await join({ groupId: long })).toBe('INVALID_GROUP_ID');
  expect(await join({ protocolType: long })).toBe('INVALID_REQUEST');
  expect(await join({ groupInstanceId: long.slice(0, 32_767) })).toBe('INVALID_REQUEST');
  expect(await join({ protocols: [{ name: long, metadata: Buffer.alloc(0) }] })).toBe('INVALID_REQUEST');
  const generous = coordinator({}, { metadataBytesMax: 1_000_000 });
  expect(await commit(generous, { metadata: long })).toBe('OFFSET_METADATA_TOO_LARGE');
  const clientId = 'ß'.repeat(32_767);
  const joined = await settled(
    setup,
    setup.groups.joinGroup(joinRequest, { ...caller, clientId, version: 3 }),
  );
  expect(Buffer.byteLength(joined.memberId)).toBeLessThan(1_000);
});

test('a topic that is deleted takes its offsets with it', async () => {
  const setup = coordinator();
  await commit(setup, { topic: 't1' });
  await commit(setup, { topic: 't2' });
  setup.groups.forgetTopic('t1');
  await settle(setup);
  expect((await fetchAll(setup)).map(([topic]) => topic)).toEqual(['t2']);
  expect((await fetchAll(restarted(setup))).map(([topic]) => topic)).toEqual(['t2']);
});

test('records that this version cannot read do not keep the others from being loaded', async () => {
  const setup = coordinator();
  await commit(setup, { offset: 5 });
  const index = partitionOf('g', 50);
  const key = (kind: number) => Buffer.from([0, kind, 0, 1, 0x67, 0, 2, 0x74, 0x31, 0, 0, 0, 0]);
  const strange = [
    { key: key(9), value: Buffer.from('of a kind to come'), timestamp: 0 },
    { key: key(2), value: Buffer.from([0, 99, 1, 2, 3]), timestamp: 0 },
    { key: key(1), value: Buffer.from([0]), timestamp: 0 },
    { key: Buffer.from([0]), value: null, timestamp: 0 },
    { key: null, value: Buffer.from('no key'), timestamp: 0 },
  ];
  setup.log.batches.get(index)!.push(encodeBatch(strange));
  const again = restarted(setup);
  expect((await fetchAll(again))[0]![2]).toBe(5);
});

test('a partition that is not led here, or cannot be loaded, is asked for again later', async () => {
  const setup = coordinator();
  setup.log.isLed = false;
  expect(await commit(setup)).toBe('COORDINATOR_NOT_AVAILABLE');
  setup.log.isLed = true;
  const index = partitionOf('g', 50);
  const torn = encodeBatch([{ key: Buffer.from([0, 1]), value: Buffer.from('x'), timestamp: 0 }]);
  const broken = Buffer.from(torn);
  broken[torn.length - 1]! ^= 0xff;
  broken.writeInt32BE(77, 57);
  setup.log.batches.set(index, [broken]);
  await pass(setup, 100);
  expect(await commit(setup)).toBe('COORDINATOR_NOT_AVAILABLE');
  expect(setup.failures.length).toBe(1);
  setup.log.batches.set(index, []);
  await pass(setup, 100);
  expect(await commit(setup)).toBe('NONE');
});

test('a closing broker sends members on to another coordinator', async () => {
  const setup = coordinator();
  const { memberId } = await joinAndSync(setup);
  const waiting = setup.groups.joinGroup({ ...joinRequest, memberId: '' }, { ...caller, version: 3 });
  await settle(setup);
  setup.groups.close();
  expect(nameOf((await waiting).errorCode)).toBe('NOT_COORDINATOR');
  const { errorCode } = await setup.groups.heartbeat(
    { groupId: 'g', generationId: 1, memberId, groupInstanceId: null },
    { version: 4 },
  );
  expect(nameOf(errorCode)).toBe('NOT_COORDINATOR');
});

test('leaving several at once answers for each', async () => {
  const setup = coordinator();
  const { memberId } = await joinAndSync(setup);
  const members = [memberId, 'nobody'].map((id) => ({ memberId: id, groupInstanceId: null, reason: null }));
  const answer = await settled(
    setup,
    setup.groups.leaveGroup({ groupId: 'g', memberId: '', members }, { version: 5 }),
  );
  expect(answer.members!.map(({ errorCode }) => nameOf(errorCode))).toEqual(['NONE', 'UNKNOWN_MEMBER_ID']);
  const old = await settled(
    setup,
    setup.groups.leaveGroup({ groupId: 'g', memberId, members: [] }, { version: 1 }),
  );
  expect(nameOf(old.errorCode)).toBe('UNKNOWN_MEMBER_ID');
});

// Administration -----------------------------------------------------------------------------------

test('groups are listed by state and type, and described with their members', async () => {
  const setup = coordinator();
  const { memberId } = await joinAndSync(setup, { groupId: 'live' });
  await commit(setup, { groupId: 'simple' });
  const { administration } = setup;
  const names = (statesFilter: string[], typesFilter: string[] = []) =>
    administration
      .listGroups({ statesFilter, typesFilter })
      .groups.map(({ groupId }) => groupId)
      .sort();
  expect(names([])).toEqual(['live', 'simple']);
  expect(names(['stable'])).toEqual(['live']);
  expect(names(['Empty', 'Dead'])).toEqual(['simple']);
  expect(names([], ['consumer'])).toEqual([]);
  expect(names([], ['Classic'])).toEqual(['live', 'simple']);
  const describe = async (groupId: string, version: number) =>
    (
      await settled(
        setup,
        administration.describeGroups(
          { groups: [groupId], includeAuthorizedOperations: true },
          { version, operations: 8 },
        ),
      )
    ).groups[0]!;
  expect(await describe('live', 6)).toMatchObject({
    errorCode: 0,
    groupState: 'Stable',
    protocolType: 'consumer',
    protocolData: 'range',
    authorizedOperations: 8,
    members: [
      {
        memberId,
        clientId: 'c',
        clientHost: '/127.0.0.1',
        memberMetadata: Buffer.from('m'),
        memberAssignment: Buffer.from('all'),
      },
    ],
  });
  expect(await describe('none', 5)).toMatchObject({ errorCode: 0, groupState: 'Dead' });
  expect(nameOf((await describe('none', 6)).errorCode)).toBe('GROUP_ID_NOT_FOUND');
  expect(nameOf((await describe('', 6)).errorCode)).toBe('INVALID_GROUP_ID');
});

test('only a group without members can be deleted, and it stays deleted', async () => {
  const setup = coordinator();
  await joinAndSync(setup, { groupId: 'live' });
  await commit(setup, { groupId: 'idle', partition: 0 });
  await commit(setup, { groupId: 'idle', partition: 1 });
  const answer = await settled(
    setup,
    setup.administration.deleteGroups({ groupsNames: ['live', 'idle', 'none', ''] }),
  );
  expect(answer.results.map(({ groupId, errorCode }) => [groupId, nameOf(errorCode)])).toEqual([
    ['live', 'NON_EMPTY_GROUP'],
    ['idle', 'NONE'],
    ['none', 'GROUP_ID_NOT_FOUND'],
    ['', 'INVALID_GROUP_ID'],
  ]);
  expect(await fetchAll(setup, 'idle')).toEqual([]);
  const again = restarted(setup);
  expect(await fetchAll(again, 'idle')).toEqual([]);
  expect(await commit(again, { groupId: 'idle', offset: 9 })).toBe('NONE');
});

test('offsets of topics that a group does not read can be deleted, those that it reads cannot', async () => {
  const setup = coordinator();
  const subscription = Buffer.concat([
    Buffer.from([0, 1]),
    encodeMessage(consumerProtocolSubscription, 1, { topics: ['t2'], ownedPartitions: [] }),
  ]);
  await commit(setup, { topic: 't1' });
  await commit(setup, { topic: 't2' });
  const { memberId, generationId } = await joinAndSync(setup, {
    protocols: [{ name: 'range', metadata: subscription }],
  });
  expect(memberId).not.toBe('');
  expect(generationId).toBe(1);
  const remove = (groupId: string, topics: string[]) =>
    settled(
      setup,
      setup.administration.offsetDelete({
        groupId,
        topics: topics.map((name) => ({ name, partitions: [{ partitionIndex: 0 }] })),
      }),
    );
  const answer = await remove('g', ['t1', 't2', 'x']);
  expect(answer.topics.map(({ name, partitions: [first] }) => [name, nameOf(first!.errorCode)])).toEqual([
    ['t1', 'NONE'],
    ['t2', 'GROUP_SUBSCRIBED_TO_TOPIC'],
    ['x', 'UNKNOWN_TOPIC_OR_PARTITION'],
  ]);
  expect((await fetchAll(setup)).map(([topic]) => topic)).toEqual(['t2']);
  expect(nameOf((await remove('none', ['t1'])).errorCode)).toBe('GROUP_ID_NOT_FOUND');
});

test('offsets of a group of another kind are kept while it has members', async () => {
  const setup = coordinator();
  await joinAndSync(setup, { protocolType: 'connect' });
  const { errorCode } = await settled(setup, setup.administration.offsetDelete({ groupId: 'g', topics: [] }));
  expect(nameOf(errorCode)).toBe('NON_EMPTY_GROUP');
});
