import { catalogue, legacyProduce, type AnyField, type Fields, type Message } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { differences, stableVersions } from './drift.ts';
import { kafkaDefinitions, type KafkaDefinition, type KafkaField } from './kafka-definitions.ts';
import { messages } from './messages.ts';

/** What Kafka 4 refuses to read has no definition there: Produce below version 3. */
const current = messages.filter(
  (message) => message !== legacyProduce.request && message !== legacyProduce.response,
);

describe("Kafka's own definitions", () => {
  const definitions = kafkaDefinitions();

  test.each(current.map((message) => [message.name, message] as const))(
    '%s is as Kafka defines it',
    (_, message) => {
      const definition = definitions.get(message.name);
      expect(definition, 'a definition of that name').toBeDefined();
      // Only requests say that their last version is not served yet; responses follow them.
      const request = definitions.get(message.name.replace(/Response$/, 'Request'))!;
      expect(differences(message, definition!, stableVersions(request)[1])).toEqual([]);
    },
  );

  test.each(catalogue.map((api) => [api.name, api] as const))('%s has its API key', (name, api) => {
    expect(definitions.get(`${name}Request`)).toMatchObject({ apiKey: api.key, type: 'request' });
    expect(definitions.get(`${name}Response`)).toMatchObject({ apiKey: api.key, type: 'response' });
    expect(stableVersions(definitions.get(`${name}Request`)!)).toEqual(api.versions);
  });

  test('frame headers are as the code that reads and writes them has them', () => {
    const request = definitions.get('RequestHeader')!;
    expect(request).toMatchObject({ validVersions: '1-2', flexibleVersions: '2+' });
    expect(request.fields.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'RequestApiKey int16',
      'RequestApiVersion int16',
      'CorrelationId int32',
      'ClientId string',
    ]);
    expect(request.fields[3]).toMatchObject({ nullableVersions: '1+', flexibleVersions: 'none' });
    const response = definitions.get('ResponseHeader')!;
    expect(response).toMatchObject({ validVersions: '0-1', flexibleVersions: '1+' });
    expect(response.fields.map(({ name, type }) => `${name} ${type}`)).toEqual(['CorrelationId int32']);
  });
});

describe('a planted difference is named', () => {
  test.each(messages.map((message) => [message.name, message] as const))('%s', (_, message) => {
    expect(differences(message, inKafkasWords(message))).toEqual([]);
    for (const [what, plant] of Object.entries(plants)) {
      for (let n = 0; ; n++) {
        const definition = inKafkasWords(message);
        const field = fieldsOf(definition.fields)[n];
        if (field === undefined) break;
        if (!plant(field, message)) continue;
        const found = differences(message, definition);
        expect(found, `${what}: ${field.name}`).not.toEqual([]);
        expect(found.join()).toContain(message.name);
      }
    }
  });

  test('other versions, another flexible version, another order', () => {
    const { response: message } = catalogue[0]!;
    const definition = inKafkasWords(message);
    expect(differences(message, { ...definition, validVersions: '3-14' })).toEqual([
      'ProduceResponse: versions 3 to 13, Kafka has 3 to 14',
    ]);
    expect(differences(message, { ...definition, flexibleVersions: '10+' })).toEqual([
      "ProduceResponse: flexible from 9, Kafka's from 10",
    ]);
    const fields = definition.fields.toReversed();
    expect(differences(message, { ...definition, fields }).join()).toMatch(
      /fields in line are \[responses throttleTimeMs\], Kafka has \[throttleTimeMs responses\]/,
    );
  });
});

/** Each changes one field of a definition, or says that the change would not be one. */
const plants: Record<string, (field: KafkaField, message: Message) => boolean> = {
  name: (field) => Boolean((field.name += 'X')),
  type(field) {
    field.type = field.type === 'int32' ? 'int64' : field.type.startsWith('[]') ? 'string' : 'int32';
    delete field.default;
    return true;
  },
  'no longer in the last version'(field, { versions: [, max] }) {
    const [since, until] = field
      .versions!.split(/[-+]/)
      .map((text) => (text === '' ? Infinity : Number(text)));
    if (since! >= max || (until ?? since)! < max) return false;
    field.versions = `${since}-${max - 1}`;
    return true;
  },
  nullability(field, { versions: [, max] }) {
    if (!field.versions!.endsWith('+')) return false;
    field.nullableVersions = field.nullableVersions === 'none' ? `${max}+` : 'none';
    return true;
  },
  default(field) {
    if (!/^(u?int\d+)$/.test(field.type)) return false;
    field.default = 4711;
    return true;
  },
  tag(field) {
    if (field.tag === undefined) return false;
    field.tag += 20;
    return true;
  },
  'in line instead of tagged'(field) {
    if (field.tag === undefined) return false;
    delete field.taggedVersions;
    return true;
  },
};

const fieldsOf = (fields: readonly KafkaField[]): KafkaField[] =>
  fields.flatMap((field) => [field, ...fieldsOf(field.fields ?? [])]);

/** A table of ours in the notation of Kafka's definitions. */
function inKafkasWords({ name, versions, flexibleFrom, fields }: Message): KafkaDefinition {
  return {
    type: 'data',
    name,
    validVersions: versions.join('-'),
    flexibleVersions: flexibleFrom === Infinity ? 'none' : `${flexibleFrom}+`,
    fields: fieldsInKafkasWords(fields),
  };
}

const fieldsInKafkasWords = (fields: Fields, lastVersion = Infinity): KafkaField[] =>
  Object.entries(fields).map(([name, field]) => fieldInKafkasWords(name, field, lastVersion));

function fieldInKafkasWords(name: string, field: AnyField, lastVersion: number): KafkaField {
  const last = Math.min(field.untilVersion, lastVersion);
  const until = last === Infinity ? '+' : `-${last}`;
  const inner = field.fields ?? field.element?.fields;
  return {
    name: name[0]!.toUpperCase() + name.slice(1),
    type: typeInKafkasWords(field),
    versions: `${field.sinceVersion}${until}`,
    nullableVersions: field.nullableFrom === null ? 'none' : `${field.nullableFrom}+`,
    ...(field.tag === null ? {} : { tag: field.tag, taggedVersions: `${field.taggedFrom}+` }),
    ...(field.defaultValue === null ? { default: 'null' } : {}),
    ...(/^(number|boolean|string)$/.test(typeof field.defaultValue)
      ? { default: field.defaultValue as number | boolean | string }
      : {}),
    ...(inner == null ? {} : { fields: fieldsInKafkasWords(inner, last) }),
  };
}

function typeInKafkasWords(field: AnyField): string {
  if (field.kind === 'array') return `[]${typeInKafkasWords(field.element!)}`;
  return field.kind === 'struct' ? 'Struct' : field.kind;
}
