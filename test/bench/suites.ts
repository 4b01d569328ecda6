import { codecTable, compareCodecs } from './codec.ts';
import { compare, comparisonTable } from './comparison.ts';
import { contenders } from './contenders.ts';
import { externalGenerator } from './external-generator.ts';
import { kafkaTools } from './kafka-tools.ts';
import type { LoadGenerator } from './load-generator.ts';
import { ownClient } from './own-client.ts';
import { profile, profileText } from './profile.ts';
import type { Sizes } from './sizes.ts';

export interface SuiteOptions {
  readonly rounds: number;
  readonly only: string;
  readonly alone: boolean;
  readonly generator: LoadGenerator;
  readonly sizes: Sizes;
  progress(text: string): void;
}

interface Suite {
  readonly about: string;
  /** @returns what to print, and every figure of every round */
  run(options: SuiteOptions): Promise<{ text: string; figures: unknown }>;
}

export const suites: Readonly<Record<string, Suite>> = {
  kafka: {
    about: 'Rookery and Kafka in turn, the same work by the same hand',
    async run({ alone, ...options }) {
      const among = contenders.filter(({ name }) => !alone || name === 'Rookery');
      const rows = await compare({ ...options, contenders: among });
      const text = `${comparisonTable(rows)}\n\nBy ${options.generator.name}, medians of ${options.rounds}. Kafka acknowledges from the page cache, in the rows “on disk” too.`;
      return { text, figures: rows };
    },
  },
  codec: {
    about: 'the compiled codec beside the one that walks the tables',
    async run({ rounds }) {
      const rows = compareCodecs(rounds);
      return { text: codecTable(rows), figures: rows };
    },
  },
  profile: {
    about: 'which functions of the sidecar spend the time, under each kind of load',
    async run(options) {
      const profiles = await profile(options);
      return { text: profileText(profiles), figures: profiles };
    },
  },
};

/** @param named `tools`, `client`, or the path of a program */
export function generatorOf(named: string): LoadGenerator {
  if (named === 'tools') return kafkaTools;
  return named === 'client' ? ownClient : externalGenerator(named);
}
