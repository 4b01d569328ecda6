import type { ByteReader } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';
import { WireError } from './errors.ts';
import type { AnyField, ByteSpan, Decoded, Encodable, Fields, Message } from './schema.ts';
import { defaultOf, exists, isDefault, isNullable, isTagged, minimumSize } from './schema.ts';

/**
 * The reference codec: it walks a message's table value by value. It is what the tables mean; the compiler
 * (`compile.ts`) must agree with it byte for byte, and takes its place wherever speed counts.
 */

/** Told of every value as it is read: where it stands, how long it is, what it says. */
export type Trace = (path: string, kind: string, position: number, size: number, value: unknown) => void;

interface Walk {
  readonly version: number;
  readonly flexible: boolean;
  readonly trace: Trace | undefined;
  /** Bytes of the message, from which positions are counted. */
  readonly size: number;
}

export function walkDecode<M extends Message>(
  message: M,
  version: number,
  reader: ByteReader,
  trace?: Trace,
): Decoded<M> {
  const walk = { version, flexible: version >= message.flexibleFrom, trace, size: reader.remaining };
  return decodeFields(walk, reader, message.fields, message.name) as Decoded<M>;
}

export function walkEncode<M extends Message>(
  message: M,
  version: number,
  writer: ByteWriter,
  value: Encodable<M>,
): void {
  const walk = { version, flexible: version >= message.flexibleFrom, trace: undefined, size: 0 };
  encodeFields(walk, writer, message.fields, value as Record<string, unknown>, message.name);
}

function decodeFields(walk: Walk, reader: ByteReader, fields: Fields, path: string): Record<string, unknown> {
  const struct: Record<string, unknown> = {};
  for (const [name, field] of Object.entries(fields)) {
    const inLine = exists(field, walk.version) && !isTagged(field, walk.version);
    struct[name] = inLine ? decodeValue(walk, reader, field, `${path}.${name}`) : defaultOf(field);
  }
  if (walk.flexible) decodeTags(walk, reader, fields, struct, path);
  return struct;
}

function decodeTags(
  walk: Walk,
  reader: ByteReader,
  fields: Fields,
  struct: Record<string, unknown>,
  path: string,
): void {
  const known = taggedFields(fields, walk.version);
  let last = -1;
  for (let left = reader.count(reader.uvarint(), 2); left > 0; left--) {
    last = reader.tag(last);
    const entry = known.find(([, field]) => field.tag === last);
    if (entry === undefined) {
      reader.skipTag(last);
      continue;
    }
    const [name, field] = entry;
    const size = reader.tagSize();
    const after = reader.remaining - size;
    struct[name] = decodeValue(walk, reader, field, `${path}.${name}`);
    reader.tagEnd(after);
  }
}

function decodeValue(walk: Walk, reader: ByteReader, field: AnyField, path: string): unknown {
  const position = walk.size - reader.remaining;
  const value = readValue(walk, reader, field, path);
  if (value === null && !isNullable(field, walk.version)) throw new WireError('RK9008', path);
  walk.trace?.(path, field.kind, position, walk.size - reader.remaining - position, value);
  return value;
}

function readValue(walk: Walk, reader: ByteReader, field: AnyField, path: string): unknown {
  switch (field.kind) {
    case 'string':
      return reader.text(walk.flexible ? reader.uvarint() - 1 : reader.int16());
    case 'bytes':
      return reader.bytes(walk.flexible ? reader.uvarint() - 1 : reader.int32());
    case 'records':
      return reader.spans(walk.flexible ? reader.uvarint() - 1 : reader.int32());
    case 'struct':
      if (isNullable(field, walk.version) && reader.int8() < 0) return null;
      return decodeFields(walk, reader, field.fields!, path);
    case 'array': {
      const element = field.element!;
      const length = walk.flexible ? reader.uvarint() - 1 : reader.int32();
      const count = reader.count(length, minimumSize(element, walk.version, walk.flexible));
      if (count < 0) return null;
      const values: unknown[] = [];
      for (let i = 0; i < count; i++) values.push(decodeValue(walk, reader, element, `${path}[${i}]`));
      return values;
    }
    default:
      return reader[field.kind]();
  }
}

function encodeFields(
  walk: Walk,
  writer: ByteWriter,
  fields: Fields,
  struct: Record<string, unknown>,
  path: string,
): void {
  for (const [name, field] of Object.entries(fields)) {
    if (!exists(field, walk.version) || isTagged(field, walk.version)) continue;
    encodeValue(walk, writer, field, given(field, struct[name]), `${path}.${name}`);
  }
  if (!walk.flexible) return;
  const present = taggedFields(fields, walk.version).filter(
    ([name, field]) => !isDefault(field, struct[name]),
  );
  writer.uvarint(present.length);
  for (const [name, field] of present) {
    const value = new ByteWriter(64);
    encodeValue(walk, value, field, struct[name], `${path}.${name}`);
    writer.uvarint(field.tag!);
    writer.uvarint(value.size);
    writer.spans(value.finish());
  }
}

function encodeValue(walk: Walk, writer: ByteWriter, field: AnyField, value: unknown, path: string): void {
  if (value === null && !isNullable(field, walk.version)) throw new WireError('RK9008', path);
  const { flexible } = walk;
  switch (field.kind) {
    case 'string':
      if (value === null) return flexible ? writer.uvarint(0) : writer.int16(-1);
      return flexible ? writer.compactText(value as string) : writer.text(value as string);
    case 'bytes': {
      if (value === null) return flexible ? writer.uvarint(0) : writer.int32(-1);
      const bytes = value as Uint8Array;
      if (flexible) writer.uvarint(bytes.length + 1);
      else writer.int32(bytes.length);
      return writer.bytes(bytes);
    }
    case 'records': {
      if (value === null) return flexible ? writer.uvarint(0) : writer.int32(-1);
      const spans = value as readonly ByteSpan[];
      if (flexible) writer.uvarint(sizeOf(spans) + 1);
      else writer.int32(sizeOf(spans));
      return writer.spans(spans);
    }
    case 'struct':
      if (isNullable(field, walk.version)) writer.int8(value === null ? -1 : 1);
      if (value !== null) encodeFields(walk, writer, field.fields!, value as Record<string, unknown>, path);
      return;
    case 'array': {
      if (value === null) return flexible ? writer.uvarint(0) : writer.int32(-1);
      const values = value as readonly unknown[];
      if (flexible) writer.uvarint(values.length + 1);
      else writer.int32(values.length);
      values.forEach((element, i) => encodeValue(walk, writer, field.element!, element, `${path}[${i}]`));
      return;
    }
    default:
      // The kinds left are the scalars, and the writer has a method of each one's name.
      return writer[field.kind](value as never);
  }
}

/** Tagged fields of this version, in the order of their tags, in which they must be written. */
export function taggedFields(fields: Fields, version: number): [string, AnyField][] {
  return Object.entries(fields)
    .filter(([, field]) => exists(field, version) && isTagged(field, version))
    .sort(([, a], [, b]) => a.tag! - b.tag!);
}

export function sizeOf(spans: readonly ByteSpan[]): number {
  let size = 0;
  for (const span of spans) size += span.byteLength;
  return size;
}

const given = (field: AnyField, value: unknown): unknown => (value === undefined ? defaultOf(field) : value);
