import { assignments } from './given.ts';
import { inTime, withClient, type BrokerFlags } from './with-client.ts';

export interface ConfigsFlags extends BrokerFlags {
  readonly set: readonly string[];
  readonly unset: readonly string[];
}

/** `rookery configs TOPIC`: prints a topic's settings, as a properties file would have them, or changes some. */
export async function configs(topic: string, flags: ConfigsFlags): Promise<void> {
  const changes = new Map<string, string | null>(assignments(flags.set));
  for (const name of flags.unset) changes.set(name, null);
  await withClient(flags, (client) =>
    inTime(async (signal) => {
      const admin = client.admin();
      if (changes.size > 0) return admin.changeConfigs('topic', topic, changes, signal);
      const values = await admin.describeConfigs('topic', topic, signal);
      const lines = [...values].map(([name, value]) => `${name}=${value ?? ''}\n`);
      process.stdout.write(lines.sort().join(''));
    }),
  );
}
