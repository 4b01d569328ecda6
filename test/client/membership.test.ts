import { setTimeout as sleep } from 'node:timers/promises';
import { Client, type AssignedPartition, type ConsumerEvents } from '@rookery/client';
import { heartbeat, joinGroup, offsetCommit } from '@rookery/wire';
import { expect, onTestFinished, test } from 'vitest';
import { Reader } from './reader.ts';
import { ScriptedBroker, theTopic, type Answers } from './scripted-broker.ts';

// What a member does when its group rebalances under it, at moments that a real coordinator rarely chooses.

interface Commit {
  readonly generationIdOrMemberEpoch: number;
  readonly topics: { readonly name: string; readonly partitions: { readonly committedOffset: number }[] }[];
}

/** A coordinator in whose hands the generation is. */
class Coordinator {
  generation = 1;
  pulse = 0;
  readonly memberIds: string[] = [];
  readonly commits: Commit[] = [];
  commitError: (topic: string) => number = () => 0;
  readonly answers: Answers = {
    JoinGroup: (request: { memberId: string; protocols: { metadata: Buffer }[] }) => {
      this.memberIds.push(request.memberId);
      this.pulse = 0;
      const me = { memberId: 'me', groupInstanceId: null, metadata: request.protocols[0]!.metadata };
      return {
        errorCode: 0,
        generationId: this.generation++,
        protocolName: 'range',
        leader: 'me',
        memberId: 'me',
        skipAssignment: false,
        members: [me],
      };
    },
    Heartbeat: () => ({ errorCode: this.pulse }),
    OffsetCommit: (request: Commit) => {
      this.commits.push(request);
      return {
        topics: request.topics.map(({ name }) => ({
          name,
          partitions: [{ partitionIndex: 0, errorCode: this.commitError(name) }],
        })),
      };
    },
  };
}

interface Meeting {
  readonly coordinator: Coordinator;
  readonly broker: ScriptedBroker;
  readonly reader: Reader;
}

async function meet(overrides: Partial<ConsumerEvents> = {}, topics = [theTopic]): Promise<Meeting> {
  const coordinator = new Coordinator();
  const broker = await ScriptedBroker.open(coordinator.answers);
  const client = new Client({ brokers: [broker.address] });
  onTestFinished(async () => {
    await client.close(100);
    await broker.close();
  });
  const reader = new Reader(client, { group: 'group', topics, heartbeatMs: 20 }, 10, overrides);
  await reader.until(() => reader.partitions.length === topics.length);
  return { coordinator, broker, reader };
}

const rebalance = 27;
const illegalGeneration = 22;
const unknownMember = 25;
const coordinatorLoads = 14;
const unknownTopic = 3;

test('a member joins again only after its owner has let go, and is alive meanwhile', async () => {
  let letGo!: () => void;
  let revoked: readonly AssignedPartition[] = [];
  const meeting = await meet({
    revoking: (partitions) => {
      revoked = partitions;
      return new Promise((resolve) => (letGo = resolve));
    },
  });
  const { coordinator, broker, reader } = meeting;
  coordinator.pulse = rebalance;
  while (revoked.length === 0) await sleep(5);
  const before = broker.timesAsked(heartbeat);
  while (broker.timesAsked(heartbeat) < before + 5) await sleep(5);
  expect(broker.timesAsked(joinGroup)).toBe(1);
  await reader.consumer.commit(revoked[0]!, 7);
  expect(coordinator.commits[0]!.generationIdOrMemberEpoch).toBe(1);
  letGo();
  while (broker.timesAsked(joinGroup) < 2) await sleep(5);
  expect(coordinator.memberIds).toEqual(['', 'me']);
});

test('an owner that cannot let go does not keep its member out of the group', async () => {
  const { coordinator, broker, reader } = await meet({ revoking: () => Promise.reject(new Error('busy')) });
  coordinator.pulse = rebalance;
  while (broker.timesAsked(joinGroup) < 2) await sleep(5);
  expect(reader.errors.map(({ message }) => message)).toContain('busy');
});

test.each([
  ['the group has another generation: the member comes back as itself', illegalGeneration, ['', 'me']],
  ['the group does not know the member: it comes back as a new one', unknownMember, ['', '']],
])('%s', async (_, error, memberIds) => {
  const { coordinator, broker, reader } = await meet();
  coordinator.pulse = error;
  await reader.until(() => reader.lost === 1);
  await reader.until(() => reader.partitions.length === 1);
  expect(coordinator.memberIds).toEqual(memberIds);
  expect(broker.timesAsked(joinGroup)).toBe(2);
});

test('a member that is thrown out while its owner still works is told so at once', async () => {
  let letGo!: () => void;
  const { coordinator, broker, reader } = await meet({
    revoking: () => {
      coordinator.pulse = unknownMember;
      return new Promise((resolve) => (letGo = resolve));
    },
  });
  const [partition] = reader.partitions as [AssignedPartition];
  coordinator.pulse = rebalance;
  await reader.until(() => reader.lost === 1);
  await expect(reader.consumer.commit(partition, 1)).rejects.toMatchObject({ code: 'RK9210' });
  expect(broker.timesAsked(joinGroup)).toBe(1);
  letGo();
  while (broker.timesAsked(joinGroup) < 2) await sleep(5);
});

test('a commit is never kept in the name of a later generation', async () => {
  const { coordinator, broker, reader } = await meet();
  const [partition] = reader.partitions as [AssignedPartition];
  coordinator.commitError = () => coordinatorLoads;
  const committing = reader.consumer.commit(partition, 7);
  committing.catch(() => {});
  while (broker.timesAsked(offsetCommit) === 0) await sleep(5);
  coordinator.pulse = illegalGeneration;
  await reader.until(() => reader.lost === 1);
  await reader.until(() => reader.partitions.length === 1);
  coordinator.commitError = () => 0;
  await expect(committing).rejects.toMatchObject({ code: 'RK9210' });
  await reader.consumer.commit(reader.partitions[0]!, 3);
  expect(coordinator.commits.at(-1)!.generationIdOrMemberEpoch).toBe(2);
  const later = coordinator.commits.filter((commit) => commit.generationIdOrMemberEpoch === 2);
  expect(later.map(({ topics }) => topics[0]!.partitions[0]!.committedOffset)).toEqual([3]);
});

test('a topic that has gone holds up no commits but its own; the newest position goes for the older ones', async () => {
  const { coordinator, reader } = await meet({}, ['here', 'gone']);
  const here = reader.partitions.find(({ topic }) => topic === 'here')!;
  const gone = reader.partitions.find(({ topic }) => topic === 'gone')!;
  coordinator.commitError = (topic) => (topic === 'gone' ? unknownTopic : 0);
  const stuck = [reader.consumer.commit(gone, 1), reader.consumer.commit(gone, 2)];
  await reader.consumer.commit(here, 1);
  await reader.consumer.commit(here, 2);
  coordinator.commitError = () => 0;
  const newest = reader.consumer.commit(gone, 3);
  await Promise.all([...stuck, newest]);
  const last = coordinator.commits.findLast(({ topics }) => topics.some(({ name }) => name === 'gone'))!;
  expect(last.topics.find(({ name }) => name === 'gone')!.partitions[0]!.committedOffset).toBe(3);
});
