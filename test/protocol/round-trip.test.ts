import { ByteReader, ByteWriter, decoderOf, encoderOf, walkDecode, walkEncode } from '@rookery/wire';
import type { Message } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { arbitraryMessage } from './arbitrary-message.ts';
import { messages, versionsOf } from './messages.ts';
import { Random } from './random.ts';

/** Override to look for more: `ROOKERY_SEED=7 npx vitest run test/protocol`. */
const seed = Number(process.env['ROOKERY_SEED'] ?? 1);
const valuesPerVersion = 25;

const walked = (message: Message, version: number, value: object): Buffer => {
  const writer = new ByteWriter();
  walkEncode(message, version, writer, value);
  return writer.join();
};

const compiled = (message: Message, version: number, value: object): Buffer => {
  const writer = new ByteWriter();
  encoderOf(message, version)(writer, value);
  return writer.join();
};

/** Decodes all of the bytes, or says with a code why not. */
function decode(message: Message, version: number, bytes: Buffer): unknown {
  const reader = new ByteReader(bytes, 100_000);
  const value = decoderOf(message, version)(reader);
  reader.end();
  return value;
}

describe.each(messages.map((message) => [message.name, message] as const))('%s', (_, message) => {
  test.each(versionsOf(message))(
    `version %i: walker and compiler agree, and what is written reads back (seed ${seed})`,
    (version) => {
      const random = new Random(seed * 1000 + version);
      for (let i = 0; i < valuesPerVersion; i++) {
        const value = arbitraryMessage(message, version, random);
        const bytes = walked(message, version, value);
        expect(compiled(message, version, value).equals(bytes)).toBe(true);
        expect(decode(message, version, bytes)).toEqual(value);
        expect(walkDecode(message, version, new ByteReader(bytes))).toEqual(value);
      }
    },
  );
});
