import { apiVersions, catalogue, decodeMessage, encodeRequest, FrameCutter } from '@rookery/wire';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { sidecar } from '../support/peers.ts';

/** What a broker of Kafka 4.3.1 answers to ApiVersions, as far as we have tables for it. */
const kafkaVersions: Readonly<Record<string, readonly [min: number, max: number]>> = {
  // Below 3 it is offered, for the sake of old librdkafka, and refused.
  Produce: [0, 13],
  Fetch: [4, 18],
  ListOffsets: [1, 11],
  Metadata: [0, 13],
  OffsetCommit: [2, 10],
  OffsetFetch: [1, 10],
  FindCoordinator: [0, 6],
  JoinGroup: [0, 9],
  Heartbeat: [0, 4],
  LeaveGroup: [0, 5],
  SyncGroup: [0, 5],
  DescribeGroups: [0, 6],
  ListGroups: [0, 5],
  ApiVersions: [0, 4],
  CreateTopics: [2, 7],
  DeleteTopics: [1, 6],
  DeleteRecords: [0, 2],
  InitProducerId: [0, 5],
  OffsetForLeaderEpoch: [2, 4],
  DescribeConfigs: [1, 4],
  AlterConfigs: [0, 2],
  DescribeLogDirs: [1, 5],
  CreatePartitions: [0, 3],
  DeleteGroups: [0, 2],
  IncrementalAlterConfigs: [0, 1],
  OffsetDelete: [0, 0],
  DescribeCluster: [0, 2],
  DescribeProducers: [0, 0],
};

const broker = sidecar();

test('every table spans the versions that Kafka serves', () => {
  const ours = catalogue.map((api) => [
    api.name,
    api.name === 'Produce' ? [0, api.versions[1]] : api.versions,
  ]);
  expect(Object.fromEntries(ours)).toEqual(kafkaVersions);
});

test('what the sidecar serves, it serves at the versions of Kafka', async () => {
  const names = new Map(catalogue.map(({ key, name }) => [key, name]));
  const served = (await advertised()).map(({ apiKey, minVersion, maxVersion }) => [
    names.get(apiKey) ?? `key ${apiKey}`,
    [minVersion, maxVersion],
  ]);
  expect(served.length).toBeGreaterThan(15);
  for (const [name, versions] of served)
    expect([name, versions]).toEqual([name, kafkaVersions[name as string]]);
});

/** The answer to ApiVersions in the form that every client since Kafka 0.10 can read. */
async function advertised(): Promise<{ apiKey: number; minVersion: number; maxVersion: number }[]> {
  const [host, port] = broker.address.split(':');
  const socket = connect(Number(port), host);
  const cutter = new FrameCutter(100_000);
  try {
    socket.write(
      Buffer.concat(encodeRequest(apiVersions, 0, { correlationId: 1, clientId: null }, {}) as Buffer[]),
    );
    for await (const chunk of socket) {
      cutter.push(chunk as Buffer);
      const frame = cutter.next();
      if (frame === null) continue;
      const answer = decodeMessage(apiVersions.response, 0, Buffer.concat(frame).subarray(4));
      expect(answer.errorCode).toBe(0);
      return answer.apiKeys;
    }
    throw new Error('the connection closed without an answer');
  } finally {
    socket.destroy();
  }
}
