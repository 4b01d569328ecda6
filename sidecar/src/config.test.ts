import { expect, test } from 'vitest';
import { Config, type ConfigInput } from './config.ts';
import { brokerSettings, topicSettings } from './settings.ts';

const file = (text: string): ConfigInput => ({ file: { name: 'server.properties', text } });
const refusal = (input: ConfigInput): string => {
  try {
    return `accepted ${JSON.stringify(new Config(input).warnings)}`;
  } catch (error) {
    return (error as Error).message;
  }
};

test('without a word a developer gets one broker on loopback', () => {
  const config = new Config({});
  expect(config.listener).toEqual({ host: '127.0.0.1', port: 9092 });
  expect(config.admin).toEqual({ host: '127.0.0.1', port: 9644 });
  expect(config.nodeId).toBe(1);
  expect(config.dataDir).toBeNull();
  expect(config.int('num.partitions')).toBe(1);
  expect(config.int('default.replication.factor')).toBe(1);
  expect(config.bool('auto.create.topics.enable')).toBe(true);
  expect(config.int('group.initial.rebalance.delay.ms')).toBe(0);
  expect(config.warnings).toEqual([]);
});

test('flags beat --set, --set beats the environment, the environment beats the file', () => {
  const levels = {
    ...file('listeners=PLAINTEXT://127.0.0.1:1\nnum.partitions=1\nlog.segment.bytes=2000000\nnode.id=9'),
    environment: {
      ROOKERY_LISTENERS: 'PLAINTEXT://127.0.0.1:2',
      ROOKERY_NUM_PARTITIONS: '2',
      ROOKERY_LOG_SEGMENT_BYTES: '3000000',
    },
    sets: ['listeners=127.0.0.1:3', 'num.partitions=3', 'num.partitions=4'],
    flags: { listen: '127.0.0.1:4' },
  };
  const config = new Config(levels);
  expect(config.listener.port).toBe(4);
  expect(config.int('num.partitions')).toBe(4);
  expect(config.int('log.segment.bytes')).toBe(3_000_000);
  expect(config.nodeId).toBe(9);
  expect(
    ['listeners', 'num.partitions', 'log.segment.bytes', 'node.id', 'log.roll.ms'].map((name) =>
      config.source(name),
    ),
  ).toEqual(['flag', 'set', 'environment', 'file', 'default']);
});

test('a file is JSON or Java properties', () => {
  const properties = new Config(
    file('# a comment\n! another\nnum.partitions : 3\nlog.dirs = /a\\\n  /b\nbroker.rack=r\\u0061ck\\ 1\n\n'),
  );
  expect(properties.int('num.partitions')).toBe(3);
  expect(properties.dataDir).toBe('/a/b');
  expect(properties.text('broker.rack')).toBe('rack 1');
  const json = new Config(
    file('{"num.partitions": 3, "auto.create.topics.enable": false, "log.dirs": ["/a"], "broker.rack": "r"}'),
  );
  expect(json.int('num.partitions')).toBe(3);
  expect(json.bool('auto.create.topics.enable')).toBe(false);
  expect(json.dataDir).toBe('/a');
});

test('longs reach 2^63 - 1, in every notation, and no further', () => {
  const largest = '9223372036854775807';
  expect(new Config(file(`{"log.retention.ms": ${largest}}`)).text('log.retention.ms')).toBe(largest);
  expect(new Config(file(`log.retention.ms=${largest}`)).text('log.retention.ms')).toBe(largest);
  expect(new Config({ sets: [`log.retention.bytes=${largest}`] }).brokerFallback('retention.bytes')).toBe(
    largest,
  );
  expect(new Config({ sets: ['log.retention.bytes=-1'] }).brokerFallback('retention.bytes')).toBe('-1');
  expect(refusal({ sets: ['log.retention.bytes=9223372036854775808'] })).toContain(
    'outside the range of a long',
  );
  expect(refusal({ sets: ['num.partitions=2147483648'] })).toContain('outside the range of a int');
});

test('a bad value is one line with the name of the setting', () => {
  const cases: Record<string, RegExp> = {
    'num.partitions=many': /^RK0103 .*num\.partitions: 'many' is not a whole number$/,
    'num.partitions=1.5': /not a whole number/,
    'num.partitions=0': /is less than 1/,
    'num.partitions=': /not a whole number/,
    'auto.create.topics.enable=yes': /auto\.create\.topics\.enable: 'yes' is neither true nor false/,
    'log.message.timestamp.type=Now': /is not one of .*LogAppendTime/,
    'log.cleanup.policy=delete,forget': /log\.cleanup\.policy.*is not one of compact, delete/,
    'flush.mode=never': /flush\.mode: 'never' is not one of sync, interval, os/,
    'log.cleaner.min.cleanable.ratio=x': /is not a number/,
    'node.id=-1': /node\.id: '-1' is less than 0/,
    'log.cleaner.dedupe.buffer.size=-5': /is less than 1048576/,
    'log.cleaner.max.compaction.lag.ms=10,log.cleaner.min.compaction.lag.ms=11':
      /^RK0103 .*min\.compaction\.lag\.ms is 11, and max\.compaction\.lag\.ms less: 10$/,
  };
  for (const [set, expected] of Object.entries(cases)) {
    const message = refusal({ sets: set.split(/,(?=log)/) });
    expect(message).toMatch(expected);
    expect(message).not.toContain('\n');
  }
});

test('an unknown name is refused, and the nearest one offered', () => {
  expect(refusal({ sets: ['num.partition=1'] })).toBe(
    "RK0102 unknown setting: 'num.partition', did you mean 'num.partitions'?",
  );
  expect(refusal(file('auto.create.topic.enable=true'))).toContain("'auto.create.topics.enable'?");
  expect(refusal({ sets: ['entirely.something.else.that.nobody.knows=1'] })).toBe(
    "RK0102 unknown setting: 'entirely.something.else.that.nobody.knows'",
  );
  expect(refusal({ sets: ['constructor=1'] })).toMatch(/^RK0102/);
  expect(refusal({ sets: ['no-equals-sign'] })).toMatch(/^RK0101 .*name=value is expected/);
});

test('a variable that names no setting is a warning, not a refusal', () => {
  const { warnings } = new Config({
    environment: { ROOKERY_NUM_PARTITION: '1', ROOKERY_VERIFY: '1', PATH: '/' },
  });
  expect(warnings).toEqual(['environment variable ROOKERY_NUM_PARTITION names no setting']);
});

test('settings of Kafka that are not acted on are accepted with one warning each, and keep their secrets', () => {
  const { warnings } = new Config(
    file('process.roles=broker,controller\nssl.key.password=hush\nnum.network.threads=8\nnum.partitions=2'),
  );
  expect(warnings.length).toBe(3);
  expect(warnings.join('\n')).toMatch(/process\.roles.*'broker,controller'/);
  expect(warnings.join('\n')).toContain('ssl.key.password');
  expect(warnings.join('\n')).not.toContain('hush');
});

test('malformed files are refused with a line', () => {
  expect(refusal(file('{"num.partitions": 1'))).toMatch(/^RK0104 .*server\.properties/);
  expect(refusal(file('{"num.partitions": {}}'))).toMatch(/^RK0103 .*num\.partitions/);
  expect(refusal(file('{"log.dirs": [["/a"]]}'))).toMatch(/^RK0103 .*log\.dirs/);
  expect(refusal(file('{"log.dirs": null}'))).toMatch(/^RK0103 .*log\.dirs/);
});

test('listeners: one, plain, well-formed, and on loopback unless told otherwise', () => {
  expect(refusal({ flags: { listen: '127.0.0.1' } })).toMatch(/^RK0105/);
  expect(refusal({ flags: { listen: '127.0.0.1:65536' } })).toMatch(/^RK0105/);
  expect(refusal({ flags: { listen: 'http://127.0.0.1:1' } })).toMatch(/^RK0106/);
  expect(refusal({ sets: ['listeners=SSL://127.0.0.1:1'] })).toMatch(/^RK0106/);
  expect(refusal({ sets: ['listeners=127.0.0.1:1,127.0.0.1:2'] })).toMatch(/^RK0105 .*exactly one/);
  for (const listen of ['0.0.0.0:9092', ':9092', '[::]:9092', '10.0.0.1:9092', 'example.org:9092']) {
    expect(refusal({ flags: { listen } }), listen).toMatch(/^RK0107 .*--insecure: listeners/);
    expect(refusal({ flags: { listen, insecure: true } }), listen).toBe('accepted []');
  }
  expect(refusal({ flags: { admin: '0.0.0.0:1' } })).toMatch(/^RK0107 .*admin\.listener/);
  for (const listen of ['localhost:1', '127.9.9.9:1', '[::1]:1'])
    expect(refusal({ flags: { listen } }), listen).toBe('accepted []');
});

test('localhost and every interface are advertised as IPv4, a name as it is', () => {
  expect(new Config({ flags: { listen: 'localhost:1' } }).advertised.host).toBe('127.0.0.1');
  expect(new Config({ flags: { listen: '0.0.0.0:1', insecure: true } }).advertised.host).toBe('127.0.0.1');
  expect(new Config({ sets: ['advertised.listeners=PLAINTEXT://broker.internal:19092'] }).advertised).toEqual(
    {
      host: 'broker.internal',
      port: 19_092,
    },
  );
});

test('one data directory, whatever its name on the command line', () => {
  expect(new Config({ flags: { dataDir: '/a,b' } }).dataDir).toBe('/a,b');
  expect(new Config({ flags: { dataDir: '/a ' } }).dataDir).toBe('/a ');
  expect(new Config({ sets: ['log.dir=/a'] }).dataDir).toBe('/a');
  expect(() => new Config({ sets: ['log.dirs=/a,/b'] }).dataDir).toThrow('RK0103');
  expect(refusal({ flags: { dataDir: '' } })).toMatch(/^RK0103 .*--data-dir/);
});

test('every setting of Kafka 4.3.1 is known, with its type and default', () => {
  // Facts from Kafka's own table; the whole was compared with it.
  expect(brokerSettings.size).toBeGreaterThan(340);
  expect(brokerSettings.get('log.segment.bytes')).toMatchObject({ type: 'int', default: '1073741824' });
  expect(brokerSettings.get('offsets.retention.minutes')).toMatchObject({ type: 'int', default: '10080' });
  expect(brokerSettings.get('log.retention.ms')).toMatchObject({ type: 'long', default: null });
  expect(brokerSettings.get('compression.gzip.level')).toMatchObject({ min: 1, max: 9, orMinusOne: true });
  expect(topicSettings.get('retention.ms')).toMatchObject({ type: 'long', default: '604800000' });
  for (const setting of [...brokerSettings.values(), ...topicSettings.values()])
    expect(setting.type, setting.name).toMatch(
      /^(boolean|int|short|long|double|string|list|password|class)$/,
    );
});

test('coarser units count where the finer is silent', () => {
  const retention = (...sets: string[]): string | null => new Config({ sets }).brokerFallback('retention.ms');
  expect(retention()).toBe(String(168 * 3_600_000));
  expect(retention('log.retention.hours=1')).toBe('3600000');
  expect(retention('log.retention.hours=1', 'log.retention.minutes=1')).toBe('60000');
  expect(retention('log.retention.minutes=1', 'log.retention.ms=5')).toBe('5');
  expect(retention('log.retention.hours=-1')).toBe('-1');
  expect(new Config({ sets: ['log.roll.hours=2'] }).brokerFallback('segment.ms')).toBe('7200000');
});
