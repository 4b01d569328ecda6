import { codecTable, compareCodecs } from './codec.ts';
import { compare, comparisonTable } from './comparison.ts';
import { contenders } from './contenders.ts';
import { externalGenerator } from './external-generator.ts';
import { kafkaTools } from './kafka-tools.ts';
import { byRow, median, shown, table, type Figure } from './figures.ts';
import { FullPageCache } from './full-page-cache.ts';
import { growth } from './growth.ts';
import type { LoadGenerator } from './load-generator.ts';
import { nestEndToEnd } from './nest.ts';
import { ownClient } from './own-client.ts';
import { profile, profileText } from './profile.ts';
import { restart, type RestartFigure } from './restart.ts';
import type { Sizes } from './sizes.ts';
import { upkeepEffect } from './upkeep.ts';

export interface SuiteOptions {
  readonly rounds: number;
  readonly only: string;
  readonly alone: boolean;
  readonly hasFullCache: boolean;
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
    async run({ alone, hasFullCache, ...options }) {
      const among = contenders.filter(({ name }) => !alone || name === 'Rookery');
      const pageCache = hasFullCache ? new FullPageCache() : null;
      const rows = await compare({ ...options, contenders: among, pageCache });
      pageCache?.empty();
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
  nest: {
    about: 'events of 200 bytes from one Nest service through a sidecar to the handlers of another',
    async run({ rounds, sizes }) {
      const figures: Figure[] = [];
      for (let round = 0; round < rounds; round++) figures.push(...(await nestEndToEnd(sizes.records)));
      return { text: medians(figures), figures };
    },
  },
  upkeep: {
    about: 'what retention and compaction do to acknowledgements',
    async run(options) {
      const figures = await upkeepEffect(options);
      return { text: medians(figures), figures };
    },
  },
  growth: {
    about: 'what a record costs while one log grows tenfold from 1 MB up to --gb',
    async run(options) {
      const figures = await growth(options);
      return { text: medians(figures), figures };
    },
  },
  restart: {
    about:
      'how soon a broker with large logs serves again, and one with many: after a kill and after an orderly stop',
    async run(options) {
      const figures = await restart(options);
      return { text: besideDue(figures), figures };
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

function medians(figures: readonly Figure[]): string {
  const rows = [...byRow(figures).values()].map((row) => {
    const { work, unit } = row[0]!;
    return [work, unit, shown(median(row.map(({ value }) => value)))];
  });
  return table(['work', 'unit', 'figure'], rows);
}

function besideDue(figures: readonly RestartFigure[]): string {
  const rows = [...byRow(figures).values()].map((row) => {
    const { work, unit } = row[0]!;
    const { due } = row[0] as RestartFigure;
    return [work, unit, shown(median(row.map(({ value }) => value))), due === null ? '' : `≤ ${shown(due)}`];
  });
  return table(['work', 'unit', 'figure', 'due'], rows);
}

/** @param named `tools`, `client`, or the path of a program */
export function generatorOf(named: string): LoadGenerator {
  if (named === 'tools') return kafkaTools;
  return named === 'client' ? ownClient : externalGenerator(named);
}
