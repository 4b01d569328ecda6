import { defaultOf, exists, isNullable, type AnyField, type Fields, type Message } from '@rookery/wire';
import type { Random } from './random.ts';

const integers: Record<string, readonly number[]> = {
  int8: [-128, -1, 0, 1, 127],
  int16: [-32768, -1, 0, 3, 32767],
  uint16: [0, 1, 65535],
  int32: [-2147483648, -1, 0, 5, 2147483647],
  uint32: [0, 1, 4294967295],
  int64: [-9007199254740992 + 1, -1, 0, 1700000000000, 9007199254740991],
};

/** A value in which every field that the version has is set at random, and every other one is at its default. */
export function arbitraryMessage(message: Message, version: number, random: Random): Record<string, unknown> {
  return arbitraryStruct(message.fields, version, random);
}

function arbitraryStruct(fields: Fields, version: number, random: Random): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, field]) => {
      const leftOut = field.tag !== null && random.below(2) === 0;
      const present = exists(field, version) && !leftOut;
      return [name, present ? arbitraryValue(field, version, random) : defaultOf(field)];
    }),
  );
}

function arbitraryValue(field: AnyField, version: number, random: Random): unknown {
  if (isNullable(field, version) && random.below(4) === 0) return null;
  switch (field.kind) {
    case 'bool':
      return random.below(2) === 1;
    case 'float64':
      return random.next() * 1000;
    case 'uuid':
      return bytes(random, 16).toString('base64url');
    case 'string':
      return random.pick(['', 'a', 'topic-1', 'grüße', '漢字', 'x'.repeat(200)]);
    case 'bytes':
      return bytes(random, random.pick([0, 1, 20, 2000]));
    case 'records': {
      const size = random.pick([0, 1, 100, 3000]);
      return size === 0 ? [] : [bytes(random, size)];
    }
    case 'struct':
      return arbitraryStruct(field.fields!, version, random);
    case 'array':
      return Array.from({ length: random.pick([0, 1, 2, 5]) }, () =>
        arbitraryValue(field.element!, version, random),
      );
    default:
      return random.pick(integers[field.kind]!);
  }
}

function bytes(random: Random, size: number): Buffer {
  return Buffer.from(Array.from({ length: size }, () => random.below(256)));
}
