import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readJar } from './jar.ts';

/**
 * Kafka's own definitions of its messages, as its clients' jar carries them: JSON with comments, which the
 * repository never holds. They come from the jar that `scripts/peers.sh` installs, or from a directory of
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

const root = fileURLToPath(new URL('../..', import.meta.url));
const kafkaVersion = '4.3.1';

/** Where Kafka's jars lie, when they are installed. */
export function kafkaJars(): string | null {
  const found = spawnSync('bash', [join(root, 'scripts/peers.sh'), 'jars'], { encoding: 'utf8' });
  const directory = found.stdout.trim();
  return found.status === 0 && existsSync(clientsJar(directory)) ? directory : null;
}

const clientsJar = (directory: string): string => join(directory, `kafka-clients-${kafkaVersion}.jar`);

/** Every definition by its name; null when neither the jar nor a directory of them is there. */
export function kafkaDefinitions(): Map<string, KafkaDefinition> | null {
  const texts = definitionTexts();
  if (texts === null) return null;
  const definitions = texts.map((text) => JSON.parse(withoutComments(text)) as KafkaDefinition);
  return new Map(definitions.map((definition) => [definition.name, definition]));
}

function definitionTexts(): string[] | null {
  const directory = process.env['KAFKA_MESSAGES'];
  if (directory !== undefined) {
    const files = readdirSync(directory).filter((name) => name.endsWith('.json'));
    return files.map((name) => readFileSync(join(directory, name), 'utf8'));
  }
  const jars = kafkaJars();
  if (jars === null) return null;
  const files = readJar(clientsJar(jars), (name) => /^common\/message\/\w+\.json$/.test(name));
  return [...files.values()].map((file) => file.toString('utf8'));
}

/** Drops `//` comments, but not inside strings. */
const withoutComments = (json: string): string =>
  json.replace(/"(?:\\.|[^"\\])*"|\/\/[^\n]*/g, (piece) => (piece.startsWith('"') ? piece : ''));
