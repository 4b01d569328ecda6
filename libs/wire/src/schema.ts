/**
 * The words that a message table is written in. A table is a plain object of fields in wire order; what
 * varies by version is said on the field (`since`, `until`, `nullable`, `tagged`), and the encodings follow
 * from `flexibleFrom`: strings, bytes and arrays turn compact and tag buffers appear by themselves.
 */

/** Bytes that pass through the codec unread: a buffer, or a region of a file that only knows its length. */
export interface ByteSpan {
  readonly byteLength: number;
}

export type Kind =
  | 'bool'
  | 'int8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'float64'
  | 'uuid'
  | 'string'
  | 'bytes'
  | 'records'
  | 'array'
  | 'struct';

export type Fields = Readonly<Record<string, AnyField>>;
// oxlint-disable-next-line typescript/no-explicit-any -- variance: a table holds fields of every type
export type AnyField = Field<any, any, boolean>;

interface FieldShape {
  readonly kind: Kind;
  readonly sinceVersion: number;
  readonly untilVersion: number;
  /** The first version in which null may stand here; `null` when it never may. */
  readonly nullableFrom: number | null;
  readonly tag: number | null;
  /** The first version in which the field is tagged; before it, it stands in line. */
  readonly taggedFrom: number;
  readonly defaultValue: unknown;
  readonly element: AnyField | null;
  readonly fields: Fields | null;
}

/**
 * One field of a message. `Decoded` is what a decoder yields, `Encodable` what an encoder takes, and
 * `Optional` says whether an encoder may be given nothing, in which case the default is written.
 */
export class Field<Decoded, Encodable = Decoded, Optional extends boolean = false> implements FieldShape {
  readonly kind: Kind;
  readonly sinceVersion: number;
  readonly untilVersion: number;
  readonly nullableFrom: number | null;
  readonly tag: number | null;
  readonly taggedFrom: number;
  readonly defaultValue: unknown;
  readonly element: AnyField | null;
  readonly fields: Fields | null;
  declare readonly decoded: Decoded;
  declare readonly encodable: Encodable;
  declare readonly optional: Optional;

  constructor(shape: FieldShape) {
    this.kind = shape.kind;
    this.sinceVersion = shape.sinceVersion;
    this.untilVersion = shape.untilVersion;
    this.nullableFrom = shape.nullableFrom;
    this.tag = shape.tag;
    this.taggedFrom = shape.taggedFrom;
    this.defaultValue = shape.defaultValue;
    this.element = shape.element;
    this.fields = shape.fields;
  }

  /** The field exists from this version on; earlier versions decode to the default and drop it when encoding. */
  since(version: number): Field<Decoded, Encodable, true> {
    return new Field({ ...this, sinceVersion: version });
  }

  /** The field exists up to and including this version. */
  until(version: number): Field<Decoded, Encodable, true> {
    return new Field({ ...this, untilVersion: version });
  }

  /** Null is allowed from this version on. The default stays what it was: say `.default(null)` for null. */
  nullable(from = 0): Field<Decoded | null, Encodable | null, Optional> {
    return new Field({ ...this, nullableFrom: from });
  }

  /** What stands for a field that is absent, and what an encoder writes when it is given nothing. */
  default(value: Encodable): Field<Decoded, Encodable, true> {
    return new Field({ ...this, defaultValue: value });
  }

  /** The field travels in the tag buffer from `since` on, and is left out when it equals its default. */
  tagged(tag: number, since: number): Field<Decoded, Encodable, true> {
    const sinceVersion = Math.max(this.sinceVersion, this.sinceVersion === 0 ? since : this.sinceVersion);
    return new Field({ ...this, tag, taggedFrom: since, sinceVersion });
  }
}

function scalar<T, E = T>(kind: Kind, defaultValue: unknown): Field<T, E> {
  return new Field({
    kind,
    sinceVersion: 0,
    untilVersion: Infinity,
    nullableFrom: null,
    tag: null,
    taggedFrom: 0,
    defaultValue,
    element: null,
    fields: null,
  });
}

export const bool = scalar<boolean>('bool', false);
export const int8 = scalar<number>('int8', 0);
export const int16 = scalar<number>('int16', 0);
export const uint16 = scalar<number>('uint16', 0);
export const int32 = scalar<number>('int32', 0);
export const uint32 = scalar<number>('uint32', 0);
/** A 64-bit integer as a number; a value beyond ±2^53 is refused in both directions. */
export const int64 = scalar<number>('int64', 0);
export const float64 = scalar<number>('float64', 0);
/** 16 bytes, as Kafka prints them: 22 characters of unpadded URL-safe base64. */
export const uuid = scalar<string>('uuid', 'AAAAAAAAAAAAAAAAAAAAAA');
export const string = scalar<string>('string', '');
export const bytes = scalar<Buffer, Uint8Array>('bytes', new Uint8Array(0));
/** Record batches: the chunks they arrived in, or the spans they leave from. Never looked into here. */
export const records = scalar<readonly Buffer[], readonly ByteSpan[]>('records', []);

/** The topic id or uuid that means "none". */
export const zeroUuid = 'AAAAAAAAAAAAAAAAAAAAAA';

export type DecodedOf<F extends Fields> = { -readonly [K in keyof F]: F[K]['decoded'] };
type OptionalKeys<F extends Fields> = { [K in keyof F]: true extends F[K]['optional'] ? K : never }[keyof F];
export type EncodableOf<F extends Fields> = {
  [K in Exclude<keyof F, OptionalKeys<F>>]: F[K]['encodable'];
} & {
  [K in OptionalKeys<F>]?: F[K]['encodable'] | undefined;
};

export function struct<F extends Fields>(fields: F): Field<DecodedOf<F>, EncodableOf<F>> {
  return new Field({ ...scalar('struct', undefined), fields });
}

/** An array of a field, or of structs when given their fields. */
export function array<D, E>(element: Field<D, E, boolean>): Field<D[], readonly E[]>;
export function array<F extends Fields>(fields: F): Field<DecodedOf<F>[], readonly EncodableOf<F>[]>;
export function array(element: AnyField | Fields): AnyField {
  const of = element instanceof Field ? element : struct(element);
  return new Field({ ...scalar('array', []), element: of });
}

/** A message body in every version from `versions[0]` to `versions[1]`. */
export interface Message<F extends Fields = Fields> {
  readonly name: string;
  readonly versions: readonly [min: number, max: number];
  /** The first version with compact encodings and tag buffers; `Infinity` when there is none. */
  readonly flexibleFrom: number;
  readonly fields: F;
}

export type Decoded<M extends Message> = DecodedOf<M['fields']>;
export type Encodable<M extends Message> = EncodableOf<M['fields']>;

/** A request and its response under one API key. */
export interface Api<Q extends Fields = Fields, S extends Fields = Fields> {
  readonly key: number;
  readonly name: string;
  readonly versions: readonly [min: number, max: number];
  readonly flexibleFrom: number;
  readonly request: Message<Q>;
  readonly response: Message<S>;
}

export type Request<A extends Api> = Decoded<A['request']>;
export type Response<A extends Api> = Decoded<A['response']>;

export function message<F extends Fields>(table: {
  name: string;
  versions: readonly [number, number];
  flexibleFrom?: number;
  fields: F;
}): Message<F> {
  return { flexibleFrom: Infinity, ...table };
}

export function api<Q extends Fields, S extends Fields>(table: {
  key: number;
  name: string;
  versions: readonly [number, number];
  flexibleFrom?: number;
  request: Q;
  response: S;
}): Api<Q, S> {
  const { key, name, versions, flexibleFrom = Infinity } = table;
  return {
    key,
    name,
    versions,
    flexibleFrom,
    request: { name: `${name}Request`, versions, flexibleFrom, fields: table.request },
    response: { name: `${name}Response`, versions, flexibleFrom, fields: table.response },
  };
}

/** Whether the field is part of this version at all. */
export const exists = (field: AnyField, version: number): boolean =>
  version >= field.sinceVersion && version <= field.untilVersion;

export const isTagged = (field: AnyField, version: number): boolean =>
  field.tag !== null && version >= field.taggedFrom;

export const isNullable = (field: AnyField, version: number): boolean =>
  field.nullableFrom !== null && version >= field.nullableFrom;

/** What stands for the field when it is absent; a fresh value for structs and arrays. */
export function defaultOf(field: AnyField): unknown {
  if (field.defaultValue === null) return null;
  if (field.kind === 'array' || field.kind === 'records') return [];
  if (field.kind === 'bytes') return Buffer.alloc(0);
  if (field.kind === 'struct' && field.defaultValue === undefined) {
    return Object.fromEntries(Object.entries(field.fields!).map(([name, inner]) => [name, defaultOf(inner)]));
  }
  return field.defaultValue;
}

/** Whether a value is its field's default, so that a tagged field can be left out. */
export function isDefault(field: AnyField, value: unknown): boolean {
  if (value === undefined) return true;
  if (value === null || field.defaultValue === null) return value === field.defaultValue;
  if (field.kind === 'array' || field.kind === 'records') return (value as unknown[]).length === 0;
  if (field.kind === 'bytes') return (value as Uint8Array).length === 0;
  if (field.kind === 'struct') {
    const struct = value as Record<string, unknown>;
    return Object.entries(field.fields!).every(([name, inner]) => isDefault(inner, struct[name]));
  }
  return value === field.defaultValue;
}

const fixedSizes: Partial<Record<Kind, number>> = {
  bool: 1,
  int8: 1,
  int16: 2,
  uint16: 2,
  int32: 4,
  uint32: 4,
  int64: 8,
  float64: 8,
  uuid: 16,
};

/** Bytes of a field that always has the same size on the wire, else null. */
export const fixedSize = (field: AnyField): number | null => fixedSizes[field.kind] ?? null;

/** The fewest bytes one value can take, which is what a count is checked against before it is believed. */
export function minimumSize(field: AnyField, version: number, flexible: boolean): number {
  const fixed = fixedSize(field);
  if (fixed !== null) return fixed;
  if (field.kind === 'struct') {
    let size = flexible ? 1 : 0;
    if (isNullable(field, version)) return 1;
    for (const inner of Object.values(field.fields!)) {
      if (exists(inner, version) && !isTagged(inner, version)) size += minimumSize(inner, version, flexible);
    }
    return Math.max(1, size);
  }
  if (flexible) return 1;
  return field.kind === 'string' ? 2 : 4;
}
