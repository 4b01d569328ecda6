import { AdminServer } from './admin/admin-server.ts';
import type { Clock } from './clock.ts';
import { ClusterView, type TopicImage } from './cluster/cluster-image.ts';
import { FileMetaStore } from './cluster/file-meta-store.ts';
import type { MetaStore } from './cluster/meta-store.ts';
import { ProducerIds } from './cluster/producer-ids.ts';
import { Topics } from './cluster/topics.ts';
import { topicSettingProblem, type Config } from './config.ts';
import { SidecarError } from './errors.ts';
import type { EventBus } from './events.ts';
import { GroupAdministration } from './groups/group-administration.ts';
import { GroupCoordinator } from './groups/group-coordinator.ts';
import { OffsetsTopic, offsetsTopic } from './groups/offsets-topic.ts';
import { formatAddress, type Address } from './listener-address.ts';
import type { CompactionPlan, CompactionResult } from './log/compaction.ts';
import { DataDirectory } from './log/data-directory.ts';
import { DiskSpace } from './log/disk-space.ts';
import { LogManager } from './log/log-manager.ts';
import type { LogConfig } from './log-config.ts';
import type { PartitionLog } from './log/partition-log.ts';
import { prepare as prepareOnLoop, type Prepare } from './log/preparation.ts';
import { TailCache } from './log/tail-cache.ts';
import { LoopStall } from './loop-stall.ts';
import { Metrics } from './metrics.ts';
import { ReplicaManager } from './replication/replica-manager.ts';
import { BufferPool } from './server/buffer-pool.ts';
import { BusyPoll } from './server/busy-poll.ts';
import { Dispatcher } from './server/dispatch.ts';
import { FrameMemory } from './server/frame-memory.ts';
import type { Handler } from './server/handler.ts';
import { handlersOf } from './server/handlers.ts';
import { Listener } from './server/listener.ts';
import { MemoryBudget } from './server/memory-budget.ts';
import type { Sending } from './server/outbox.ts';
import type { Self } from './server/self.ts';
import { TurnBudget } from './server/turn-budget.ts';
import type { Descriptors } from './vfs/descriptor-budget.ts';
import type { FileSystem } from './vfs/file-system.ts';

export interface BrokerOptions {
  readonly config: Config;
  /** An absolute path. */
  readonly dataDir: string;
  readonly fs: FileSystem;
  readonly clock: Clock;
  readonly events: EventBus;
  /** Where logs are compacted; on the loop where nothing is said. */
  readonly compact?: (plan: CompactionPlan, signal: AbortSignal) => Promise<CompactionResult>;
  /** Where records are looked into and compressed anew; on the loop where nothing is said. */
  readonly prepare?: Prepare;
}

export interface Broker {
  /** What was bound: a port of 0 has become a real one. */
  readonly kafka: Address;
  readonly admin: Address;
  /** Answers what was asked, puts everything on disk, and marks the stop as orderly. */
  close(): Promise<void>;
}

const metadataJournal = 'metadata.journal';
const transactionsTopic = '__transaction_state';

const minuteMs = 60_000;
const requestsInFlightMax = 100;
const unreadBytesMax = 1024 * 1024;
/** A peer that stops in the middle of a request, or does not take its answers, is given this long. */
const stallMs = 60_000;
const sendBuffers = { count: 64, size: 256 * 1024 };
/** What all readers together get from files in one turn of the loop: a fraction of a millisecond's worth. */
const sendTurnBytes = 1024 * 1024;

/**
 * Puts the rooms together, from the disk up, and opens the doors last: who connects finds every partition
 * serving.
 *
 * @throws SidecarError for a directory or an address that cannot be had; nothing stays behind
 */
export async function openBroker(options: BrokerOptions): Promise<Broker> {
  const opened: (() => void | Promise<void>)[] = [];
  let closed: Promise<void> | undefined;
  const closeAll = (): Promise<void> =>
    (closed ??= (async () => {
      for (const close of opened.reverse()) await close();
    })());
  try {
    return await open(options, opened, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

async function open(
  { config, dataDir, fs, clock, events, compact, prepare }: BrokerOptions,
  opened: (() => void | Promise<void>)[],
  close: () => Promise<void>,
): Promise<Broker> {
  const directory = DataDirectory.open(fs, dataDir, config.nodeId, clock);
  opened.push(() => directory.unlock());
  const space = new DiskSpace({
    fs,
    directory: dataDir,
    clock,
    events,
    minFreeBytes: config.long('disk.min.free.bytes'),
    reserveBytes: config.int('disk.reserve.bytes'),
  });
  opened.push(() => space.stop());
  const makeRoom = (): boolean => space.giveUpReserve();
  const store = await FileMetaStore.open(fs, `${dataDir}/${metadataJournal}`, clock, makeRoom);
  opened.push(() => store.close());
  const view = await ClusterView.open(store);
  opened.push(() => view.close());
  // One for all partitions of a topic, of which there may be thousands; the image has another object for a topic that
  // has changed.
  const logConfigs = new WeakMap<TopicImage, LogConfig>();
  const logConfig = (topic: TopicImage | undefined): LogConfig => {
    if (topic === undefined) return config.logConfig({});
    let known = logConfigs.get(topic);
    if (known === undefined)
      logConfigs.set(topic, (known = config.logConfig(topic.configs, topic.isInternal)));
    return known;
  };
  const tails = new TailCache(config.long('tail.cache.bytes'));
  const cut = { tails: 0, bytes: 0 };
  events.on('tailTruncated', ({ bytes }) => {
    cut.tails++;
    cut.bytes += bytes;
  });
  const logs = LogManager.open({
    fs,
    directory,
    clock,
    events,
    space,
    tails,
    cleaner: {
      isEnabled: config.bool('log.cleaner.enable'),
      backoffMs: config.long('log.cleaner.backoff.ms'),
      mapBytesMax: config.long('log.cleaner.dedupe.buffer.size'),
      ...(compact === undefined ? {} : { compact }),
    },
    scrubBytesPerSecond: config.long('scrub.bytes.per.second'),
    configOf: (name) => logConfig(view.image.topicByName(name)),
  });
  opened.push(() => logs.close());
  await logs.recovered;
  const retention = clock.every(config.long('log.retention.check.interval.ms'), () => void logs.retain());
  opened.push(() => retention.cancel());
  const expiry = clock.every(config.int('producer.id.expiration.check.interval.ms'), () =>
    logs.expireProducers(config.int('producer.id.expiration.ms')),
  );
  opened.push(() => expiry.cancel());

  const replicas = new ReplicaManager({
    logs,
    nodeId: config.nodeId,
    clock,
    events,
    logConfig,
    minInSyncReplicas: ({ configs }) => Number(config.topicValue('min.insync.replicas', configs)),
    now: () => clock.now(),
    prepare: prepare ?? (async (batch, demand) => prepareOnLoop(batch, demand)),
  });
  opened.push(() => replicas.close());
  view.onChange((image) => replicas.apply(image));
  const topics = topicsOf(config, store, view, clock, events);
  const hasPartition = (topic: string, partition: number): boolean =>
    view.image.topicByName(topic)?.partitions[partition] !== undefined;
  const groups = groupsOf(config, view, topics, replicas, hasPartition, clock, events);
  opened.push(() => groups.close());
  events.on('topicDeleted', ({ topic }) => groups.forgetTopic(topic));
  for (const { topic, partition } of [...logs.all()])
    if (topic === offsetsTopic) await groups.load(partition);

  const metrics = new Metrics();
  const producerIds = new ProducerIds(store);
  const listener = openListener(config, clock, events, metrics, fs.descriptors, (bound) => {
    const { host, port } = config.advertised;
    const self: Self = {
      nodeId: config.nodeId,
      clusterId: directory.identity.clusterId,
      host,
      // The advertised port follows the one that was bound, unless the operator named another.
      port: port === 0 ? bound.port : port,
      rack: config.raw('broker.rack'),
    };
    return handlersOf({
      self,
      config,
      image: () => view.image,
      topics,
      replicas,
      groups,
      freeBytes: () => fs.freeBytes(dataDir),
      dataDir,
      groupAdministration: new GroupAdministration(groups, hasPartition),
      producerIds,
      clock,
    });
  });
  const kafka = await bind('listeners', config.listener, listener);
  opened.push(() => {
    // Members that wait for their group are told before the connections close.
    groups.close();
    return listener.close();
  });

  const stall = new LoopStall(clock);
  opened.push(() => stall.stop());
  describeState(metrics, stall, logs, tails, replicas, groups);
  describeFiles(metrics, fs.descriptors);
  metrics.counter(
    'rookery_torn_tails_total',
    'Torn tails of logs that the start has cut: bytes of a crash that nobody was told were safe.',
    () => cut.tails,
  );
  metrics.counter('rookery_torn_tail_bytes_total', 'Bytes in the torn tails that were cut.', () => cut.bytes);
  const notReady = (): string[] =>
    [...logs.all()].flatMap(({ name, offlineReason }) =>
      offlineReason === null ? [] : [`${name} is offline: ${offlineReason}`],
    );
  const topic = (name: string): object | null => {
    const partitions = [...replicas.all()].filter(({ log }) => log.topic === name);
    if (partitions.length === 0) return null;
    return {
      clusterId: directory.identity.clusterId,
      nodeId: config.nodeId,
      topic: name,
      partitions: partitions.map(({ log }) => ({ partition: log.partition, segments: log.segmentCount })),
    };
  };
  const admin = new AdminServer({ ...config.admin, metrics, notReady, topic });
  const bound = { kafka, admin: await bind('admin.listener', config.admin, admin) };
  opened.push(() => admin.close());
  return { ...bound, close };
}

function topicsOf(
  config: Config,
  store: MetaStore,
  view: ClusterView,
  clock: Clock,
  events: EventBus,
): Topics {
  return new Topics({
    store,
    view,
    clock,
    events,
    nodeId: config.nodeId,
    defaultPartitions: config.int('num.partitions'),
    defaultReplicationFactor: config.int('default.replication.factor'),
    internal: new Map([
      [
        offsetsTopic,
        {
          partitions: config.int('offsets.topic.num.partitions'),
          configs: {
            'cleanup.policy': 'compact',
            'compression.type': 'producer',
            'segment.bytes': config.text('offsets.topic.segment.bytes'),
          },
        },
      ],
      [
        transactionsTopic,
        {
          partitions: config.int('transaction.state.log.num.partitions'),
          configs: {
            'cleanup.policy': 'compact',
            'compression.type': 'uncompressed',
            'segment.bytes': config.text('transaction.state.log.segment.bytes'),
          },
        },
      ],
    ]),
    checkConfig: topicSettingProblem,
    checkConfigs: (configs) => config.topicConflict(configs),
  });
}

function groupsOf(
  config: Config,
  view: ClusterView,
  topics: Topics,
  replicas: ReplicaManager,
  hasPartition: (topic: string, partition: number) => boolean,
  clock: Clock,
  events: EventBus,
): GroupCoordinator {
  const log = new OffsetsTopic(topics, replicas);
  return new GroupCoordinator({
    clock,
    events,
    settings: {
      // The topic's own number counts once it is made: groups are placed by it.
      get partitions() {
        return (
          view.image.topicByName(offsetsTopic)?.partitions.length ??
          config.int('offsets.topic.num.partitions')
        );
      },
      sessionTimeoutMinMs: config.int('group.min.session.timeout.ms'),
      sessionTimeoutMaxMs: config.int('group.max.session.timeout.ms'),
      sizeMax: config.int('group.max.size'),
      initialDelayMs: config.int('group.initial.rebalance.delay.ms'),
      metadataBytesMax: config.int('offset.metadata.max.bytes'),
      retentionMs: config.int('offsets.retention.minutes') * minuteMs,
      retentionCheckMs: config.long('offsets.retention.check.interval.ms'),
    },
    partition: (index) => log.partition(index),
    topicName: (id) => view.image.topicById(id)?.name,
    topicId: (name) => view.image.topicByName(name)?.id,
    hasPartition,
  });
}

function openListener(
  config: Config,
  clock: Clock,
  events: EventBus,
  metrics: Metrics,
  descriptors: Descriptors,
  handlersAt: (bound: Address) => readonly Handler[],
): Listener {
  const traffic = { bytesIn: 0, bytesOut: 0 };
  const requests = new Map<string, number>();
  let refused = 0;
  const memory = new FrameMemory();
  const budget = new MemoryBudget(config.long('queued.max.request.bytes'));
  const sending: Sending = {
    pool: new BufferPool(sendBuffers.count, sendBuffers.size),
    turns: new TurnBudget(clock, sendTurnBytes),
    sendfile: config.bool('sendfile.enable'),
    sent: { memory: 0, sendfile: 0, copy: 0 },
  };
  const busyPoll = new BusyPoll(config.int('busy.poll.us') / 1_000, clock);
  const listener = new Listener({
    ...config.listener,
    connectionsMax: config.int('max.connections'),
    descriptorsLeft: () => descriptors.leftForOthers,
    idleMs: config.long('connections.max.idle.ms'),
    stallMs,
    clock,
    opened: ({ remoteAddress }) => events.emit('connectionOpened', { remoteAddress }),
    refused: (remoteAddress, reason) => {
      refused++;
      events.emit('connectionRefused', { remoteAddress, reason });
    },
    connection: (bound) => ({
      dispatcher: new Dispatcher(handlersAt(bound), {
        now: () => clock.monotonic(),
        observe: ({ name }) => void requests.set(name, (requests.get(name) ?? 0) + 1),
      }),
      budget,
      memory,
      busyPoll,
      sending,
      limits: {
        frameBytesMax: config.int('socket.request.max.bytes'),
        inFlightMax: requestsInFlightMax,
        unreadBytesMax,
      },
      traffic,
      now: () => clock.monotonic(),
      closed: ({ remoteAddress }, reason) => events.emit('connectionClosed', { remoteAddress, reason }),
      failed: (error) => events.emit('handlerFailed', { error }),
    }),
  });
  metrics.gauge('rookery_connections', 'Open Kafka connections.', () => listener.connections.size);
  metrics.counter(
    'rookery_connections_refused_total',
    'Connections closed at once because max.connections, or the share of descriptors that connections have, was reached.',
    () => refused,
  );
  metrics.counter('rookery_bytes_in_total', 'Bytes received from Kafka clients.', () => traffic.bytesIn);
  metrics.counter('rookery_bytes_out_total', 'Bytes sent to Kafka clients.', () => traffic.bytesOut);
  metrics.counters(
    'rookery_fetch_bytes_total',
    'Bytes of records sent to readers, by the way they took: from memory, by sendfile, or copied from a file.',
    'path',
    () => new Map(Object.entries(sending.sent)),
  );
  metrics.counters('rookery_requests_total', 'Requests answered, by API.', 'api', () => requests);
  metrics.gauge('rookery_request_bytes', 'Bytes of large requests held in memory.', () => budget.held);
  return listener;
}

function describeState(
  metrics: Metrics,
  stall: LoopStall,
  logs: LogManager,
  tails: TailCache,
  replicas: ReplicaManager,
  groups: GroupCoordinator,
): void {
  const all = (): PartitionLog[] => [...logs.all()];
  const count = (of: (log: PartitionLog) => number): number => all().reduce((sum, log) => sum + of(log), 0);
  metrics.gauge(
    'rookery_event_loop_stall_seconds',
    'The longest time that the event loop was kept from turning since the last scrape.',
    () => stall.take(),
  );
  metrics.gauge('rookery_partitions', 'Partitions that this broker hosts.', () => [...replicas.all()].length);
  metrics.gauge('rookery_partitions_offline', 'Partitions that take no appends.', () =>
    count(({ offlineReason }) => (offlineReason === null ? 0 : 1)),
  );
  metrics.gauge(
    'rookery_partitions_quarantined',
    'Partitions in which rot was found: served up to it, until `rookery log repair`.',
    () => count(({ rot }) => (rot === null ? 0 : 1)),
  );
  metrics.gauge('rookery_log_bytes', 'Bytes of records in all partition logs.', () =>
    count(({ sizeInBytes }) => sizeInBytes),
  );
  metrics.gauge('rookery_log_segments', 'Segments of all partition logs.', () =>
    count(({ segmentCount }) => segmentCount),
  );
  metrics.gauge('rookery_log_unsynced_bytes', 'Bytes written and not yet known to be on the disk.', () =>
    count(({ unsyncedBytes }) => unsyncedBytes),
  );
  metrics.gauge(
    'rookery_tail_cache_bytes',
    'Memory in which the newest bytes of busy partitions stay, for readers at the tail.',
    () => tails.bytes,
  );
  metrics.gauge('rookery_groups', 'Consumer groups.', () => groups.groupCount);
  metrics.gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss());
  metrics.counter('process_cpu_seconds_total', 'Processor time, user and system.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
}

function describeFiles(metrics: Metrics, descriptors: Descriptors): void {
  metrics.gauge('rookery_open_files', 'Files that are open.', () => descriptors.open);
  metrics.gauge(
    'rookery_open_files_max',
    'How many files should be open: half of the limit of the process. More are open only while none of them can be closed.',
    () => descriptors.max,
  );
  metrics.counter(
    'rookery_files_closed_for_others_total',
    'How often a file was closed so that another could be opened.',
    () => descriptors.evictions,
  );
}

/** @throws SidecarError RK0201 */
async function bind(
  name: string,
  address: Address,
  server: { listen(): Promise<Address> },
): Promise<Address> {
  try {
    return await server.listen();
  } catch (error) {
    throw new SidecarError('RK0201', `${name}=${formatAddress(address)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
