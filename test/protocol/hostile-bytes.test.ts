import { isDeepStrictEqual } from 'node:util';
import {
  ByteReader,
  ByteWriter,
  decoderOf,
  walkDecode,
  walkEncode,
  WireError,
  type Message,
} from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { arbitraryMessage } from './arbitrary-message.ts';
import { messages, versionsOf } from './messages.ts';
import { Random } from './random.ts';

/** Override to look for more: `ROOKERY_SEED=7 npx vitest run test/protocol`. */
const seed = Number(process.env['ROOKERY_SEED'] ?? 1);

/** What stands for a length, a count or a number where it does the most harm. */
const extremes = [
  '7fffffff',
  'ffffffff',
  '80000000',
  'ffffffff0f',
  'ffffffffff',
  '7fffffffffffffff',
  '00',
].map((hex) => Buffer.from(hex, 'hex'));

const positionsMax = 60;

describe.each(messages.map((message) => [message.name, message] as const))('%s', (_, message) => {
  test.each(versionsOf(message))(`version %i (seed ${seed})`, (version) => {
    const random = new Random(seed * 3000 + version);
    const bytes = sample(message, version, random);

    for (const length of positions(bytes.length, random)) {
      expect(() => decode(message, version, bytes.subarray(0, length))).toThrow(/RK900[1358]/);
    }
    expect(() => decode(message, version, Buffer.concat([bytes, Buffer.from([0])]))).toThrow(/RK9002/);

    for (const position of numbersIn(message, version, bytes)) {
      const wide = Buffer.from(bytes);
      wide.writeBigInt64BE(2n ** 53n, position);
      expect(() => decode(message, version, wide)).toThrow(/RK9004/);
    }

    for (const position of positions(bytes.length, random)) {
      for (const extreme of extremes) outcome(message, version, overwritten(bytes, position, extreme));
      outcome(message, version, overwritten(bytes, position, Buffer.from([random.below(256)])));
    }
  });
});

/** A message in which every kind of field has something in it, and which is not too long to try every byte. */
function sample(message: Message, version: number, random: Random): Buffer {
  let best: Buffer | null = null;
  for (let i = 0; i < 20; i++) {
    const writer = new ByteWriter();
    walkEncode(message, version, writer, arbitraryMessage(message, version, random));
    const bytes = writer.join();
    if (best === null || Math.abs(bytes.length - 400) < Math.abs(best.length - 400)) best = bytes;
  }
  return best!;
}

/** Every position, or as many as there is time for, the first ones among them. */
function positions(length: number, random: Random): number[] {
  if (length <= positionsMax) return Array.from({ length }, (_, i) => i);
  return Array.from({ length: positionsMax }, (_, i) => (i < positionsMax / 3 ? i : random.below(length)));
}

/** Where the 64-bit numbers stand. */
function numbersIn(message: Message, version: number, bytes: Buffer): number[] {
  const found: number[] = [];
  walkDecode(message, version, new ByteReader(bytes), (_, kind, position) => {
    if (kind === 'int64') found.push(position);
  });
  return found;
}

function overwritten(bytes: Buffer, position: number, by: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  by.copy(copy, position);
  return copy;
}

function decode(message: Message, version: number, bytes: Buffer): unknown {
  const reader = new ByteReader(bytes);
  const value = decoderOf(message, version)(reader);
  reader.end();
  return value;
}

/**
 * Hostile bytes are a coded error or a value, the same for walker and compiler, and a value has no more
 * elements than there were bytes to make them of.
 */
function outcome(message: Message, version: number, bytes: Buffer): void {
  const compiled = valueOrError(() => decode(message, version, bytes));
  const walked = valueOrError(() => {
    const reader = new ByteReader(bytes);
    const value = walkDecode(message, version, reader);
    reader.end();
    return value;
  });
  if (compiled instanceof WireError) {
    if (!(walked instanceof WireError))
      expect.unreachable(`only the compiler refuses ${bytes.toString('hex')}`);
    return;
  }
  // Thousands of comparisons a version: `expect` alone would take most of the time.
  if (!isDeepStrictEqual(walked, compiled)) expect(walked).toEqual(compiled);
  expect(elementsIn(compiled)).toBeLessThanOrEqual(bytes.length);
}

function valueOrError(decode: () => unknown): unknown {
  try {
    return decode();
  } catch (error) {
    if (error instanceof WireError) return error;
    throw error;
  }
}

function elementsIn(value: unknown): number {
  if (Array.isArray(value)) return value.reduce<number>((sum, one) => sum + elementsIn(one), value.length);
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return 0;
  return Object.values(value).reduce<number>((sum, one) => sum + elementsIn(one), 0);
}
