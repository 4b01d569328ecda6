import { connect } from 'node:net';
import {
  consumerProtocolSubscription,
  createTopics,
  encodeBatch,
  encodeMessage,
  ErrorCode,
  fetch,
  findCoordinator,
  heartbeat,
  joinGroup,
  leaveGroup,
  listOffsets,
  metadata,
  offsetCommit,
  offsetFetch,
  produce,
  RecordBatch,
  syncGroup,
  type Api,
} from '@rookery/wire';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { kafka, sidecar } from '../support/peers.ts';
import { WireConnection } from '../support/wire-connection.ts';

// Where other brokers that speak the protocol have broken clients. Each claim is also made of a real Kafka.

const within = { timeout: 30_000, interval: 50 };
const settings = { 'num.partitions': 4 };
const versionsOf = ({ versions: [min, max] }: Api): number[] =>
  Array.from({ length: max - min + 1 }, (_, i) => min + i);

describe.each([
  ['the sidecar', sidecar],
  ['a real Kafka', kafka],
])('%s', (name, start) => {
  const broker = start({ settings });
  let wire: WireConnection;
  let topicIds: Map<string, string>;

  beforeAll(async () => {
    wire = await WireConnection.open(broker.address);
    topicIds = new Map();
  });
  afterAll(() => wire?.close());

  async function create(topic: string, configs: Readonly<Record<string, string>> = {}): Promise<void> {
    const { topics } = await wire.ask(createTopics, 7, {
      topics: [
        {
          name: topic,
          numPartitions: 1,
          replicationFactor: 1,
          assignments: [],
          configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
        },
      ],
      validateOnly: false,
    });
    expect(topics[0]!.errorCode).toBe(ErrorCode.NONE);
    topicIds.set(topic, topics[0]!.topicId);
    // Kafka answers before the partition has its leader.
    await vi.waitFor(
      async () => expect((await offsetAt(topic, -2, 1)).errorCode).toBe(ErrorCode.NONE),
      within,
    );
  }

  async function append(topic: string, batch: Buffer): Promise<number> {
    const { responses } = await wire.ask(produce, 9, {
      acks: -1,
      timeoutMs: 10_000,
      topicData: [{ name: topic, partitionData: [{ index: 0, records: [batch] }] }],
    });
    return responses[0]!.partitionResponses[0]!.errorCode;
  }

  async function offsetAt(topic: string, timestamp: number, version: number) {
    const { topics } = await wire.ask(listOffsets, version, {
      replicaId: -1,
      isolationLevel: 0,
      timeoutMs: 5_000,
      topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }],
    });
    return topics[0]!.partitions[0]!;
  }

  /** The groups topic of a Kafka comes to be with the first question for it. */
  const coordinated = (group: string): Promise<void> =>
    vi.waitFor(async () => {
      const { errorCode } = await wire.ask(findCoordinator, 3, { key: group, keyType: 0 });
      expect(errorCode).toBe(ErrorCode.NONE);
      const { groups } = await wire.ask(offsetFetch, 8, {
        groups: [{ groupId: group, topics: null }],
        requireStable: false,
      });
      expect(groups[0]!.errorCode).toBe(ErrorCode.NONE);
    }, within);

  test('asking for metadata creates a topic, with as many partitions as the broker gives by default', async () => {
    const ask = () =>
      wire.ask(metadata, 4, { topics: [{ name: 'asked-for' }], allowAutoTopicCreation: true });
    // Kafka says at first that the leader is not there yet; the sidecar has it at once.
    if (name === 'the sidecar') expect((await ask()).topics[0]!.errorCode).toBe(ErrorCode.NONE);
    await vi.waitFor(async () => {
      const [topic] = (await ask()).topics;
      expect(topic!.errorCode).toBe(ErrorCode.NONE);
      expect(topic!.partitions.map(({ leaderId }) => leaderId)).toEqual([1, 1, 1, 1]);
    }, within);
  });

  test('asking without leave to create creates nothing', async () => {
    for (let i = 0; i < 2; i++) {
      const { topics } = await wire.ask(metadata, 9, {
        topics: [{ name: 'never' }],
        allowAutoTopicCreation: false,
        includeTopicAuthorizedOperations: false,
      });
      expect(topics[0]!.errorCode).toBe(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION);
    }
  });

  test.each(versionsOf(fetch))(
    'fetch version %i from inside a batch gives the batch whole',
    async (version) => {
      const topic = `inside-${version}`;
      await create(topic);
      const record = (value: string) => ({
        timestamp: Date.now(),
        key: null,
        value: Buffer.from(value),
        headers: [],
      });
      for (let i = 0; i < 2; i++)
        expect(await append(topic, encodeBatch(Array.from({ length: 10 }, () => record('owl'))))).toBe(0);
      for (const [fetchOffset, base] of [
        [5, 0],
        [9, 0],
        [19, 10],
      ] as const) {
        const answer = await wire.ask(fetch, version, {
          maxWaitMs: 5_000,
          minBytes: 1,
          isolationLevel: 0,
          sessionId: 0,
          rackId: '',
          forgottenTopicsData: [],
          topics: [
            {
              topic,
              topicId: topicIds.get(topic)!,
              partitions: [{ partition: 0, fetchOffset, partitionMaxBytes: 1 }],
            },
          ],
        });
        const [partition] = answer.responses[0]!.partitions;
        expect(partition!.errorCode).toBe(ErrorCode.NONE);
        const [batch] = RecordBatch.split(partition!.records!);
        expect(batch!.baseOffset).toBe(base);
        expect(batch!.recordCount).toBe(10);
        expect(batch!.checkCrc()).toBe(true);
      }
    },
  );

  test('a time is found at its record, also inside a compressed batch and where times go back', async () => {
    const start = Date.now() - 60_000;
    await create('times');
    const at = (...times: number[]) =>
      times.map((time) => ({
        timestamp: start + time,
        key: null,
        value: Buffer.from('x'.repeat(50)),
        headers: [],
      }));
    await append('times', encodeBatch(at(0, 10, 20)));
    await append('times', encodeBatch(at(30, 50, 40), { codec: 'zstd' }));
    await append('times', encodeBatch(at(35, 60), { codec: 'lz4' }));
    for (const version of versionsOf(listOffsets)) {
      const found = async (time: number): Promise<[offset: number, timestamp: number]> => {
        const { offset, timestamp } = await offsetAt('times', start + time, version);
        return [offset, timestamp - start];
      };
      expect(await found(-1)).toEqual([0, 0]);
      expect(await found(10)).toEqual([1, 10]);
      expect(await found(11)).toEqual([2, 20]);
      expect(await found(31)).toEqual([4, 50]);
      expect(await found(51)).toEqual([7, 60]);
      expect((await offsetAt('times', start + 61, version)).offset).toBe(-1);
      expect((await offsetAt('times', -2, version)).offset).toBe(0);
      expect((await offsetAt('times', -1, version)).offset).toBe(8);
      if (version >= 7) {
        expect(await offsetAt('times', -3, version)).toMatchObject({ offset: 7, timestamp: start + 60 });
      }
    }
  });

  test('what is committed with an offset comes back with it, in every version', async () => {
    await create('noted');
    await coordinated('noting');
    const commit = async (version: number, metadata: string | null): Promise<number> => {
      const { topics } = await wire.ask(offsetCommit, version, {
        groupId: 'noting',
        memberId: '',
        topics: [
          {
            name: 'noted',
            topicId: topicIds.get('noted')!,
            partitions: [{ partitionIndex: 0, committedOffset: version, committedMetadata: metadata }],
          },
        ],
      });
      return topics[0]!.partitions[0]!.errorCode;
    };
    const committed = async (version: number) => {
      const answer = await wire.ask(offsetFetch, version, {
        groupId: 'noting',
        topics: [{ name: 'noted', partitionIndexes: [0] }],
        groups: [
          {
            groupId: 'noting',
            topics: [{ name: 'noted', topicId: topicIds.get('noted')!, partitionIndexes: [0] }],
          },
        ],
        requireStable: false,
      });
      const topics = version < 8 ? answer.topics : answer.groups[0]!.topics;
      const { committedOffset, metadata, errorCode } = topics[0]!.partitions[0]!;
      return { committedOffset, metadata, errorCode };
    };
    for (const commitVersion of versionsOf(offsetCommit)) {
      const note = `by ${commitVersion} — ключ`;
      expect(await commit(commitVersion, note)).toBe(ErrorCode.NONE);
      for (const version of versionsOf(offsetFetch)) {
        expect(await committed(version)).toEqual({
          committedOffset: commitVersion,
          metadata: note,
          errorCode: 0,
        });
      }
    }
    expect(await commit(5, null)).toBe(ErrorCode.NONE);
    expect(await committed(9)).toEqual({ committedOffset: 5, metadata: '', errorCode: 0 });
    expect(await commit(6, 'x'.repeat(4_097))).toBe(ErrorCode.OFFSET_METADATA_TOO_LARGE);
    expect((await committed(9)).committedOffset).toBe(5);
  });

  test('a batch of max.message.bytes is taken, one byte more is MESSAGE_TOO_LARGE', async () => {
    const of = (bytes: number): Buffer => {
      const value = Buffer.alloc(bytes);
      return encodeBatch([{ timestamp: Date.now(), key: null, value, headers: [] }]);
    };
    const limit = 2_000;
    let value = limit;
    while (of(value).length > limit) value--;
    expect(of(value).length).toBe(limit);
    await create('small', { 'max.message.bytes': `${limit}` });
    expect(await append('small', of(value))).toBe(ErrorCode.NONE);
    expect(await append('small', of(value + 1))).toBe(ErrorCode.MESSAGE_TOO_LARGE);
    expect((await offsetAt('small', -1, 1)).offset).toBe(1);
  });

  describe('in a group', () => {
    // Kafka never answers a member whose wishes it cannot read.
    const subscription = Buffer.concat([
      // Its version, 1, stands before it.
      Buffer.from([0, 1]),
      encodeMessage(consumerProtocolSubscription, 1, { topics: ['birds'], ownedPartitions: [] }),
    ]);
    const joining = (group: string, memberId: string) => ({
      groupId: group,
      sessionTimeoutMs: 30_000,
      rebalanceTimeoutMs: 30_000,
      memberId,
      protocolType: 'consumer',
      protocols: [{ name: 'range', metadata: subscription }],
    });

    /** A member as a client is one: joins until it is in a generation that everybody has reached. */
    class Member {
      readonly group: string;
      readonly wire: WireConnection;
      id = '';
      generation = -1;
      assignment = '';
      readonly refusals: number[] = [];

      private constructor(group: string, connection: WireConnection) {
        this.group = group;
        this.wire = connection;
      }

      static async of(group: string): Promise<Member> {
        return new Member(group, await WireConnection.open(broker.address));
      }

      /** Until its generation stands: others that come meanwhile send it around again. */
      async join(version = 9): Promise<void> {
        for (;;) {
          const joined = await this.wire.ask(joinGroup, version, joining(this.group, this.id));
          if (joined.errorCode === ErrorCode.MEMBER_ID_REQUIRED) {
            this.id = joined.memberId;
            continue;
          }
          if (joined.errorCode !== ErrorCode.NONE) {
            this.refusals.push(joined.errorCode);
            if (joined.errorCode === ErrorCode.REBALANCE_IN_PROGRESS) continue;
            return;
          }
          this.id = joined.memberId;
          this.generation = joined.generationId;
          const assignments = joined.members.map(({ memberId }) => ({
            memberId,
            assignment: Buffer.from(`${joined.generationId}:${memberId}`),
          }));
          const synced = await this.sync(joined.leader === this.id ? assignments : []);
          if (synced.errorCode === ErrorCode.NONE) {
            this.assignment = synced.assignment.toString();
            return;
          }
          if (synced.errorCode !== ErrorCode.REBALANCE_IN_PROGRESS) {
            this.refusals.push(synced.errorCode);
            return;
          }
        }
      }

      sync(assignments: readonly { memberId: string; assignment: Buffer }[]) {
        return this.wire.ask(syncGroup, 5, {
          groupId: this.group,
          generationId: this.generation,
          memberId: this.id,
          protocolType: 'consumer',
          protocolName: 'range',
          assignments,
        });
      }

      async beat(): Promise<number> {
        const { group: groupId, generation: generationId, id: memberId } = this;
        return (await this.wire.ask(heartbeat, 4, { groupId, generationId, memberId })).errorCode;
      }

      async leave(): Promise<void> {
        await this.wire.ask(leaveGroup, 5, { groupId: this.group, members: [{ memberId: this.id }] });
        this.wire.close();
      }
    }

    test('twelve that join at once all end in one generation, none unknown, each with its own assignment', async () => {
      await coordinated('crowd');
      const members = await Promise.all(Array.from({ length: 12 }, () => Member.of('crowd')));
      // Whoever is in goes around again for as long as a heartbeat says that others have come.
      const settle = async (member: Member): Promise<void> => {
        await member.join();
        for (;;) {
          const beat = await member.beat();
          if (beat === ErrorCode.REBALANCE_IN_PROGRESS) await member.join();
          else if (beat !== ErrorCode.NONE) return void member.refusals.push(beat);
          else if (members.every(({ generation }) => generation === member.generation)) return;
          else await new Promise((resolve) => setTimeout(resolve, 20));
        }
      };
      await Promise.all(members.map(settle));
      expect(members.flatMap(({ refusals }) => refusals)).toEqual([]);
      expect(new Set(members.map(({ generation }) => generation)).size).toBe(1);
      expect(new Set(members.map(({ id }) => id)).size).toBe(12);
      for (const { id, generation, assignment } of members) expect(assignment).toBe(`${generation}:${id}`);

      // One more sync in a generation that stands gives the same bytes again, never none.
      for (const member of members)
        expect((await member.sync([])).assignment.toString()).toBe(member.assignment);
      await Promise.all(members.map((member) => member.leave()));
    });

    test('a rebalance is told as a rebalance; only who is not of the group is unknown', async () => {
      await coordinated('told');
      const first = await Member.of('told');
      await first.join();
      expect(await first.beat()).toBe(ErrorCode.NONE);
      const second = await Member.of('told');
      const joined = second.join();
      await vi.waitFor(async () => expect(await first.beat()).toBe(ErrorCode.REBALANCE_IN_PROGRESS), within);
      const before = first.generation;
      await Promise.all([first.join(), joined]);
      expect(first.generation).toBe(before + 1);
      expect(second.generation).toBe(first.generation);

      const stranger = await wire.ask(joinGroup, 9, joining('told', 'made-up'));
      expect(stranger.errorCode).toBe(ErrorCode.UNKNOWN_MEMBER_ID);
      const body = { groupId: 'told', generationId: first.generation, memberId: 'made-up' };
      expect((await wire.ask(heartbeat, 4, body)).errorCode).toBe(ErrorCode.UNKNOWN_MEMBER_ID);
      const late = { ...body, generationId: before, memberId: first.id };
      expect((await wire.ask(heartbeat, 4, late)).errorCode).toBe(ErrorCode.ILLEGAL_GENERATION);
      await second.leave();
      await vi.waitFor(async () => expect(await first.beat()).toBe(ErrorCode.REBALANCE_IN_PROGRESS), within);
      await first.join();
      expect(first.refusals.concat(second.refusals)).toEqual([]);
      await first.leave();
    });

    test.each(versionsOf(joinGroup))(
      'join version %i: a member id is given at once up to 3, first asked back after',
      async (version) => {
        const group = `versions-${version}`;
        await coordinated(group);
        const answer = await wire.ask(joinGroup, version, joining(group, ''));
        expect(answer.errorCode).toBe(version < 4 ? ErrorCode.NONE : ErrorCode.MEMBER_ID_REQUIRED);
        expect(answer.memberId).not.toBe('');
        if (version >= 4) {
          const again = await wire.ask(joinGroup, version, joining(group, answer.memberId));
          expect(again).toMatchObject({ errorCode: ErrorCode.NONE, memberId: answer.memberId });
        }
      },
    );
  });
});

describe('the address that clients are told', () => {
  const named = sidecar({ listen: 'localhost:0' });

  test('is an IPv4 address, also when it listens on a name, since librdkafka tries IPv6 first', async () => {
    const wire = await WireConnection.open(named.address);
    const { brokers } = await wire.ask(metadata, 1, { topics: [] });
    wire.close();
    expect(brokers[0]!.host).toBe('127.0.0.1');
    await new Promise<void>((resolve, reject) => {
      const socket = connect(brokers[0]!.port, '127.0.0.1', () => {
        socket.destroy();
        resolve();
      });
      socket.once('error', reject);
    });
  });
});
