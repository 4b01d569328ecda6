import { kafkaBrokerSettings, kafkaTopicSettings } from './kafka-settings.ts';

export type SettingType =
  'boolean' | 'int' | 'short' | 'long' | 'double' | 'string' | 'list' | 'password' | 'class';

/** A setting as a table row: what it is called, what it may be, what it is when nobody says. */
export interface Setting {
  readonly name: string;
  readonly type: SettingType;
  /** As text; null for none. */
  readonly default: string | null;
  readonly min: number | null;
  readonly max: number | null;
  readonly allowed: readonly string[] | null;
  /** −1 is allowed beside the range. */
  readonly orMinusOne: boolean;
  /**
   * What it does; null when the sidecar does not act on it. Such a setting is accepted, with a warning, so that
   * files meant for Kafka work.
   */
  readonly about: string | null;
}

/** Broker settings that the sidecar acts on, and what each does. */
const actedOn: Readonly<Record<string, string>> = {
  'admin.listener': 'where health and metrics are served; port 0 means any free one',
  'advertised.listeners':
    'the address that clients are told to connect to; the listener itself where nothing is said',
  'auto.create.topics.enable': 'a topic that a client asks for and that is not there is made',
  'broker.id': 'the older name of node.id, used where that is not given',
  'broker.rack': 'the rack that clients are told',
  'busy.poll.us':
    'a request that follows another of the same connection within so many microseconds keeps the broker awake as long, while no other connection sends; 0 lets it sleep at once',
  'compression.gzip.level': 'how hard gzip tries where compression.type is gzip',
  'compression.type':
    'the codec that batches are stored in; producer keeps them as they came, any other compresses anew what came in another',
  'compression.zstd.level': 'how hard zstd tries where compression.type is zstd',
  'connections.max.idle.ms': 'a connection on which nothing happens for so long is closed',
  'default.replication.factor':
    'how many replicas a topic gets that is made without a number; one broker can keep one',
  'delete.topic.enable': 'whether DeleteTopics is obeyed',
  'disk.min.free.bytes': 'with less free space on the disk nothing is appended to topics; 0 turns this off',
  'disk.reserve.bytes':
    'bytes kept aside, so that checkpoints and deletes go on when the disk is full; 0 keeps none',
  'fetch.max.bytes': 'the most bytes of records in one answer, a larger first batch aside',
  'flush.mode':
    'what an acknowledgement waits for: sync, the disk; interval and os, the page cache; where nothing is said, sync as long as min.insync.replicas is below 2, else os',
  'group.initial.rebalance.delay.ms': 'how long the first members of a new group wait for more',
  'group.max.session.timeout.ms': 'the longest session timeout that a member may ask for',
  'group.max.size': 'the most members of a group',
  'group.min.session.timeout.ms': 'the shortest session timeout that a member may ask for',
  listeners: 'where Kafka clients connect; exactly one',
  'log.cleaner.backoff.ms': 'how often logs that should be compacted are looked for',
  'log.cleaner.dedupe.buffer.size': 'the most memory for the keys of the log that is compacted',
  'log.cleaner.delete.retention.ms': 'how long a tombstone stays, so that readers learn of the deletion',
  'log.cleaner.enable': 'whether logs are compacted at all',
  'log.cleaner.max.compaction.lag.ms': 'a log is compacted when a record that never was is so old',
  'log.cleaner.min.cleanable.ratio': 'a log is compacted when this share of its bytes never was',
  'log.cleaner.min.compaction.lag.ms': 'records that are younger are not compacted',
  'log.cleanup.policy': 'what happens to old records: delete, compact, or both',
  'log.dir': 'the data directory, where log.dirs says nothing; ~/.rookery where neither is given',
  'log.dirs': 'the data directory; exactly one',
  'log.flush.interval.messages': 'in flush.mode interval, a log is synced after so many records',
  'log.flush.interval.ms': 'in flush.mode interval, a log is synced after so long',
  'log.index.interval.bytes': 'an index gets an entry after so many bytes of records',
  'log.index.size.max.bytes': 'a segment is closed when its offset index has grown to this size',
  'log.message.timestamp.after.max.ms': 'how far ahead of the broker’s clock a record’s timestamp may be',
  'log.message.timestamp.before.max.ms': 'how far behind the broker’s clock a record’s timestamp may be',
  'log.message.timestamp.type':
    'whether records keep the time that their producer gave, or get the time of their append',
  'log.retention.bytes': 'a log’s oldest segments are deleted when the rest is as large; -1 for no limit',
  'log.retention.check.interval.ms': 'how often segments that may go are looked for',
  'log.retention.hours': 'log.retention.ms in hours, used where neither that nor minutes are given',
  'log.retention.minutes': 'log.retention.ms in minutes, used where that is not given',
  'log.retention.ms': 'a segment is deleted when its youngest record is so old; -1 for no limit',
  'log.roll.hours': 'log.roll.ms in hours, used where that is not given',
  'log.roll.jitter.hours': 'log.roll.jitter.ms in hours, used where that is not given',
  'log.roll.jitter.ms': 'by how much, at random, a segment is closed sooner than log.roll.ms says',
  'log.roll.ms': 'a segment is closed when its first record was appended so long ago',
  'log.segment.bytes': 'a segment is closed before it grows beyond this size',
  'log.segment.delete.delay.ms':
    'how long the files of a deleted segment or partition stay, under another name',
  'max.connections': 'the most connections at once; one more is closed',
  'message.max.bytes': 'the largest record batch that is taken',
  'min.insync.replicas': 'how many replicas must be in sync for acks=all',
  'node.id': 'the broker’s id; a data directory keeps the one it was made with',
  'num.partitions': 'how many partitions a topic gets that is made without a number',
  'offset.metadata.max.bytes': 'the longest text that may be committed with an offset',
  'offsets.retention.check.interval.ms': 'how often offsets that nobody needs any more are looked for',
  'offsets.retention.minutes': 'how long the offsets of a group without members are kept',
  'offsets.topic.num.partitions': 'how many partitions __consumer_offsets is made with',
  'offsets.topic.segment.bytes': 'segment.bytes of __consumer_offsets',
  'producer.id.expiration.check.interval.ms': 'how often silent producers are looked for',
  'producer.id.expiration.ms':
    'a producer that was silent for so long is forgotten, unless it has a transaction open',
  'queued.max.request.bytes': 'bytes of large requests that may be in memory; connections wait for room',
  'sendfile.enable':
    'readers on plaintext sockets get files by sendfile, where the system has it; else through a buffer',
  'scrub.bytes.per.second':
    'how fast closed segments are read again in search of bytes that the disk has changed; 0 for never',
  'socket.request.max.bytes': 'the largest request; a larger one closes its connection',
  'tail.cache.bytes':
    'memory in which the newest bytes of busy partitions stay for readers at the tail; 0 for none',
  'transaction.state.log.num.partitions': 'how many partitions __transaction_state is made with',
  'transaction.state.log.segment.bytes': 'segment.bytes of __transaction_state',
};

/** Topic settings that are acted on although the broker's own of that meaning is not. */
const actedOnInTopics: Readonly<Record<string, string>> = {
  'cleanup.policy':
    'with delete, old segments go; with compact, of each key the last record stays, and records without a key are refused',
  'internal.segment.bytes': 'segment.bytes without its lower limit, for tests that need many segments',
};

/** Where our defaults differ from Kafka's: one broker on a developer's machine, and limits that hold. */
const ownDefaults: Readonly<Record<string, string>> = {
  'default.replication.factor': '1',
  'group.initial.rebalance.delay.ms': '0',
  listeners: 'PLAINTEXT://127.0.0.1:9092',
  'log.dir': '~/.rookery',
  'max.connections': '10000',
  'node.id': '1',
  'offsets.topic.replication.factor': '1',
  'queued.max.request.bytes': '268435456',
  'share.coordinator.state.topic.min.isr': '1',
  'share.coordinator.state.topic.replication.factor': '1',
  'transaction.state.log.min.isr': '1',
  'transaction.state.log.replication.factor': '1',
};

/** Where Kafka checks a value only after the others. */
const ownMinimums: Readonly<Record<string, number>> = {
  'log.cleaner.dedupe.buffer.size': 1_048_576,
};

/** Settings that Kafka does not have, in the same form. */
const ownBrokerSettings = `
admin.listener string 127.0.0.1:9644
busy.poll.us int 250 0..10000
disk.min.free.bytes long 268435456 0..
disk.reserve.bytes long 4194304 0..
flush.mode string - sync/interval/os
scrub.bytes.per.second long 4194304 0..
sendfile.enable boolean true
tail.cache.bytes long 33554432 0..
`;

const ownTopicSettings = `
flush.mode string - sync/interval/os
`;

/** The broker setting that each topic setting falls back to. */
export const topicFallbacks: Readonly<Record<string, string>> = {
  'cleanup.policy': 'log.cleanup.policy',
  'compression.gzip.level': 'compression.gzip.level',
  'compression.lz4.level': 'compression.lz4.level',
  'compression.type': 'compression.type',
  'compression.zstd.level': 'compression.zstd.level',
  'delete.retention.ms': 'log.cleaner.delete.retention.ms',
  'file.delete.delay.ms': 'log.segment.delete.delay.ms',
  'flush.messages': 'log.flush.interval.messages',
  'flush.mode': 'flush.mode',
  'flush.ms': 'log.flush.interval.ms',
  'index.interval.bytes': 'log.index.interval.bytes',
  'max.compaction.lag.ms': 'log.cleaner.max.compaction.lag.ms',
  'max.message.bytes': 'message.max.bytes',
  'message.timestamp.after.max.ms': 'log.message.timestamp.after.max.ms',
  'message.timestamp.before.max.ms': 'log.message.timestamp.before.max.ms',
  'message.timestamp.type': 'log.message.timestamp.type',
  'min.cleanable.dirty.ratio': 'log.cleaner.min.cleanable.ratio',
  'min.compaction.lag.ms': 'log.cleaner.min.compaction.lag.ms',
  'min.insync.replicas': 'min.insync.replicas',
  preallocate: 'log.preallocate',
  'retention.bytes': 'log.retention.bytes',
  'retention.ms': 'log.retention.ms',
  'segment.bytes': 'log.segment.bytes',
  'segment.index.bytes': 'log.index.size.max.bytes',
  'segment.jitter.ms': 'log.roll.jitter.ms',
  'segment.ms': 'log.roll.ms',
  'unclean.leader.election.enable': 'unclean.leader.election.enable',
};

export const brokerSettings: ReadonlyMap<string, Setting> = table(
  kafkaBrokerSettings + ownBrokerSettings,
  (name) => actedOn[name] ?? null,
);

export const topicSettings: ReadonlyMap<string, Setting> = table(
  kafkaTopicSettings + ownTopicSettings,
  (name) => actedOnInTopics[name] ?? actedOn[topicFallbacks[name] ?? ''] ?? null,
);

function table(text: string, about: (name: string) => string | null): Map<string, Setting> {
  const settings = new Map<string, Setting>();
  for (const line of text.trim().split(/\n+/)) {
    const [name, type, fallback, ...range] = line.split(' ') as [string, SettingType, string, ...string[]];
    const orMinusOne = range.includes('or');
    const bounds = /^(-?[\d.]+)\.\.(-?[\d.]*)$/.exec(range[0] ?? '');
    settings.set(name, {
      name,
      type,
      default: ownDefaults[name] ?? (fallback === '-' ? null : fallback),
      min: ownMinimums[name] ?? (bounds === null ? null : Number(bounds[1])),
      max: bounds === null || bounds[2] === '' ? null : Number(bounds[2]),
      allowed: bounds === null && range[0] !== undefined ? range[0].split('/') : null,
      orMinusOne,
      about: about(name),
    });
  }
  return settings;
}

const longMax = 2n ** 63n - 1n;
const integerLimits: Partial<Record<SettingType, [bigint, bigint]>> = {
  short: [-32_768n, 32_767n],
  int: [-(2n ** 31n), 2n ** 31n - 1n],
  long: [-longMax - 1n, longMax],
};

/** Why a text is no value of the setting, as the end of a sentence; null when it is one. */
export function valueProblem(setting: Setting, text: string): string | null {
  const limits = integerLimits[setting.type];
  if (limits !== undefined) {
    if (!/^[+-]?\d{1,20}$/.test(text)) return 'is not a whole number';
    const value = BigInt(text);
    if (value < limits[0] || value > limits[1]) return `is outside the range of a ${setting.type}`;
    return rangeProblem(setting, Number(value));
  }
  switch (setting.type) {
    case 'boolean':
      return /^(true|false)$/i.test(text) ? null : 'is neither true nor false';
    case 'double':
      return /^-?\d+(\.\d+)?(e-?\d+)?$/i.test(text) ? rangeProblem(setting, Number(text)) : 'is not a number';
    default: {
      const values = setting.type === 'list' ? listOf(text) : [text];
      const strange =
        setting.allowed === null ? undefined : values.find((value) => !setting.allowed!.includes(value));
      return strange === undefined ? null : `is not one of ${setting.allowed!.join(', ')}`;
    }
  }
}

function rangeProblem({ min, max, orMinusOne }: Setting, value: number): string | null {
  if (orMinusOne && value === -1) return null;
  if (min !== null && value < min) return `is less than ${min}`;
  return max !== null && value > max ? `is more than ${max}` : null;
}

export const listOf = (text: string): string[] =>
  text
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '');

/** A long as a number that comparisons can use: what a double cannot hold exactly is as good as no limit. */
export const longOf = (text: string): number => {
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : Infinity * Math.sign(value);
};
