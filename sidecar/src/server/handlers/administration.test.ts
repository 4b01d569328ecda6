import {
  alterConfigs,
  apiVersions,
  createPartitions,
  createTopics,
  deleteRecords,
  deleteTopics,
  describeCluster,
  describeConfigs,
  describeLogDirs,
  encodeBatch,
  ErrorCode,
  errorName,
  fetch,
  findCoordinator,
  incrementalAlterConfigs,
  initProducerId,
  metadata,
  produce,
  zeroUuid,
  type Encodable,
} from '@rookery/wire';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BrokerInMemory } from '../../broker-in-memory.ts';
import { frameOf, type RawConnection } from '../raw-connection.ts';

let under: BrokerInMemory;
let client: RawConnection;

async function start(...sets: string[]): Promise<void> {
  await under?.stop();
  under = await BrokerInMemory.start(...sets);
  client = await under.connect();
}

beforeEach(() => start('num.partitions=2'));

afterEach(async () => {
  await under.stop();
  expect(under.failures).toEqual([]);
});

type Creatable = Encodable<(typeof createTopics)['request']>['topics'][number];

async function create(
  topics: readonly Partial<Creatable>[],
  options: { validateOnly?: boolean; version?: number } = {},
) {
  const { version = 7, validateOnly = false } = options;
  const answer = await client.request(createTopics, version, {
    topics: topics.map((topic) => ({
      name: 't',
      numPartitions: -1,
      replicationFactor: -1,
      assignments: [],
      configs: [],
      ...topic,
    })),
    timeoutMs: 1_000,
    validateOnly,
  });
  return answer.topics.map((topic) => ({ ...topic, error: errorName(topic.errorCode) }));
}

const errorsOf = async (topics: readonly Partial<Creatable>[]) =>
  (await create(topics)).map(({ error }) => error);

async function topicsNamed(names: readonly string[] | null, version = 12, allowAutoTopicCreation = false) {
  const { topics } = await client.request(metadata, version, {
    topics: names === null ? null : names.map((name) => ({ topicId: zeroUuid, name })),
    allowAutoTopicCreation,
    includeTopicAuthorizedOperations: version >= 8,
  });
  return topics.map((topic) => ({ ...topic, error: errorName(topic.errorCode) }));
}

async function configsOf(
  resourceType: number,
  resourceName: string,
  keys: string[] | null = null,
  version = 4,
) {
  const { results } = await client.request(describeConfigs, version, {
    resources: [{ resourceType, resourceName, configurationKeys: keys }],
    includeSynonyms: true,
    includeDocumentation: false,
  });
  const [result] = results;
  return {
    error: errorName(result!.errorCode),
    configs: new Map(result!.configs.map((each) => [each.name, each])),
  };
}

const topic = 2;
const broker = 4;

describe('ApiVersions', () => {
  const ask = (version: number, clientSoftwareName = 'raw', clientSoftwareVersion = '1.0') =>
    client.request(apiVersions, version, { clientSoftwareName, clientSoftwareVersion });

  test('lists what is served, in every version, Produce from 0', async () => {
    for (let version = 0; version <= 4; version++) {
      const { errorCode, apiKeys } = await ask(version);
      expect(errorCode).toBe(0);
      expect(apiKeys.find(({ apiKey }) => apiKey === 0)).toMatchObject({ minVersion: 0, maxVersion: 13 });
      expect(apiKeys.find(({ apiKey }) => apiKey === 18)).toMatchObject({ minVersion: 0, maxVersion: 4 });
      for (const key of [
        1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 20, 22, 23, 32, 33, 35, 37, 42, 44, 47, 60,
      ])
        expect(apiKeys.map(({ apiKey }) => apiKey)).toContain(key);
    }
  });

  test('a version to come is answered in version 0, with error 35 and the versions of this API', async () => {
    const frame = client.nextFrame();
    const request = frameOf(
      apiVersions,
      4,
      { clientSoftwareName: 'x', clientSoftwareVersion: '1' },
      { correlationId: 77, clientId: 'c' },
    );
    request.writeInt16BE(99, 6);
    client.send(request);
    const bytes = Buffer.concat(await frame);
    expect(bytes.readInt32BE(0)).toBe(77);
    expect(bytes.readInt16BE(4)).toBe(35);
    expect(bytes.readInt32BE(6)).toBe(1);
    expect([bytes.readInt16BE(10), bytes.readInt16BE(12), bytes.readInt16BE(14)]).toEqual([18, 0, 4]);
    expect(bytes.length).toBe(16);
    expect((await ask(3)).errorCode).toBe(0);
  });

  test('names of client software follow a pattern from version 3 on', async () => {
    for (const [name, version] of [
      ['', '1'],
      ['-x', '1'],
      ['x', 'v 1'],
      ['x\n', '1'],
      ['x', ''],
    ] as const)
      expect((await ask(3, name, version)).errorCode, `'${name}' '${version}'`).toBe(
        ErrorCode.INVALID_REQUEST,
      );
    expect((await ask(4, 'apache-kafka-java', '4.3.1')).errorCode).toBe(0);
    expect((await ask(2)).errorCode).toBe(0);
  });
});

describe('Metadata', () => {
  test('makes topics that are asked for, where client and broker allow it', async () => {
    expect(await topicsNamed(['new'])).toMatchObject([{ error: 'UNKNOWN_TOPIC_OR_PARTITION' }]);
    expect(await topicsNamed(['bad name'], 12, true)).toMatchObject([{ error: 'INVALID_TOPIC_EXCEPTION' }]);
    const [made] = await topicsNamed(['new'], 12, true);
    expect(made).toMatchObject({ error: 'NONE', name: 'new', isInternal: false });
    expect(made!.partitions).toMatchObject([
      {
        partitionIndex: 0,
        leaderId: 1,
        leaderEpoch: 0,
        replicaNodes: [1],
        isrNodes: [1],
        offlineReplicas: [],
      },
      { partitionIndex: 1, leaderId: 1 },
    ]);
    // Before version 4 clients cannot say, and want it.
    expect(await topicsNamed(['older'], 1, true)).toMatchObject([{ error: 'NONE' }]);
  });

  test('many clients that ask for the same new topic all get it', async () => {
    const clients = await Promise.all(Array.from({ length: 10 }, () => under.connect()));
    const answers = await Promise.all(
      clients.map((each) =>
        each.request(metadata, 12, {
          topics: [{ topicId: zeroUuid, name: 'hot' }],
          allowAutoTopicCreation: true,
          includeTopicAuthorizedOperations: false,
        }),
      ),
    );
    expect(new Set(answers.map(({ topics }) => topics[0]!.topicId)).size).toBe(1);
    for (const { topics } of answers) expect(topics[0]!.errorCode).toBe(0);
  });

  test('makes nothing when auto.create.topics.enable is false', async () => {
    await start('auto.create.topics.enable=false');
    expect(await topicsNamed(['new'], 12, true)).toMatchObject([{ error: 'UNKNOWN_TOPIC_OR_PARTITION' }]);
    expect(await topicsNamed(null)).toEqual([]);
  });

  test('names all topics, none, and those named by id', async () => {
    const [a] = await create([{ name: 'a' }, { name: 'b' }]);
    expect((await topicsNamed(null)).map(({ name }) => name).sort()).toEqual(['a', 'b']);
    expect((await topicsNamed([], 0)).map(({ name }) => name).sort()).toEqual(['a', 'b']);
    expect(await topicsNamed([], 12)).toEqual([]);
    const byId = async (topicId: string) =>
      (
        await client.request(metadata, 12, {
          topics: [{ topicId, name: null }],
          allowAutoTopicCreation: true,
          includeTopicAuthorizedOperations: false,
        })
      ).topics[0]!;
    expect(await byId(a!.topicId)).toMatchObject({ errorCode: 0, name: 'a' });
    expect(errorName((await byId('AAAAAAAAAAAAAAAAAAAAAQ')).errorCode)).toBe('UNKNOWN_TOPIC_ID');
  });

  test('and DescribeCluster tell where the broker is, as IPv4', async () => {
    const { brokers, clusterId, controllerId } = await client.request(metadata, 12, {
      topics: [],
      allowAutoTopicCreation: false,
      includeTopicAuthorizedOperations: false,
    });
    expect(brokers).toMatchObject([{ nodeId: 1, host: '127.0.0.1', port: under.broker.kafka.port }]);
    expect(controllerId).toBe(1);
    for (let version = 0; version <= 2; version++) {
      const cluster = await client.request(describeCluster, version, {
        includeClusterAuthorizedOperations: true,
        endpointType: 1,
      });
      expect(cluster).toMatchObject({
        errorCode: 0,
        clusterId,
        controllerId: 1,
        brokers: [{ brokerId: 1, host: '127.0.0.1' }],
      });
    }
    const controllers = await client.request(describeCluster, 1, {
      includeClusterAuthorizedOperations: false,
      endpointType: 2,
    });
    expect(errorName(controllers.errorCode)).toBe('UNSUPPORTED_ENDPOINT_TYPE');
  });

  test('and FindCoordinator knows who looks after groups, and that nobody looks after transactions yet', async () => {
    const { coordinators } = await client.request(findCoordinator, 6, {
      keyType: 0,
      coordinatorKeys: ['g', ''],
    });
    expect(coordinators!.map(({ nodeId, port, errorCode }) => [nodeId, port, errorName(errorCode)])).toEqual([
      [1, under.broker.kafka.port, 'NONE'],
      [-1, -1, 'INVALID_GROUP_ID'],
    ]);
    expect(errorName((await client.request(findCoordinator, 2, { key: 'tx', keyType: 1 })).errorCode!)).toBe(
      'INVALID_REQUEST',
    );
  });
});

describe('CreateTopics', () => {
  test('takes each topic on its own', async () => {
    expect(
      await errorsOf([
        { name: 'a' },
        { name: 'bad/name' },
        { name: 'b', replicationFactor: 2 },
        { name: 'c', numPartitions: 0 },
        { name: 'd', configs: [{ name: 'retention.ms', value: 'x' }] },
        { name: 'e', assignments: [{ partitionIndex: 0, brokerIds: [7] }] },
        {
          name: 'f',
          assignments: [
            { partitionIndex: 0, brokerIds: [1] },
            { partitionIndex: 1, brokerIds: [1] },
          ],
        },
      ]),
    ).toEqual([
      'NONE',
      'INVALID_TOPIC_EXCEPTION',
      'INVALID_REPLICATION_FACTOR',
      'INVALID_PARTITIONS',
      'INVALID_CONFIG',
      'INVALID_REPLICA_ASSIGNMENT',
      'NONE',
    ]);
    expect(await errorsOf([{ name: 'a' }])).toEqual(['TOPIC_ALREADY_EXISTS']);
  });

  test('refuses a name that stands twice in one request, and names that collide', async () => {
    const answers = await create([{ name: 'x' }, { name: 'x' }, { name: 'y.z' }, { name: 'y_z' }]);
    expect(answers.map(({ name, error }) => `${name} ${error}`).sort()).toEqual([
      'x INVALID_REQUEST',
      'y.z NONE',
      'y_z INVALID_TOPIC_EXCEPTION',
    ]);
  });

  test('only looks when it is asked to validate, and tells what would be', async () => {
    const [answer] = await create([{ configs: [{ name: 'retention.ms', value: '5' }] }], {
      validateOnly: true,
    });
    expect(answer).toMatchObject({ error: 'NONE', numPartitions: 2, replicationFactor: 1 });
    expect(answer!.configs!.find(({ name }) => name === 'retention.ms')).toMatchObject({
      value: '5',
      configSource: 1,
    });
    expect(await topicsNamed(null)).toEqual([]);
  });

  test('works in every version, and topics are there after a restart', async () => {
    for (let version = 2; version <= 7; version++)
      expect(await create([{ name: `v${version}` }], { version })).toMatchObject([{ error: 'NONE' }]);
    await under.restart();
    client = await under.connect();
    expect((await topicsNamed(null)).map(({ name }) => name).sort()).toEqual([
      'v2',
      'v3',
      'v4',
      'v5',
      'v6',
      'v7',
    ]);
  });
});

describe('DeleteRecords', () => {
  const move = async (name: string, offset: number, partitionIndex = 0) => {
    const { topics } = await client.request(deleteRecords, 2, {
      topics: [{ name, partitions: [{ partitionIndex, offset }] }],
      timeoutMs: 1_000,
    });
    const { errorCode, lowWatermark } = topics[0]!.partitions[0]!;
    return errorCode === 0 ? lowWatermark : errorName(errorCode);
  };

  const filled = async (name: string, configs: Record<string, string> = {}) => {
    await create([{ name, configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })) }]);
    const records = encodeBatch(
      ['a', 'b', 'c'].map((value) => ({
        key: Buffer.from(value),
        value: Buffer.from(value),
        timestamp: Date.now(),
      })),
    );
    const { responses } = await client.request(produce, 7, {
      transactionalId: null,
      acks: -1,
      timeoutMs: 1_000,
      topicData: [{ name, topicId: zeroUuid, partitionData: [{ index: 0, records: [records] }] }],
    });
    expect(responses[0]!.partitionResponses[0]!.errorCode).toBe(0);
  };

  test('moves the start up to the high watermark and no further, and never back', async () => {
    await filled('t');
    expect(await move('t', 2)).toBe(2);
    expect(await move('t', 1)).toBe(2);
    expect(await move('t', 4)).toBe('OFFSET_OUT_OF_RANGE');
    expect(await move('t', -2)).toBe('OFFSET_OUT_OF_RANGE');
    expect(await move('t', -1)).toBe(3);
    expect(await move('t', 0, 9)).toBe('UNKNOWN_TOPIC_OR_PARTITION');
  });

  test.each([
    ['delete', 2],
    ['compact', 'POLICY_VIOLATION'],
    ['compact,delete', 2],
    ['', 2],
  ])('under the cleanup.policy %j', async (policy, expected) => {
    await filled('t', { 'cleanup.policy': policy });
    expect(await move('t', 2)).toBe(expected);
  });
});

describe('DeleteTopics', () => {
  const remove = async (topics: { name: string | null; topicId?: string }[]) =>
    (
      await client.request(deleteTopics, 6, {
        topics: topics.map(({ name, topicId = zeroUuid }) => ({ name, topicId })),
        timeoutMs: 1,
      })
    ).responses.map(({ errorCode }) => errorName(errorCode));

  test('by name and by id', async () => {
    const [a] = await create([{ name: 'a' }, { name: 'b' }, { name: 'c' }]);
    expect(
      await remove([
        { name: null, topicId: a!.topicId },
        { name: 'b' },
        { name: 'none' },
        { name: null, topicId: 'AAAAAAAAAAAAAAAAAAAAAQ' },
      ]),
    ).toEqual(['NONE', 'NONE', 'UNKNOWN_TOPIC_OR_PARTITION', 'UNKNOWN_TOPIC_ID']);
    const old = await client.request(deleteTopics, 1, { topicNames: ['c'], timeoutMs: 1 });
    expect(old.responses[0]!.errorCode).toBe(0);
    expect(await topicsNamed(null)).toEqual([]);
    expect(under.fs.list('/data').filter((name) => /^[abc]-\d+$/.test(name))).toEqual([]);
  });

  test('a topic named twice, in whatever way, stays', async () => {
    const [a] = await create([{ name: 'a' }]);
    expect(await remove([{ name: 'a' }, { name: null, topicId: a!.topicId }])).toEqual([
      'INVALID_REQUEST',
      'INVALID_REQUEST',
    ]);
    expect(await remove([{ name: 'a', topicId: a!.topicId }])).toEqual(['INVALID_REQUEST']);
    expect((await topicsNamed(null)).length).toBe(1);
  });

  test('not when delete.topic.enable is false', async () => {
    await start('delete.topic.enable=false');
    await create([{ name: 'a' }]);
    expect(await remove([{ name: 'a' }])).toEqual(['TOPIC_DELETION_DISABLED']);
  });
});

describe('DescribeConfigs', () => {
  test('lists every setting of a topic, with where it comes from', async () => {
    await start('log.segment.bytes=2000000', 'num.partitions=1');
    await create([{ configs: [{ name: 'cleanup.policy', value: 'compact' }] }]);
    for (let version = 1; version <= 4; version++) {
      const { configs } = await configsOf(topic, 't', null, version);
      expect(configs.size).toBeGreaterThanOrEqual(28);
      expect(configs.get('cleanup.policy')).toMatchObject({
        value: 'compact',
        configSource: 1,
        readOnly: false,
      });
      expect(configs.get('segment.bytes')).toMatchObject({ value: '2000000', configSource: 4 });
      expect(configs.get('retention.ms')).toMatchObject({ value: '604800000', configSource: 5 });
      expect(configs.has('follower.replication.throttled.replicas')).toBe(true);
      expect([...configs.keys()].filter((name) => name.startsWith('internal.'))).toEqual([]);
    }
    const { synonyms } = (await configsOf(topic, 't')).configs.get('cleanup.policy')!;
    expect(synonyms.map(({ name, value }) => [name, value])).toEqual([
      ['cleanup.policy', 'compact'],
      ['log.cleanup.policy', 'delete'],
    ]);
    expect([...(await configsOf(topic, 't', ['retention.ms', 'none'])).configs.keys()]).toEqual([
      'retention.ms',
    ]);
  });

  test('lists every setting of the broker, but no password', async () => {
    await start('ssl.key.password=hush');
    const { configs } = await configsOf(broker, '1');
    expect(configs.size).toBeGreaterThan(340);
    expect(configs.get('ssl.key.password')).toMatchObject({ value: null, isSensitive: true, readOnly: true });
    expect(configs.get('num.partitions')).toMatchObject({ value: '1', configSource: 5 });
  });

  test('refuses what is not there', async () => {
    expect((await configsOf(topic, 'none')).error).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect((await configsOf(broker, '2')).error).toBe('INVALID_REQUEST');
    expect((await configsOf(77, 'x')).error).toBe('INVALID_REQUEST');
    expect((await configsOf(broker, '')).configs.size).toBe(0);
  });
});

describe('AlterConfigs and IncrementalAlterConfigs', () => {
  const replace = async (
    configs: Record<string, string | null>,
    options: { name?: string; type?: number; validateOnly?: boolean } = {},
  ) => {
    const { name = 't', type = topic, validateOnly = false } = options;
    const { responses } = await client.request(alterConfigs, 2, {
      resources: [
        {
          resourceType: type,
          resourceName: name,
          configs: Object.entries(configs).map(([key, value]) => ({ name: key, value })),
        },
      ],
      validateOnly,
    });
    return errorName(responses[0]!.errorCode);
  };
  const change = async (
    configs: [name: string, operation: number, value: string | null][],
    options: { name?: string; type?: number; validateOnly?: boolean } = {},
  ) => {
    const { name = 't', type = topic, validateOnly = false } = options;
    const { responses } = await client.request(incrementalAlterConfigs, 1, {
      resources: [
        {
          resourceType: type,
          resourceName: name,
          configs: configs.map(([key, configOperation, value]) => ({ name: key, configOperation, value })),
        },
      ],
      validateOnly,
    });
    return errorName(responses[0]!.errorCode);
  };
  const [set, remove, append, subtract] = [0, 1, 2, 3];
  const own = async () =>
    Object.fromEntries(
      [...(await configsOf(topic, 't')).configs.values()]
        .filter(({ configSource }) => configSource === 1)
        .map(({ name, value }) => [name, value]),
    );

  test('set, delete, append and subtract change what is named and nothing else', async () => {
    await create([{ configs: [{ name: 'retention.ms', value: '1' }] }]);
    expect(
      await change([
        ['segment.bytes', set!, '2000000'],
        ['cleanup.policy', append!, 'compact'],
      ]),
    ).toBe('NONE');
    expect(await own()).toEqual({
      'retention.ms': '1',
      'segment.bytes': '2000000',
      'cleanup.policy': 'delete,compact',
    });
    expect(
      await change([
        ['cleanup.policy', subtract!, 'delete'],
        ['retention.ms', remove!, null],
      ]),
    ).toBe('NONE');
    expect(await own()).toEqual({ 'segment.bytes': '2000000', 'cleanup.policy': 'compact' });
    await under.restart();
    client = await under.connect();
    expect(await own()).toEqual({ 'segment.bytes': '2000000', 'cleanup.policy': 'compact' });
  });

  test('the older call replaces everything', async () => {
    await create([{ configs: [{ name: 'retention.ms', value: '1' }] }]);
    expect(await replace({ 'segment.bytes': '2000000' })).toBe('NONE');
    expect(await own()).toEqual({ 'segment.bytes': '2000000' });
  });

  test('a resource is changed as a whole or not at all, and not when it is only validated', async () => {
    await create([{}]);
    expect(
      await change([
        ['retention.ms', set!, '1'],
        ['segment.bytes', set!, 'x'],
      ]),
    ).toBe('INVALID_CONFIG');
    expect(await change([['max.compaction.lag.ms', set!, '10']])).toBe('NONE');
    expect(await change([['min.compaction.lag.ms', set!, '11']])).toBe('INVALID_CONFIG');
    expect(await replace({})).toBe('NONE');
    expect(await replace({ 'retention.ms': '1', none: '1' })).toBe('INVALID_CONFIG');
    expect(await change([['retention.ms', set!, '1']], { validateOnly: true })).toBe('NONE');
    expect(await replace({ 'retention.ms': '1' }, { validateOnly: true })).toBe('NONE');
    expect(await own()).toEqual({});
  });

  test('what cannot be has its error', async () => {
    await create([{}]);
    expect(await change([['retention.ms', set!, '1']], { name: 'none' })).toBe('UNKNOWN_TOPIC_OR_PARTITION');
    expect(await change([['retention.ms', 9, '1']])).toBe('INVALID_REQUEST');
    expect(await change([['retention.ms', set!, null]])).toBe('INVALID_REQUEST');
    expect(await change([['retention.ms', append!, '1']])).toBe('INVALID_CONFIG');
    expect(
      await change([
        ['retention.ms', set!, '1'],
        ['retention.ms', set!, '2'],
      ]),
    ).toBe('INVALID_REQUEST');
    expect(await change([['num.partitions', set!, '1']], { type: broker, name: '1' })).toBe(
      'INVALID_REQUEST',
    );
    expect(await replace({ 'num.partitions': '1' }, { type: broker, name: '' })).toBe('INVALID_REQUEST');
    expect(await replace({}, { type: 77 })).toBe('INVALID_REQUEST');
    const twice = {
      resourceType: topic,
      resourceName: 't',
      configs: [{ name: 'retention.ms', configOperation: 0, value: '1' }],
    };
    const { responses } = await client.request(incrementalAlterConfigs, 0, {
      resources: [twice, twice],
      validateOnly: false,
    });
    expect(responses.map(({ errorCode }) => errorName(errorCode))).toEqual([
      'INVALID_REQUEST',
      'INVALID_REQUEST',
    ]);
    expect(await own()).toEqual({});
  });

  test('logs act on new settings at once', async () => {
    await create([{}]);
    const send = async () => {
      const records = encodeBatch([{ key: null, value: Buffer.alloc(500), timestamp: Date.now() }]);
      const { responses } = await client.request(produce, 9, {
        transactionalId: null,
        acks: -1,
        timeoutMs: 1_000,
        topicData: [{ name: 't', topicId: zeroUuid, partitionData: [{ index: 0, records: [records] }] }],
      });
      return errorName(responses[0]!.partitionResponses[0]!.errorCode);
    };
    expect(await send()).toBe('NONE');
    await change([['max.message.bytes', set!, '100']]);
    expect(await send()).toBe('MESSAGE_TOO_LARGE');
    await change([
      ['max.message.bytes', remove!, null],
      ['min.insync.replicas', set!, '2'],
    ]);
    expect(await send()).toBe('NOT_ENOUGH_REPLICAS');
    await change([
      ['min.insync.replicas', remove!, null],
      ['cleanup.policy', set!, 'compact'],
    ]);
    expect(await send()).toBe('INVALID_RECORD');
    await replace({});
    expect(await send()).toBe('NONE');
  });

  test('changes of many clients at once are all kept', async () => {
    await create([{}]);
    const names = ['retention.ms', 'segment.bytes', 'flush.ms', 'max.message.bytes', 'retention.bytes'];
    const clients = await Promise.all(names.map(() => under.connect()));
    await Promise.all(
      clients.map((each, i) =>
        each.request(incrementalAlterConfigs, 1, {
          resources: [
            {
              resourceType: topic,
              resourceName: 't',
              configs: [{ name: names[i]!, configOperation: 0, value: '2000000' }],
            },
          ],
          validateOnly: false,
        }),
      ),
    );
    expect(Object.keys(await own()).sort()).toEqual([...names].sort());
  });
});

describe('CreatePartitions', () => {
  const grow = async (
    topics: { name: string; count: number; assignments?: number[][] }[],
    validateOnly = false,
  ) =>
    (
      await client.request(createPartitions, 3, {
        topics: topics.map(({ name, count, assignments }) => ({
          name,
          count,
          assignments: assignments?.map((brokerIds) => ({ brokerIds })) ?? null,
        })),
        timeoutMs: 1_000,
        validateOnly,
      })
    ).results.map(({ errorCode }) => errorName(errorCode));

  test('adds partitions that can be written at once, and answers for each topic', async () => {
    await create([{ name: 'a' }, { name: 'b' }]);
    await topicsNamed(['__consumer_offsets'], 12, true);
    expect(
      await grow([
        { name: 'a', count: 4 },
        { name: 'b', count: 2 },
        { name: 'none', count: 4 },
        { name: '__consumer_offsets', count: 60 },
      ]),
    ).toEqual(['NONE', 'INVALID_PARTITIONS', 'UNKNOWN_TOPIC_OR_PARTITION', 'INVALID_REQUEST']);
    expect((await topicsNamed(['a']))[0]!.partitions.length).toBe(4);
    const read = await client.request(fetch, 12, {
      maxWaitMs: 0,
      minBytes: 0,
      maxBytes: 1,
      isolationLevel: 0,
      topics: [
        {
          topic: 'a',
          topicId: zeroUuid,
          partitions: [{ partition: 3, fetchOffset: 0, partitionMaxBytes: 1 }],
        },
      ],
      sessionId: 0,
      forgottenTopicsData: [],
      rackId: '',
    });
    expect(read.responses[0]!.partitions[0]).toMatchObject({ errorCode: 0, highWatermark: 0 });
  });

  test('refuses what cannot be, and only looks when it is asked to', async () => {
    await create([{}]);
    expect(await grow([{ name: 't', count: 1 }])).toEqual(['INVALID_PARTITIONS']);
    expect(await grow([{ name: 't', count: 10_001 }])).toEqual(['INVALID_PARTITIONS']);
    expect(await grow([{ name: 't', count: 4, assignments: [[1]] }])).toEqual(['INVALID_REPLICA_ASSIGNMENT']);
    expect(await grow([{ name: 't', count: 3, assignments: [[2]] }])).toEqual(['INVALID_REPLICA_ASSIGNMENT']);
    expect(
      await grow([
        { name: 't', count: 3 },
        { name: 't', count: 4 },
      ]),
    ).toEqual(['INVALID_REQUEST', 'INVALID_REQUEST']);
    expect(await grow([{ name: 't', count: 3 }], true)).toEqual(['NONE']);
    expect((await topicsNamed(['t']))[0]!.partitions.length).toBe(2);
    expect(await grow([{ name: 't', count: 3, assignments: [[1]] }])).toEqual(['NONE']);
  });
});

test('DescribeLogDirs tells the bytes of every partition', async () => {
  await create([{ name: 'a' }, { name: 'b' }]);
  const records = encodeBatch([{ key: null, value: Buffer.alloc(500), timestamp: Date.now() }]);
  await client.request(produce, 9, {
    transactionalId: null,
    acks: -1,
    timeoutMs: 1_000,
    topicData: [{ name: 'a', topicId: zeroUuid, partitionData: [{ index: 1, records: [records] }] }],
  });
  for (let version = 1; version <= 5; version++) {
    const { results } = await client.request(describeLogDirs, version, { topics: null });
    expect(results.length).toBe(1);
    expect(results[0]).toMatchObject({ errorCode: 0, logDir: '/data' });
    const sizes = results[0]!.topics.flatMap(({ name, partitions }) =>
      partitions.map((each) => [`${name}-${each.partitionIndex}`, each.partitionSize]),
    );
    expect(Object.fromEntries(sizes)).toEqual({ 'a-0': 0, 'a-1': records.length, 'b-0': 0, 'b-1': 0 });
  }
  const some = await client.request(describeLogDirs, 4, {
    topics: [
      { topic: 'a', partitions: [1, 7] },
      { topic: 'none', partitions: [0] },
    ],
  });
  expect(some.results[0]!.topics).toMatchObject([{ name: 'a', partitions: [{ partitionIndex: 1 }] }]);
});

test('producer ids are given once, in every version, also after a restart', async () => {
  const given: number[] = [];
  const next = async (version: number, transactionalId: string | null = null) =>
    client.request(initProducerId, version, {
      transactionalId,
      transactionTimeoutMs: 1_000,
      producerId: -1,
      producerEpoch: -1,
    });
  for (let version = 0; version <= 5; version++) given.push((await next(version)).producerId);
  await under.restart();
  client = await under.connect();
  given.push((await next(5)).producerId);
  expect(new Set(given).size).toBe(7);
  expect(errorName((await next(5, 'tx')).errorCode)).toBe('INVALID_REQUEST');
});
