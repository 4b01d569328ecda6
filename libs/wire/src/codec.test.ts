import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteReader } from './byte-reader.ts';
import { ByteWriter } from './byte-writer.ts';
import { decoderOf, encoderOf } from './compile.ts';
import { encodeMessage, decodeMessage } from './frame.ts';
import { offsetCommitValue } from './messages/group-records.ts';
import * as s from './schema.ts';
import { walkDecode, walkEncode } from './walk.ts';

/** One of every word, in every position that changes the encoding. */
const everything = s.message({
  name: 'Everything',
  versions: [0, 4],
  flexibleFrom: 2,
  fields: {
    flag: s.bool,
    tiny: s.int8,
    small: s.int16.default(-1),
    unsigned: s.uint16,
    medium: s.int32,
    wide: s.uint32,
    large: s.int64,
    real: s.float64,
    id: s.uuid,
    name: s.string,
    maybeName: s.string.nullable(1),
    later: s.int32.since(3).default(7),
    gone: s.int32.until(1),
    blob: s.bytes.nullable(),
    batches: s.records.nullable(),
    numbers: s.array(s.int32),
    words: s.array(s.string).nullable(1),
    inner: s.struct({ a: s.int16, b: s.string }),
    maybeInner: s.struct({ a: s.int16 }).nullable(3),
    list: s.array({ key: s.string, values: s.array({ at: s.int64 }) }),
    hint: s.int64.tagged(0, 2).default(-1),
    host: s.struct({ port: s.int32.default(-1), at: s.string }).tagged(1, 2),
    extra: s.array({ x: s.int32 }).tagged(2, 3),
    note: s.string.nullable(2).tagged(4, 2).default(null),
  },
});

type Value = s.Encodable<typeof everything>;

const sample: Value = {
  flag: true,
  tiny: -5,
  small: 300,
  unsigned: 65535,
  medium: -70000,
  wide: 4294967295,
  large: -1234567890123,
  real: 0.5,
  id: 'AQIDBAUGBwgJCgsMDQ4PEA',
  name: 'héllo',
  maybeName: 'x',
  later: 9,
  gone: 8,
  blob: Buffer.from('blob'),
  batches: [Buffer.alloc(3000, 1), Buffer.from([2, 3])],
  numbers: [1, 2, 3],
  words: ['a', ''],
  inner: { a: 1, b: 'b' },
  maybeInner: { a: 2 },
  list: [{ key: 'k', values: [{ at: 1 }, { at: -1 }] }],
  hint: 12,
  host: { port: 9, at: 'here' },
  extra: [{ x: 1 }],
  note: 'n',
};

const versions = [0, 1, 2, 3, 4];
const walked = (version: number, value: Value): Buffer => {
  const writer = new ByteWriter();
  walkEncode(everything, version, writer, value);
  return writer.join();
};

describe.each(versions)('version %i', (version) => {
  test('the compiler writes what the walker writes, and both read it back', () => {
    const bytes = walked(version, sample);
    expect(encodeMessage(everything, version, sample).equals(bytes)).toBe(true);
    const read = decodeMessage(everything, version, bytes);
    expect(read).toEqual(walkDecode(everything, version, new ByteReader(bytes)));
    expect(read.name).toBe('héllo');
    expect(read.large).toBe(-1234567890123);
    expect(read.later).toBe(version >= 3 ? 9 : 7);
    expect(read.gone).toBe(version <= 1 ? 8 : 0);
    expect(read.hint).toBe(version >= 2 ? 12 : -1);
    expect(Buffer.concat(read.batches!).length).toBe(3002);
  });

  test('a frame cut into chunks anywhere reads as the whole frame does', () => {
    const bytes = walked(version, sample);
    const whole = JSON.stringify(decodeMessage(everything, version, bytes), joined);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: bytes.length }), { maxLength: 12 }), (cuts) => {
        const edges = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const chunks = edges.slice(1).map((edge, i) => bytes.subarray(edges[i], edge));
        expect(JSON.stringify(decodeMessage(everything, version, chunks), joined)).toBe(whole);
      }),
    );
  });

  test('bytes cut short anywhere are a coded error', () => {
    const bytes = walked(version, sample);
    for (let length = 0; length < bytes.length; length++) {
      if (length > 200 && length < bytes.length - 200) continue;
      expect(() => decodeMessage(everything, version, bytes.subarray(0, length))).toThrow(/RK90/);
    }
  });
});

/** Record spans are the same bytes however they are cut. */
const joined = (key: string, value: unknown): unknown =>
  key === 'batches' && Array.isArray(value) ? Buffer.concat(value as Buffer[]).toString('hex') : value;

test('bytes after the last field are refused', () => {
  const bytes = Buffer.concat([walked(2, sample), Buffer.from([0])]);
  expect(() => decodeMessage(everything, 2, bytes)).toThrow(/RK9002/);
});

test('tagged fields at their default take no bytes', () => {
  const plain: Value = { ...sample, hint: -1, host: { port: -1, at: '' }, extra: [], note: null };
  expect(walked(3, sample).length - walked(3, plain).length).toBeGreaterThan(20);
  expect(encodeMessage(everything, 3, plain).equals(walked(3, plain))).toBe(true);
});

test('unknown tags are passed over', () => {
  const small = s.message({ name: 'Small', versions: [0, 0], flexibleFrom: 0, fields: { a: s.int8 } });
  const bytes = Buffer.from([1, 2, 3, 1, 99, 9, 0]);
  expect(decodeMessage(small, 0, bytes)).toEqual({ a: 1 });
  const swapped = Buffer.from([1, 2, 9, 0, 3, 0]);
  expect(() => decodeMessage(small, 0, swapped)).toThrow(/RK9010/);
});

test('null where it may not be is refused in both directions', () => {
  const required = s.message({
    name: 'Required',
    versions: [0, 1],
    flexibleFrom: 1,
    fields: { name: s.string },
  });
  expect(() => decodeMessage(required, 0, Buffer.from([0xff, 0xff]))).toThrow(/RK9008/);
  expect(() => encoderOf(required, 1)(new ByteWriter(), { name: null as never })).toThrow(/RK9008/);
});

test('a count is not believed before its bytes are there', () => {
  const list = s.message({ name: 'List', versions: [0, 0], fields: { list: s.array({ a: s.int64 }) } });
  const lie = Buffer.alloc(12);
  lie.writeInt32BE(0x7fffffff, 0);
  expect(() => decodeMessage(list, 0, lie)).toThrow(/RK9003/);
});

test('more elements than the reader allows are refused', () => {
  const list = s.message({ name: 'List', versions: [0, 0], fields: { list: s.array(s.int8) } });
  const bytes = encodeMessage(list, 0, { list: Array.from({ length: 100 }, () => 1) });
  expect(() => decoderOf(list, 0)(new ByteReader(bytes, 99))).toThrow(/RK9009/);
  expect(decoderOf(list, 0)(new ByteReader(bytes, 100)).list).toHaveLength(100);
});

test('an integer that a double cannot hold is an error, never another number', () => {
  const wide = s.message({ name: 'Wide', versions: [0, 0], fields: { n: s.int64 } });
  expect(decodeMessage(wide, 0, encodeMessage(wide, 0, { n: Number.MIN_SAFE_INTEGER })).n).toBe(
    Number.MIN_SAFE_INTEGER,
  );
  expect(() => decodeMessage(wide, 0, Buffer.from('7fffffffffffffff', 'hex'))).toThrow(/RK9004/);
  expect(() => encodeMessage(wide, 0, { n: 2 ** 53 })).toThrow(/RK9004/);
});

test('a string that is not UTF-8 is refused, a genuine replacement character is not', () => {
  const text = s.message({ name: 'Text', versions: [0, 0], fields: { t: s.string } });
  expect(() => decodeMessage(text, 0, Buffer.from([0, 1, 0xff]))).toThrow(/RK9005/);
  expect(decodeMessage(text, 0, encodeMessage(text, 0, { t: '\ufffd' })).t).toBe('\ufffd');
});

test('where code may not be made from strings, the walker does the work', () => {
  const program = `
    import { decodeMessage, encodeMessage, offsetCommitValue } from ${JSON.stringify(new URL('index.ts', import.meta.url).href)};
    try { new Function(''); throw new TypeError('code can be made'); } catch (error) { if (!(error instanceof EvalError)) throw error; }
    const bytes = encodeMessage(offsetCommitValue, 4, { offset: 5, metadata: 'm', commitTimestamp: 9 });
    console.log(bytes.toString('hex'), decodeMessage(offsetCommitValue, 4, bytes).offset);
  `;
  const flags = ['--disallow-code-generation-from-strings', '--input-type=module', '--eval', program];
  const printed = execFileSync(process.execPath, flags, { encoding: 'utf8' });
  const value = { offset: 5, metadata: 'm', commitTimestamp: 9 };
  expect(printed).toBe(`${encodeMessage(offsetCommitValue, 4, value).toString('hex')} 5\n`);
});
