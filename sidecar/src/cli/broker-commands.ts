import type { Command } from 'commander';
import type { ConfigsFlags } from './configs.ts';
import type { ConsumeFlags } from './consume.ts';
import type { ProduceFlags } from './produce.ts';
import type { CreateTopicFlags, DescribeTopicFlags } from './topics.ts';
import type { BrokerFlags } from './with-client.ts';

// The commands that ask a running broker over the protocol. What they need is loaded with the first of them.

/** For an option that may be given several times. */
export const repeated = (value: string, all: readonly string[]): string[] => [...all, value];

export function brokerCommands(rookery: Command): void {
  topicCommands(rookery.command('topics').description('list, make, delete and describe topics'));
  groupCommands(rookery.command('groups').description('list and describe consumer groups'));
  atBroker(rookery.command('configs'))
    .description("print a topic's settings, or change some")
    .argument('<topic>')
    .option('--set <name=value>', 'give a setting a value; may be repeated', repeated, [])
    .option('--unset <name>', 'take a setting back to its default; may be repeated', repeated, [])
    .action(async (topic: string, flags: ConfigsFlags) =>
      (await import('./configs.ts')).configs(topic, flags),
    );
  atBroker(rookery.command('produce'))
    .description('append every line of the input as a record')
    .argument('<topic>')
    .option('--key-separator <text>', 'what stands before it in a line is the key')
    .action(async (topic: string, flags: ProduceFlags) =>
      (await import('./produce.ts')).produce(topic, flags),
    );
  atBroker(rookery.command('consume'))
    .description('print the value of every record as a line, and wait for more')
    .argument('<topic>')
    .option('--from <where>', 'earliest, latest, or the offset to begin with', 'earliest')
    .option('--count <records>', 'end after so many')
    .option('--partition <number>', 'one partition (default: all)')
    .option('--key-separator <text>', 'print the key too, and this between the two')
    .action(async (topic: string, flags: ConsumeFlags) =>
      (await import('./consume.ts')).consume(topic, flags),
    );
}

function topicCommands(topics: Command): void {
  atBroker(topics.command('list'))
    .description('every topic, with the number of its partitions')
    .action(async (flags: BrokerFlags) => (await import('./topics.ts')).listTopics(flags));
  atBroker(topics.command('create'))
    .description('make a topic')
    .argument('<topic>')
    .option('--partitions <count>', "how many partitions (default: the broker's)")
    .option('--replication-factor <count>', "on how many brokers (default: the broker's)")
    .option('--set <name=value>', "one of the topic's settings; may be repeated", repeated, [])
    .action(async (topic: string, flags: CreateTopicFlags) =>
      (await import('./topics.ts')).createTopic(topic, flags),
    );
  atBroker(topics.command('delete'))
    .description('delete topics with their records')
    .argument('<topic...>')
    .action(async (names: string[], flags: BrokerFlags) =>
      (await import('./topics.ts')).deleteTopics(names, flags),
    );
  atBroker(topics.command('describe'))
    .description("every partition's leader, offsets, bytes, segments, and the age of its oldest record")
    .argument('<topic>')
    .option('--admin <host:port>', "the sidecar's HTTP address, which knows the segments", '127.0.0.1:9644')
    .action(async (topic: string, flags: DescribeTopicFlags) =>
      (await import('./topics.ts')).describeTopic(topic, flags),
    );
}

function groupCommands(groups: Command): void {
  atBroker(groups.command('list'))
    .description('every group')
    .action(async (flags: BrokerFlags) => (await import('./groups.ts')).listGroups(flags));
  atBroker(groups.command('describe'))
    .description('what a group has committed, how far that is from the high watermark, and who reads it')
    .argument('<group>')
    .action(async (group: string, flags: BrokerFlags) =>
      (await import('./groups.ts')).describeGroup(group, flags),
    );
}

const atBroker = (command: Command): Command =>
  command.option('--broker <host:port>', 'the broker to ask', '127.0.0.1:9092');
