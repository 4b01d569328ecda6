import {
  createTopics,
  deleteTopics,
  describeCluster,
  describeConfigs,
  encodeBatch,
  ErrorCode,
  fetch,
  findCoordinator,
  heartbeat,
  initProducerId,
  joinGroup,
  leaveGroup,
  listOffsets,
  metadata,
  offsetCommit,
  offsetFetch,
  offsetForLeaderEpoch,
  produce,
  syncGroup,
  zeroUuid,
  type Api,
  type Encodable,
} from '@rookery/wire';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { kafka, sidecar } from '../support/peers.ts';
import { WireConnection } from '../support/wire-connection.ts';

// The same questions to the sidecar and to a real Kafka, in every version of every API, must get the same answers,
// but for what each broker names by itself, and for the few differences at the end.

const settings = { 'auto.create.topics.enable': false };
const brokers = [sidecar({ settings }), kafka({ settings })];
const wires: WireConnection[] = [];
const topicIds: string[] = [];
const within = { timeout: 30_000, interval: 50 };

const start = Date.UTC(2026, 0, 1);
const record = (time: number) => ({
  timestamp: start + time,
  key: Buffer.from(`k${time}`),
  value: Buffer.from(`v${time}`),
  headers: [],
});
const batch = (...times: number[]): Buffer => encodeBatch(times.map(record));

beforeAll(async () => {
  for (const { address } of brokers) {
    const wire = await WireConnection.open(address);
    wires.push(wire);
    const { topics } = await wire.ask(createTopics, 7, {
      topics: [creating('same', 2, { 'message.timestamp.before.max.ms': '9223372036854775807' })],
      validateOnly: false,
    });
    const { topicId } = topics[0]!;
    topicIds.push(topicId);
    for (const records of [batch(0, 10, 20), batch(30, 50, 40)]) {
      await vi.waitFor(async () => {
        const answer = await wire.ask(produce, 9, producing(topicId, records));
        expect(answer.responses[0]!.partitionResponses[0]!.errorCode).toBe(0);
      }, within);
    }
    await vi.waitFor(async () => {
      await wire.ask(findCoordinator, 3, { key: 'reading', keyType: 0 });
      const committed = await wire.ask(offsetCommit, 9, committing(topicId, { metadata: 'so far' }));
      expect(committed.topics[0]!.partitions[0]!.errorCode).toBe(0);
    }, within);
    await vi.waitFor(async () => {
      const body = { transactionalId: null, transactionTimeoutMs: 60_000 };
      expect((await wire.ask(initProducerId, 4, body)).errorCode).toBe(0);
    }, within);
  }
});
afterAll(() => {
  for (const wire of wires) wire.close();
});

const creating = (
  name: string,
  numPartitions: number,
  configs: Readonly<Record<string, string>> = {},
  replicationFactor = 1,
) => ({
  name,
  numPartitions,
  replicationFactor,
  assignments: [],
  configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
});

const producing = (topicId: string, records: Buffer, { name = 'same', index = 0, acks = -1 } = {}) => ({
  acks,
  timeoutMs: 10_000,
  topicData: [{ name, topicId, partitionData: [{ index, records: [records] }] }],
});

const committing = (
  topicId: string,
  { name = 'same', partition = 0, group = 'reading', member = '', generation = -1, metadata = '' } = {},
) => ({
  groupId: group,
  generationIdOrMemberEpoch: generation,
  memberId: member,
  topics: [
    {
      name,
      topicId,
      partitions: [{ partitionIndex: partition, committedOffset: 3, committedMetadata: metadata }],
    },
  ],
});

const fetching = (
  topicId: string,
  fetchOffset: number,
  { topic = 'same', partition = 0, epoch = -1 } = {},
) => ({
  maxWaitMs: 0,
  minBytes: 1,
  isolationLevel: 0,
  sessionId: 0,
  rackId: '',
  forgottenTopicsData: [],
  topics: [
    {
      topic,
      topicId,
      partitions: [{ partition, currentLeaderEpoch: epoch, fetchOffset, partitionMaxBytes: 1_000_000 }],
    },
  ],
});

const listing = (timestamp: number, { name = 'same', partition = 0, epoch = -1 } = {}) => ({
  replicaId: -1,
  isolationLevel: 0,
  timeoutMs: 1_000,
  topics: [{ name, partitions: [{ partitionIndex: partition, currentLeaderEpoch: epoch, timestamp }] }],
});

const reading = (topicId: string, { group = 'reading', name = 'same', partitions = [0] } = {}) => ({
  groupId: group,
  topics: [{ name, partitionIndexes: partitions }],
  groups: [{ groupId: group, topics: [{ name, topicId, partitionIndexes: partitions }] }],
  requireStable: false,
});

const joining = { sessionTimeoutMs: 30_000, rebalanceTimeoutMs: 30_000, protocolType: 'consumer' };
const protocols = [
  { name: 'range', metadata: Buffer.from([0, 1, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]) },
];
const unknownId = 'AAAAAAAAAAAAAAAAAAAAAQ';

interface Question {
  readonly api: Api;
  readonly what: string;
  readonly since?: number;
  readonly until?: number;
  readonly body: (topicId: string) => never;
}

function question<A extends Api>(
  api: A,
  what: string,
  body: Encodable<A['request']> | ((topicId: string) => Encodable<A['request']>),
  versions: { since?: number; until?: number } = {},
): Question {
  return { api, what, ...versions, body: (typeof body === 'function' ? body : () => body) as never };
}

const flipped = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(bytes);
  copy[copy.length - 1]! ^= 1;
  return copy;
};

const create = (what: string, topic: ReturnType<typeof creating>): Question =>
  question(createTopics, what, { topics: [topic], validateOnly: true });

const questions: Question[] = [
  question(listOffsets, 'the start', listing(-2)),
  question(listOffsets, 'the end', listing(-1)),
  question(listOffsets, 'a time', listing(start + 31)),
  question(listOffsets, 'a time that is to come', listing(start + 51)),
  question(listOffsets, 'the largest time', listing(-3), { since: 7 }),
  question(listOffsets, 'an empty partition, by time', listing(start, { partition: 1 })),
  question(listOffsets, 'no such topic', listing(-1, { name: 'none' })),
  question(listOffsets, 'no such partition', listing(-1, { partition: 7 })),
  question(listOffsets, 'an epoch that is to come', listing(-1, { epoch: 9 }), { since: 4 }),
  question(fetch, 'from the start', (id) => fetching(id, 0)),
  question(fetch, 'from inside a batch', (id) => fetching(id, 4)),
  question(fetch, 'from the end', (id) => fetching(id, 6)),
  question(fetch, 'no such topic', fetching(unknownId, 0, { topic: 'none' })),
  question(fetch, 'no such partition', (id) => fetching(id, 0, { partition: 7 })),
  question(fetch, 'an epoch that is to come', (id) => fetching(id, 0, { epoch: 9 }), { since: 9 }),
  question(metadata, 'a topic', { topics: [{ name: 'same' }], includeTopicAuthorizedOperations: false }),
  question(metadata, 'a topic and what may be done', {
    topics: [{ name: 'same' }],
    includeTopicAuthorizedOperations: true,
  }),
  question(metadata, 'no such topic', {
    topics: [{ name: 'none' }],
    includeTopicAuthorizedOperations: false,
  }),
  question(metadata, 'no valid name', { topics: [{ name: 'a b' }], includeTopicAuthorizedOperations: false }),
  question(offsetFetch, 'what is committed', (id) => reading(id)),
  question(offsetFetch, 'nothing committed', (id) => reading(id, { partitions: [1, 7] })),
  question(offsetFetch, 'no such group', (id) => reading(id, { group: 'none' })),
  question(offsetFetch, 'no such topic', reading(unknownId, { name: 'none' })),
  question(offsetCommit, 'of nobody', (id) => committing(id, { partition: 1, group: 'nobody' })),
  question(offsetCommit, 'no such partition', (id) => committing(id, { partition: 7 })),
  question(offsetCommit, 'no such topic', committing(unknownId, { name: 'none' })),
  question(offsetCommit, 'no such member', (id) => committing(id, { member: 'x', generation: 3 })),
  question(findCoordinator, 'of a group', { key: 'reading', keyType: 0, coordinatorKeys: ['reading'] }),
  question(heartbeat, 'of no member', { groupId: 'reading', generationId: 3, memberId: 'x' }),
  question(heartbeat, 'in no group', { groupId: '', generationId: 3, memberId: 'x' }),
  question(leaveGroup, 'no member', { groupId: 'reading', memberId: 'x', members: [{ memberId: 'x' }] }),
  question(syncGroup, 'no member', {
    ...{
      groupId: 'reading',
      generationId: 3,
      memberId: 'x',
      protocolType: 'consumer',
      protocolName: 'range',
    },
    assignments: [],
  }),
  question(joinGroup, 'as a stranger', { groupId: 'reading', memberId: 'x', protocols, ...joining }),
  question(joinGroup, 'no group', { groupId: '', memberId: '', protocols, ...joining }),
  question(joinGroup, 'too short a session', {
    ...{ groupId: 'reading', memberId: '', protocols, ...joining },
    sessionTimeoutMs: 1,
  }),
  question(joinGroup, 'without a protocol', { groupId: 'reading', memberId: '', protocols: [], ...joining }),
  create('a new one', creating('new', 3)),
  create('with the defaults', creating('new', -1, {}, -1)),
  create('that exists', creating('same', 1)),
  create('no valid name', creating('a b', 1)),
  create('too long a name', creating('x'.repeat(250), 1)),
  create('no partitions', creating('new', 0)),
  create('more replicas than brokers', creating('new', 1, {}, 3)),
  create('an unknown setting', creating('new', 1, { 'no.such.thing': '1' })),
  create('a setting out of range', creating('new', 1, { 'segment.bytes': '-5' })),
  create('a setting of another type', creating('new', 1, { 'retention.ms': 'long' })),
  question(deleteTopics, 'no such topic', {
    topicNames: ['none'],
    topics: [{ name: 'none', topicId: zeroUuid }],
    timeoutMs: 1_000,
  }),
  question(
    deleteTopics,
    'no such id',
    { topicNames: [], topics: [{ name: null, topicId: unknownId }], timeoutMs: 1_000 },
    { since: 6 },
  ),
  question(describeConfigs, 'one of a topic', {
    resources: [{ resourceType: 2, resourceName: 'same', configurationKeys: ['cleanup.policy', 'none'] }],
    includeSynonyms: true,
    includeDocumentation: false,
  }),
  question(describeConfigs, 'no such topic', {
    resources: [{ resourceType: 2, resourceName: 'none', configurationKeys: null }],
    includeSynonyms: false,
    includeDocumentation: false,
  }),
  question(describeConfigs, 'no such broker', {
    resources: [{ resourceType: 4, resourceName: '77', configurationKeys: null }],
    includeSynonyms: false,
    includeDocumentation: false,
  }),
  question(describeCluster, 'with what may be done', {
    includeClusterAuthorizedOperations: true,
    includeFencedBrokers: false,
  }),
  question(offsetForLeaderEpoch, 'the first epoch', {
    topics: [{ topic: 'same', partitions: [{ partition: 0, leaderEpoch: 0 }] }],
  }),
  question(offsetForLeaderEpoch, 'one to come', {
    topics: [{ topic: 'same', partitions: [{ partition: 0, leaderEpoch: 5 }] }],
  }),
  question(offsetForLeaderEpoch, 'no such topic', {
    topics: [{ topic: 'none', partitions: [{ partition: 0, leaderEpoch: 0 }] }],
  }),
  question(initProducerId, 'a new one', { transactionalId: null, transactionTimeoutMs: 60_000 }),
  question(produce, 'a batch', (id) => producing(id, batch(60), { index: 1 })),
  question(produce, 'a broken batch', (id) => producing(id, flipped(batch(60)))),
  question(produce, 'two batches', (id) => producing(id, Buffer.concat([batch(60), batch(70)]))),
  question(produce, 'acks that mean nothing', (id) => producing(id, batch(60), { acks: 5 })),
  question(produce, 'no such topic', producing(unknownId, batch(60), { name: 'none' })),
  question(produce, 'no such partition', (id) => producing(id, batch(60), { index: 7 })),
];

const versionsOf = ({ api, since, until }: Question): number[] => {
  const [min, max] = [since ?? api.versions[0], until ?? api.versions[1]];
  return Array.from({ length: max - min + 1 }, (_, i) => min + i);
};

/** What each broker names by itself. */
const own = new Set(['port', 'clusterId', 'controllerId', 'throttleTimeMs', 'errorMessage', 'producerId']);

function comparable(api: Api, broker: number, value: unknown, name = ''): unknown {
  // Of a topic that is made: its settings come from the broker's; its id, where only asked, from nowhere.
  if (own.has(name) || (api === createTopics && ['configs', 'topicId'].includes(name))) return 'its own';
  // No transactions are none, whether the list is empty or not there.
  if (name === 'abortedTransactions') return value ?? [];
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (Array.isArray(value)) return value.map((each) => comparable(api, broker, each));
  if (value === topicIds[broker]) return 'the topic';
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [name, comparable(api, broker, each, name)]),
  );
}

const answers = (asked: Question, version: number): Promise<unknown[]> =>
  Promise.all(
    wires.map(async (wire, broker) =>
      comparable(asked.api, broker, await wire.ask(asked.api, version, asked.body(topicIds[broker]!))),
    ),
  );

describe.each(questions.map((each) => [each.api.name, each.what, each] as const))(
  '%s: %s',
  (_api, _what, asked) => {
    test('is answered alike in every version', async () => {
      for (const version of versionsOf(asked)) {
        const [ours, theirs] = await answers(asked, version);
        expect(ours, `version ${version}`).toEqual(theirs);
      }
    });
  },
);

describe('where the sidecar answers otherwise, on purpose', () => {
  test('a group without a name is refused from the first question on: it would be shared by all who forgot one', async () => {
    const find = question(findCoordinator, '', { key: '', keyType: 0 });
    const commit = question(offsetCommit, '', (id) => committing(id, { group: '' }));
    const [found, theirs] = await answers(find, 3);
    expect(found).toMatchObject({ errorCode: ErrorCode.INVALID_GROUP_ID });
    expect(theirs).toMatchObject({ errorCode: ErrorCode.NONE });
    const committed = (errorCode: number) => ({ topics: [{ partitions: [{ errorCode }] }] });
    expect(await answers(commit, 9)).toMatchObject([
      committed(ErrorCode.INVALID_GROUP_ID),
      committed(ErrorCode.NONE),
    ]);
  });

  test('an offset outside of the log is told with where the log is', async () => {
    const outside = question(fetch, '', (id) => fetching(id, 7));
    const told = (highWatermark: number) => ({
      responses: [{ partitions: [{ errorCode: ErrorCode.OFFSET_OUT_OF_RANGE, highWatermark }] }],
    });
    expect(await answers(outside, 11)).toMatchObject([told(6), told(-1)]);
  });
});
