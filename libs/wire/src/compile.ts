import type { ByteReader } from './byte-reader.ts';
import { safe } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';
import { WireError } from './errors.ts';
import type { AnyField, Decoded, Encodable, Fields, Message } from './schema.ts';
import { defaultOf, exists, fixedSize, isDefault, isNullable, isTagged, minimumSize } from './schema.ts';
import { sizeOf, taggedFields, walkDecode, walkEncode } from './walk.ts';

/**
 * Turns (table, version, direction) into straight-line code, once, at first use: version and flexibility are
 * resolved away and neighbouring fixed-width fields share one bounds check. About ten times the walker's
 * speed. Where code may not be made from strings, the walker does the work.
 */

export type Decoder<M extends Message> = (reader: ByteReader) => Decoded<M>;
export type Encoder<M extends Message> = (writer: ByteWriter, value: Encodable<M>) => void;

const decoders = new WeakMap<Message, (Decoder<Message> | undefined)[]>();
const encoders = new WeakMap<Message, (Encoder<Message> | undefined)[]>();

export function decoderOf<M extends Message>(message: M, version: number): Decoder<M> {
  const cached = decoders.get(message)?.[version];
  if (cached !== undefined) return cached as Decoder<M>;
  checkVersion(message, version);
  const source = decoderSource(message, version);
  const compiled =
    evaluate<Decoder<M>>(source, `${message.name}.v${version}.decode`) ??
    ((reader: ByteReader) => walkDecode(message, version, reader));
  remember(decoders, message, version, compiled as Decoder<Message>);
  return compiled;
}

export function encoderOf<M extends Message>(message: M, version: number): Encoder<M> {
  const cached = encoders.get(message)?.[version];
  if (cached !== undefined) return cached as Encoder<M>;
  checkVersion(message, version);
  const source = encoderSource(message, version);
  const compiled =
    evaluate<Encoder<M>>(source, `${message.name}.v${version}.encode`) ??
    ((writer: ByteWriter, value: Encodable<M>) => walkEncode(message, version, writer, value));
  remember(encoders, message, version, compiled as Encoder<Message>);
  return compiled;
}

function checkVersion(message: Message, version: number): void {
  const [min, max] = message.versions;
  if (!(version >= min && version <= max)) {
    throw new WireError('RK9006', `${message.name} has versions ${min} to ${max}, not ${version}`);
  }
}

function remember<T>(
  cache: WeakMap<Message, (T | undefined)[]>,
  message: Message,
  version: number,
  compiled: T,
): void {
  const versions = cache.get(message) ?? [];
  versions[version] = compiled;
  cache.set(message, versions);
}

/** What generated code may call, by the names it calls it. */
const runtime = {
  safe,
  sizeOf,
  isDefault,
  defaultOf,
  ByteWriter,
  nil(path: string): never {
    throw new WireError('RK9008', path);
  },
};

interface Source {
  /** Declarations and the outer function's body. */
  readonly code: string;
  /** Fields that generated code refers to at run time, as `fields[n]`. */
  readonly fields: AnyField[];
}

function evaluate<T>({ code, fields }: Source, name: string): T | null {
  const names = Object.keys(runtime);
  const text = `'use strict'; const {${names.join(', ')}} = runtime;\n${code}\n//# sourceURL=wire/${name}`;
  try {
    return new Function('runtime', 'fields', text)(runtime, fields) as T;
  } catch (error) {
    if (error instanceof EvalError) return null;
    throw error;
  }
}

/** Collects lines of generated code with names that never clash. */
class Generator {
  readonly functions: string[] = [];
  readonly fields: AnyField[] = [];
  readonly version: number;
  readonly flexible: boolean;
  #names = 0;

  constructor(version: number, flexible: boolean) {
    this.version = version;
    this.flexible = flexible;
  }

  name(prefix: string): string {
    return `${prefix}${this.#names++}`;
  }

  field(field: AnyField): string {
    return `fields[${this.fields.push(field) - 1}]`;
  }

  finish(entry: string): Source {
    return { code: `${this.functions.join('\n')}\nreturn ${entry};`, fields: this.fields };
  }
}

// Decoding ---------------------------------------------------------------------------------------

/** Exported for its tests: the generated text itself. */
export function decoderSource(message: Message, version: number): Source {
  const generator = new Generator(version, version >= message.flexibleFrom);
  return generator.finish(decodeStruct(generator, message.fields, message.name));
}

const getters: Partial<Record<string, (offset: number) => string>> = {
  bool: (at) => `v.getInt8(p + ${at}) !== 0`,
  int8: (at) => `v.getInt8(p + ${at})`,
  int16: (at) => `v.getInt16(p + ${at})`,
  uint16: (at) => `v.getUint16(p + ${at})`,
  int32: (at) => `v.getInt32(p + ${at})`,
  uint32: (at) => `v.getUint32(p + ${at})`,
  int64: (at) => `safe(v.getInt32(p + ${at}), v.getUint32(p + ${at + 4}))`,
  float64: (at) => `v.getFloat64(p + ${at})`,
  uuid: (at) => `r.chunk.toString('base64url', p + ${at}, p + ${at + 16})`,
};

/** Emits a function that decodes one struct; returns its name. */
function decodeStruct(generator: Generator, fields: Fields, path: string): string {
  const { version, flexible } = generator;
  const lines: string[] = ['let v, p;'];
  const locals = new Map<string, string>();
  let run: { local: string; field: AnyField }[] = [];
  const endRun = (): void => {
    lines.push(...decodeRun(run));
    run = [];
  };
  for (const [name, field] of Object.entries(fields)) {
    const local = generator.name('a');
    locals.set(name, local);
    if (!exists(field, version) || isTagged(field, version)) {
      lines.push(`let ${local} = ${defaultExpression(generator, field)};`);
    } else if (fixedSize(field) !== null) {
      run.push({ local, field });
    } else {
      endRun();
      lines.push(`let ${local};`, ...decodeVariable(generator, field, local, `${path}.${name}`));
    }
  }
  endRun();
  if (flexible) lines.push(...decodeTagBuffer(generator, fields, locals, path));
  const members = [...locals].map(([name, local]) => `${JSON.stringify(name)}: ${local}`);
  lines.push(`return { ${members.join(', ')} };`);
  const entry = generator.name('decode');
  generator.functions.push(`function ${entry}(r) {\n  ${lines.join('\n  ')}\n}`);
  return entry;
}

function decodeRun(run: readonly { local: string; field: AnyField }[]): string[] {
  if (run.length === 0) return [];
  let size = 0;
  const reads = run.map(({ local, field }) => {
    const read = `let ${local} = ${getters[field.kind]!(size)};`;
    size += fixedSize(field)!;
    return read;
  });
  return [`r.need(${size}); v = r.view; p = r.position; r.position = p + ${size};`, ...reads];
}

function decodeVariable(generator: Generator, field: AnyField, local: string, path: string): string[] {
  const { version, flexible } = generator;
  const nullable = isNullable(field, version);
  const refuseNull = nullable ? [] : [`if (${local} === null) nil(${JSON.stringify(path)});`];
  const longLength = flexible ? 'r.uvarint() - 1' : 'r.int32()';
  switch (field.kind) {
    case 'string':
      return [`${local} = r.text(${flexible ? 'r.uvarint() - 1' : 'r.int16()'});`, ...refuseNull];
    case 'bytes':
      return [`${local} = r.bytes(${longLength});`, ...refuseNull];
    case 'records':
      return [`${local} = r.spans(${longLength});`, ...refuseNull];
    case 'struct': {
      const decode = decodeStruct(generator, field.fields!, path);
      if (!nullable) return [`${local} = ${decode}(r);`];
      return [`${local} = r.int8() < 0 ? null : ${decode}(r);`];
    }
    case 'array': {
      const count = generator.name('n');
      const element = field.element!;
      const one = generator.name('e');
      const size = fixedSize(element);
      const decode =
        size === null
          ? decodeVariable(generator, element, one, `${path}[]`)
          : [
              `r.need(${size}); v = r.view; p = r.position; r.position = p + ${size};`,
              `${one} = ${getters[element.kind]!(0)};`,
            ];
      return [
        `const ${count} = r.count(${longLength}, ${minimumSize(element, version, flexible)});`,
        `if (${count} < 0) { ${nullable ? `${local} = null;` : `nil(${JSON.stringify(path)});`} } else {`,
        `  ${local} = [];`,
        `  for (let i = 0; i < ${count}; i++) { let ${one}; ${decode.join(' ')} ${local}.push(${one}); }`,
        '}',
      ];
    }
    default:
      return [...decodeScalar(field, local)];
  }
}

/** A fixed-width value that stands alone, as in a tagged field. */
const decodeScalar = (field: AnyField, local: string): string[] => {
  const size = fixedSize(field)!;
  return [
    `r.need(${size}); v = r.view; p = r.position; r.position = p + ${size};`,
    `${local} = ${getters[field.kind]!(0)};`,
  ];
};

function decodeTagBuffer(
  generator: Generator,
  fields: Fields,
  locals: Map<string, string>,
  path: string,
): string[] {
  const known = taggedFields(fields, generator.version);
  if (known.length === 0) return ['r.skipTags();'];
  const cases = known.map(([name, field]) => {
    const read = decodeVariable(generator, field, locals.get(name)!, `${path}.${name}`);
    return `case ${field.tag}: { const after = r.tagSize(); const end = r.remaining - after; ${read.join(' ')} r.tagEnd(end); break; }`;
  });
  return [
    'let tag = -1;',
    'for (let left = r.count(r.uvarint(), 2); left > 0; left--) {',
    '  tag = r.tag(tag);',
    `  switch (tag) { ${cases.join(' ')} default: r.skipTag(tag); }`,
    '}',
  ];
}

/** Scalars stand as literals; what is mutable is made anew for each message. */
function defaultExpression(generator: Generator, field: AnyField): string {
  const value = defaultOf(field);
  if (value === null || typeof value !== 'object') return literal(value);
  if (Array.isArray(value)) return '[]';
  return `defaultOf(${generator.field(field)})`;
}

const literal = (value: unknown): string =>
  Object.is(value, undefined) ? 'undefined' : JSON.stringify(value);

// Encoding ---------------------------------------------------------------------------------------

/** Exported for its tests: the generated text itself. */
export function encoderSource(message: Message, version: number): Source {
  const generator = new Generator(version, version >= message.flexibleFrom);
  return generator.finish(encodeStruct(generator, message.fields, message.name));
}

const setters: Partial<Record<string, (at: number, value: string) => string>> = {
  bool: (at, value) => `v.setInt8(p + ${at}, ${value} ? 1 : 0);`,
  int8: (at, value) => `v.setInt8(p + ${at}, ${value});`,
  int16: (at, value) => `v.setInt16(p + ${at}, ${value});`,
  uint16: (at, value) => `v.setUint16(p + ${at}, ${value});`,
  int32: (at, value) => `v.setInt32(p + ${at}, ${value});`,
  uint32: (at, value) => `v.setUint32(p + ${at}, ${value});`,
  int64: (at, value) => `w.setInt64(p + ${at}, ${value});`,
  float64: (at, value) => `v.setFloat64(p + ${at}, ${value});`,
  uuid: (at, value) => `w.setUuid(p + ${at}, ${value});`,
};

/** Emits a function that encodes one struct; returns its name. */
function encodeStruct(generator: Generator, fields: Fields, path: string): string {
  const { version, flexible } = generator;
  const lines: string[] = ['let v, p;'];
  let run: { value: string; field: AnyField }[] = [];
  const endRun = (): void => {
    lines.push(...encodeRun(run));
    run = [];
  };
  for (const [name, field] of Object.entries(fields)) {
    if (!exists(field, version) || isTagged(field, version)) continue;
    const local = generator.name('a');
    const member = `x[${JSON.stringify(name)}]`;
    lines.push(
      `let ${local} = ${member}; if (${local} === undefined) ${local} = ${defaultExpression(generator, field)};`,
    );
    if (fixedSize(field) !== null) {
      run.push({ value: local, field });
    } else {
      endRun();
      lines.push(...encodeVariable(generator, field, local, `${path}.${name}`));
    }
  }
  endRun();
  if (flexible) lines.push(...encodeTagBuffer(generator, fields, path));
  const entry = generator.name('encode');
  generator.functions.push(`function ${entry}(w, x) {\n  ${lines.join('\n  ')}\n}`);
  return entry;
}

function encodeRun(run: readonly { value: string; field: AnyField }[]): string[] {
  if (run.length === 0) return [];
  let size = 0;
  const writes = run.map(({ value, field }) => {
    const write = setters[field.kind]!(size, value);
    size += fixedSize(field)!;
    return write;
  });
  return [`w.room(${size}); v = w.view; p = w.position; w.position = p + ${size};`, ...writes];
}

function encodeVariable(generator: Generator, field: AnyField, value: string, path: string): string[] {
  const { version, flexible } = generator;
  const nullable = isNullable(field, version);
  const nullLength = flexible ? 'w.uvarint(0)' : field.kind === 'string' ? 'w.int16(-1)' : 'w.int32(-1)';
  const length = (size: string): string => (flexible ? `w.uvarint(${size} + 1);` : `w.int32(${size});`);
  const orNull = (write: string): string[] => [
    `if (${value} === null) { ${nullable ? nullLength : `nil(${JSON.stringify(path)})`}; } else { ${write} }`,
  ];
  switch (field.kind) {
    case 'string':
      return orNull(`w.${flexible ? 'compactText' : 'text'}(${value});`);
    case 'bytes':
      return orNull(`${length(`${value}.length`)} w.bytes(${value});`);
    case 'records':
      return orNull(`${length(`sizeOf(${value})`)} w.spans(${value});`);
    case 'struct': {
      const encode = encodeStruct(generator, field.fields!, path);
      if (!nullable) return orNull(`${encode}(w, ${value});`);
      return [`w.int8(${value} === null ? -1 : 1); if (${value} !== null) ${encode}(w, ${value});`];
    }
    case 'array': {
      const element = field.element!;
      const one = generator.name('e');
      const encode = encodeVariable(generator, element, one, `${path}[]`).join(' ');
      return orNull(`${length(`${value}.length`)} for (const ${one} of ${value}) { ${encode} }`);
    }
    default:
      return [
        `w.room(${fixedSize(field)}); v = w.view; p = w.position; w.position = p + ${fixedSize(field)};`,
        setters[field.kind]!(0, value),
      ];
  }
}

function encodeTagBuffer(generator: Generator, fields: Fields, path: string): string[] {
  const known = taggedFields(fields, generator.version);
  if (known.length === 0) return ['w.uvarint(0);'];
  const lines = ['let tags = 0;'];
  const writes: string[] = [];
  for (const [name, field] of known) {
    const local = generator.name('t');
    const present = generator.name('has');
    lines.push(
      `const ${local} = x[${JSON.stringify(name)}]; const ${present} = !isDefault(${generator.field(field)}, ${local}); if (${present}) tags++;`,
    );
    const encode = generator.name('tagged');
    const body = encodeVariable(generator, field, 'x', `${path}.${name}`).join(' ');
    generator.functions.push(`function ${encode}(w, x) { let v, p; ${body} }`);
    writes.push(
      `if (${present}) { const value = new ByteWriter(64); ${encode}(value, ${local}); w.uvarint(${field.tag}); w.uvarint(value.size); w.spans(value.finish()); }`,
    );
  }
  return [...lines, 'w.uvarint(tags);', ...writes];
}
