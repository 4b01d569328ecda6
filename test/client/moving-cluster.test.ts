import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from '@rookery/client';
import {
  findCoordinator,
  heartbeat,
  joinGroup,
  metadata,
  offsetCommit,
  produce,
  RecordBatch,
  type Api,
} from '@rookery/wire';
import { expect, onTestFinished, test } from 'vitest';
import { Reader } from './reader.ts';
import { coordinatorAnswer, ScriptedBroker, theTopic, topicAnswer, type Answers } from './scripted-broker.ts';

// Leaders and coordinators move: the client follows them, and takes no step back.

async function open(answers: Answers, nodeId: number): Promise<ScriptedBroker> {
  const broker = await ScriptedBroker.open(answers, null, nodeId);
  onTestFinished(() => broker.close());
  return broker;
}

function clientOf(brokers: readonly string[]): Client {
  const client = new Client({ brokers, connectTimeoutMs: 500, requestTimeoutMs: 2_000 });
  onTestFinished(() => client.close(100));
  return client;
}

const told = (errorCode: number): object => ({
  responses: [{ name: theTopic, partitionResponses: [{ index: 0, errorCode, baseOffset: 5 }] }],
});

interface ProduceRequest {
  readonly topicData: { readonly partitionData: { readonly records: Buffer[] }[] }[];
}

const numberOf = ({ topicData }: ProduceRequest): string => {
  const batch = RecordBatch.read(Buffer.concat(topicData[0]!.partitionData[0]!.records), 0)!;
  return `${batch.producerId}/${batch.producerEpoch}/${batch.baseSequence}`;
};

test('seeds that are dead or dumb are passed over', async () => {
  const gone = await ScriptedBroker.open();
  const nobody = gone.address;
  await gone.close();
  const dumb = await ScriptedBroker.open({}, () => {});
  onTestFinished(() => dumb.close());
  const alive = await open({ Produce: () => told(0) }, 1);
  const producer = clientOf([nobody, dumb.address, alive.address]).producer();
  expect((await producer.send(theTopic, { value: Buffer.from('v') })).offset).toBe(5);
});

test('a batch follows the leader under the number that it had', async () => {
  let leader = 1;
  let epoch = 0;
  const brokers: ScriptedBroker[] = [];
  const numbers: string[] = [];
  const answers = (nodeId: number): Answers => ({
    Metadata: () => ({
      brokers: brokers.map(({ node }) => node),
      errorCode: 0,
      topics: [topicAnswer(theTopic, [0], leader, epoch)],
    }),
    Produce: (request: ProduceRequest) => {
      numbers.push(`${nodeId}: ${numberOf(request)}`);
      if (nodeId === 2) return told(0);
      [leader, epoch] = [2, 1];
      return told(6);
    },
  });
  brokers.push(await open(answers(1), 1), await open(answers(2), 2));
  const producer = clientOf([brokers[0]!.address]).producer();
  expect((await producer.send(theTopic, { value: Buffer.from('v') })).offset).toBe(5);
  await producer.send(theTopic, { value: Buffer.from('w') });
  const distinct = numbers.filter((each, i) => each !== numbers[i - 1]);
  expect(distinct).toEqual(['1: 1/0/0', '2: 1/0/0', '2: 1/0/1']);
});

test('a broker that has not heard of the newest leader does not take the client back', async () => {
  const brokers: ScriptedBroker[] = [];
  let isStale = false;
  const timesAsked = (api: Api): number =>
    brokers.reduce((times, broker) => times + broker.timesAsked(api), 0);
  const answers: Answers = {
    Metadata: () => ({
      brokers: brokers.map(({ node }) => node),
      errorCode: 0,
      topics: [isStale ? topicAnswer(theTopic, [0], 1, 4) : topicAnswer(theTopic, [0], 2, 5)],
    }),
    Produce: () => told(timesAsked(metadata) === 1 ? 6 : 0),
  };
  brokers.push(await open(answers, 1), await open(answers, 2));
  const client = clientOf([brokers[0]!.address]);
  await client.producer().partitionsOf(theTopic);
  isStale = true;
  // The refusal makes the client ask again, and it is told of the leader before.
  await client.producer().send(theTopic, { value: Buffer.from('v') });
  expect(timesAsked(metadata)).toBeGreaterThan(1);
  expect(brokers[0]!.timesAsked(produce)).toBe(0);
});

test('a coordinator that moves is followed without joining again, by heartbeats and by commits', async () => {
  let coordinator = 0;
  const brokers: ScriptedBroker[] = [];
  const answers = (index: number): Answers => ({
    Metadata: () => ({
      brokers: brokers.map(({ node }) => node),
      errorCode: 0,
      topics: [topicAnswer(theTopic, [0])],
    }),
    FindCoordinator: () => coordinatorAnswer(brokers[coordinator]!),
    Heartbeat: () => ({ errorCode: index === coordinator ? 0 : 16 }),
    OffsetCommit: () => ({
      topics: [
        { name: theTopic, partitions: [{ partitionIndex: 0, errorCode: index === coordinator ? 0 : 16 }] },
      ],
    }),
  });
  brokers.push(await open(answers(0), 1), await open(answers(1), 2));
  const client = clientOf([brokers[0]!.address]);
  const reader = new Reader(client, { group: 'group', topics: [theTopic], heartbeatMs: 50 });
  await reader.until(() => reader.partitions.length === 1);
  while (brokers[0]!.timesAsked(heartbeat) === 0) await sleep(10);
  coordinator = 1;
  await reader.consumer.commit(reader.partitions[0]!, 1);
  while (brokers[1]!.timesAsked(heartbeat) < 3) await sleep(10);
  expect(brokers[0]!.timesAsked(joinGroup)).toBe(1);
  expect(brokers[1]!.timesAsked(joinGroup)).toBe(0);
  expect(brokers[1]!.timesAsked(offsetCommit)).toBe(1);
  expect(brokers[0]!.timesAsked(findCoordinator)).toBeLessThan(10);
  expect(reader.lost).toBe(0);
});
