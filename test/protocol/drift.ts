import { exists, isNullable, isTagged, type AnyField, type Fields, type Message } from '@rookery/wire';
import type { KafkaDefinition, KafkaField } from './kafka-definitions.ts';

/**
 * What differs between one of our tables and Kafka's definition of the same message, in every version of the
 * table: fields and their order, types, nullability, tags, defaults, versions, flexibility. Each difference
 * is a sentence that names the version and the field.
 *
 * @param max the last version to expect, where the definition goes beyond what Kafka serves
 */
export function differences(
  message: Message,
  definition: KafkaDefinition,
  max = stableVersions(definition)[1],
): string[] {
  const structs = new Map(definition.commonStructs?.map(({ name, fields }) => [name, fields]));
  const found = new Differences(message.name);
  const [min] = stableVersions(definition);
  if (message.versions[0] !== min || message.versions[1] !== max) {
    found.add(null, '', `versions ${message.versions.join(' to ')}, Kafka has ${min} to ${max}`);
  }
  const [flexibleFrom] = range(definition.flexibleVersions);
  // A message whose last version is not flexible has no flexible version at all.
  if (message.flexibleFrom !== flexibleFrom && Math.min(message.flexibleFrom, flexibleFrom) <= max) {
    found.add(null, '', `flexible from ${message.flexibleFrom}, Kafka's from ${flexibleFrom}`);
  }
  for (let version = min; version <= max; version++) {
    compareStructs({ version, structs, found }, message.fields, definition.fields, '');
  }
  return found.sentences();
}

/** The versions that Kafka serves: one that it calls unstable is not among them. */
export function stableVersions(definition: KafkaDefinition): [number, number] {
  const [min, max] = range(definition.validVersions);
  return [min, definition.latestVersionUnstable === true ? max - 1 : max];
}

/** The first and last version of `4`, `2-5`, `3+` or `none`. */
function range(text: string | undefined): [number, number] {
  if (text === undefined || text === 'none') return [Infinity, -Infinity];
  const parts = /^(\d+)(?:(\+)|-(\d+))?$/.exec(text);
  if (parts === null) throw new Error(`a range of versions cannot be '${text}'`);
  const from = Number(parts[1]);
  if (parts[2] !== undefined) return [from, Infinity];
  return [from, parts[3] === undefined ? from : Number(parts[3])];
}

const includes = (text: string | undefined, version: number): boolean => {
  const [from, to] = range(text);
  return version >= from && version <= to;
};

/** Collects sentences, one for all versions that show the same difference. */
class Differences {
  readonly #name: string;
  readonly #versions = new Map<string, number[]>();

  constructor(name: string) {
    this.#name = name;
  }

  add(version: number | null, path: string, what: string): void {
    const key = path === '' ? what : `${path}: ${what}`;
    const versions = this.#versions.get(key) ?? [];
    if (version !== null) versions.push(version);
    this.#versions.set(key, versions);
  }

  sentences(): string[] {
    return [...this.#versions].map(([what, versions]) => {
      if (versions.length === 0) return `${this.#name}: ${what}`;
      return `${this.#name} v${versions.join(', v')}: ${what}`;
    });
  }
}

interface Comparison {
  readonly version: number;
  readonly structs: ReadonlyMap<string, KafkaField[]>;
  readonly found: Differences;
}

function compareStructs(at: Comparison, ours: Fields, theirs: readonly KafkaField[], path: string): void {
  const { version, found } = at;
  const present = Object.entries(ours).filter(([, field]) => exists(field, version));
  const expected = theirs.filter((field) => includes(field.versions ?? '0+', version));
  for (const [where, order, expectedOrder] of [
    [
      'in line',
      present.filter(([, field]) => !isTagged(field, version)).map(([name]) => name),
      expected.filter((field) => !isTaggedThere(field, version)).map(nameOf),
    ],
    [
      'tagged',
      present.filter(([, field]) => isTagged(field, version)).map(([name, { tag }]) => `${name}=${tag}`),
      expected
        .filter((field) => isTaggedThere(field, version))
        .map((field) => `${nameOf(field)}=${field.tag}`),
    ],
  ] as const) {
    // Tagged fields travel in the order of their tags, wherever they stand in a table.
    const [a, b] = where === 'tagged' ? [order.toSorted(), expectedOrder.toSorted()] : [order, expectedOrder];
    if (a.join() === b.join()) continue;
    found.add(version, path, `fields ${where} are [${a.join(' ')}], Kafka has [${b.join(' ')}]`);
  }
  for (const theirField of expected) {
    const name = nameOf(theirField);
    const field = ours[name];
    if (field !== undefined && exists(field, version)) {
      compareFields(at, field, theirField, path === '' ? name : `${path}.${name}`);
    }
  }
}

function compareFields(at: Comparison, field: AnyField, theirs: KafkaField, path: string): void {
  const { version, found } = at;
  const [type, expectedType] = [typeOf(field), typeThere(theirs.type)];
  if (type !== expectedType) return found.add(version, path, `${type}, Kafka has ${expectedType}`);
  const nullable = isNullable(field, version);
  if (nullable !== includes(theirs.nullableVersions, version)) {
    found.add(version, path, nullable ? 'null is allowed, not so in Kafka' : 'Kafka allows null');
  }
  const [value, expectedValue] = [field.defaultValue, defaultThere(theirs)];
  if (String(value) !== String(expectedValue)) {
    found.add(version, path, `the default is ${String(value)}, Kafka's ${String(expectedValue)}`);
  }
  const fields = field.fields ?? field.element?.fields;
  if (fields != null) compareStructs(at, fields, fieldsThere(theirs, at.structs), path);
}

/** Our names are Kafka's, beginning in lower case. */
const nameOf = ({ name }: KafkaField): string => name[0]!.toLowerCase() + name.slice(1);

const isTaggedThere = (field: KafkaField, version: number): boolean =>
  includes(field.taggedVersions, version);

const typeOf = (field: AnyField): string =>
  field.kind === 'array' ? `[]${typeOf(field.element!)}` : field.kind;

/** Kafka names its structs; a table of ours does not. */
function typeThere(type: string): string {
  if (type.startsWith('[]')) return `[]${typeThere(type.slice(2))}`;
  return /^[A-Z]/.test(type) ? 'struct' : type;
}

function fieldsThere(field: KafkaField, structs: ReadonlyMap<string, KafkaField[]>): readonly KafkaField[] {
  const fields = field.fields ?? structs.get(field.type.replace('[]', ''));
  if (fields === undefined) throw new Error(`${field.type} is defined nowhere`);
  return fields;
}

function defaultThere(field: KafkaField): unknown {
  const type = typeThere(field.type);
  if (String(field.default) === 'null') return null;
  // Arrays, bytes and records are empty, structs are made of their own defaults.
  if (type.startsWith('[]') || type === 'bytes' || type === 'records') return '';
  if (type === 'struct') return undefined;
  if (type === 'string') return field.default ?? '';
  if (type === 'uuid') return 'AAAAAAAAAAAAAAAAAAAAAA';
  if (type === 'bool') return String(field.default) === 'true';
  // Kafka's largest number stands for "no limit", as does ours: no double holds the other one.
  return Math.min(Number(field.default ?? 0), Number.MAX_SAFE_INTEGER);
}
