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
  /** Whether the sidecar acts on it. The rest is accepted, with a warning, so that files meant for Kafka work. */
  readonly isActedOn: boolean;
}

/** Broker settings that the sidecar acts on. */
const actedOn = new Set([
  'advertised.listeners',
  'auto.create.topics.enable',
  'broker.id',
  'broker.rack',
  'connections.max.idle.ms',
  'default.replication.factor',
  'delete.topic.enable',
  'fetch.max.bytes',
  'group.initial.rebalance.delay.ms',
  'group.max.session.timeout.ms',
  'group.max.size',
  'group.min.session.timeout.ms',
  'listeners',
  'log.dir',
  'log.dirs',
  'log.flush.interval.messages',
  'log.flush.interval.ms',
  'log.index.interval.bytes',
  'log.index.size.max.bytes',
  'log.message.timestamp.after.max.ms',
  'log.message.timestamp.before.max.ms',
  'log.message.timestamp.type',
  'log.roll.hours',
  'log.roll.ms',
  'log.segment.bytes',
  'max.connections',
  'message.max.bytes',
  'node.id',
  'num.partitions',
  'offset.metadata.max.bytes',
  'offsets.retention.check.interval.ms',
  'offsets.retention.minutes',
  'offsets.topic.num.partitions',
  'offsets.topic.segment.bytes',
  'queued.max.request.bytes',
  'socket.request.max.bytes',
]);

/** Where our defaults differ from Kafka's: one broker on a developer's machine, and limits that hold. */
const ownDefaults: Readonly<Record<string, string>> = {
  'default.replication.factor': '1',
  'group.initial.rebalance.delay.ms': '0',
  listeners: 'PLAINTEXT://127.0.0.1:9092',
  'max.connections': '10000',
  'node.id': '1',
  'offsets.topic.replication.factor': '1',
  'queued.max.request.bytes': '268435456',
  'share.coordinator.state.topic.min.isr': '1',
  'share.coordinator.state.topic.replication.factor': '1',
  'transaction.state.log.min.isr': '1',
  'transaction.state.log.replication.factor': '1',
};

/** Settings that Kafka does not have, in the same form. */
const ownBrokerSettings = `
admin.listener string 127.0.0.1:9644
disk.min.free.bytes long 268435456 0..
disk.reserve.bytes long 4194304 0..
flush.mode string - sync/interval/os
`;

const ownTopicSettings = `
flush.mode string - sync/interval/os
`;

/** Topic settings that the sidecar acts on, and the broker setting that each falls back to. */
export const topicFallbacks: Readonly<Record<string, string>> = {
  'cleanup.policy': 'log.cleanup.policy',
  'compression.type': 'compression.type',
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
  (name) => actedOn.has(name) || ownBrokerSettings.includes(`\n${name} `),
);

export const topicSettings: ReadonlyMap<string, Setting> = table(
  kafkaTopicSettings + ownTopicSettings,
  (name) => name in topicFallbacks,
);

function table(text: string, isActedOn: (name: string) => boolean): Map<string, Setting> {
  const settings = new Map<string, Setting>();
  for (const line of text.trim().split(/\n+/)) {
    const [name, type, fallback, ...range] = line.split(' ') as [string, SettingType, string, ...string[]];
    const orMinusOne = range.includes('or');
    const bounds = /^(-?[\d.]+)\.\.(-?[\d.]*)$/.exec(range[0] ?? '');
    settings.set(name, {
      name,
      type,
      default: ownDefaults[name] ?? (fallback === '-' ? null : fallback),
      min: bounds === null ? null : Number(bounds[1]),
      max: bounds === null || bounds[2] === '' ? null : Number(bounds[2]),
      allowed: bounds === null && range[0] !== undefined ? range[0].split('/') : null,
      orMinusOne,
      isActedOn: isActedOn(name),
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
