import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { peersScript } from '../support/kafka-process.ts';
import { requirePeer } from '../support/peers.ts';
import { readJar } from './jar.ts';

/**
 * Kafka's own definitions of its messages, as its jars carry them: JSON with comments, which the repository
 * never holds. They come from the jars that `scripts/peers.sh` installs, or from a directory of
 * such files that `KAFKA_MESSAGES` names.
 */

/** A field as Kafka's JSON has it; ranges are `4`, `2-5`, `3+` or `none`. */
export interface KafkaField {
  name: string;
  type: string;
  versions?: string;
  nullableVersions?: string;
  taggedVersions?: string;
  flexibleVersions?: string;
  tag?: number;
  default?: string | number | boolean;
  fields?: KafkaField[];
}

export interface KafkaDefinition {
  apiKey?: number;
  type: string;
  name: string;
  validVersions: string;
  flexibleVersions: string;
  latestVersionUnstable?: boolean;
  fields: KafkaField[];
  commonStructs?: { name: string; fields: KafkaField[] }[];
}

/**
 * Every definition by its name. Where the jars are missing the tests around the call are skipped with the reason,
 * or fail in CI, and there are none.
 */
export function kafkaDefinitions(): ReadonlyMap<string, KafkaDefinition> {
  const directory = process.env['KAFKA_MESSAGES'];
  if (directory === undefined && !requirePeer('kafka')) return new Map();
  const texts = directory === undefined ? textsInJars() : textsIn(directory);
  const definitions = texts.map((text) => JSON.parse(withoutComments(text)) as KafkaDefinition);
  return new Map(definitions.map((definition) => [definition.name, definition]));
}

const textsIn = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => name.endsWith('.json'))
    .map((name) => readFileSync(join(directory, name), 'utf8'));

/** The clients' jar has what is sent, the group coordinator's what is stored. */
const jarNames = /^kafka-(clients|group-coordinator)-[\d.]+\.jar$/;

function textsInJars(): string[] {
  const directory = spawnSync(peersScript, ['jars'], { encoding: 'utf8' }).stdout.trim();
  const jars = readdirSync(directory).filter((name) => jarNames.test(name));
  return jars.flatMap((jar) => {
    const files = readJar(join(directory, jar), (name) => /^common\/message\/\w+\.json$/.test(name));
    return [...files.values()].map((file) => file.toString('utf8'));
  });
}

/** Drops `//` comments, but not inside strings. */
const withoutComments = (json: string): string =>
  json.replace(/"(?:\\.|[^"\\])*"|\/\/[^\n]*/g, (piece) => (piece.startsWith('"') ? piece : ''));
