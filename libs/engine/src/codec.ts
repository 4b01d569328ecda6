import { RookeryError } from './errors.ts';
import { schemaCheck } from './schema-check.ts';
import type { Topic } from './topic.ts';

/** Payloads to bytes and back. */
export interface Codec<T = unknown> {
  /** @throws RookeryError RK4002 for a payload that is not valid */
  encode(payload: T): Uint8Array;
  /** @throws RookeryError RK4001 for bytes that are no JSON, RK4002 for a payload that is not valid */
  decode(bytes: Buffer): T;
}

/** JSON; with a schema, checked on both sides, and an instance of the class on arrival. @throws RookeryError RK2002 */
export async function jsonCodec<T>({ name, schema }: Topic<T>): Promise<Codec<T>> {
  const check = schema === null ? null : await schemaCheck(schema, name);
  return {
    encode(payload) {
      const valid = check === null ? payload : check(payload);
      let text: string | undefined;
      try {
        text = JSON.stringify(valid);
      } catch (cause) {
        throw new RookeryError('RK4002', `${name}: no JSON of it`, { topic: name }, { cause });
      }
      if (text === undefined)
        throw new RookeryError('RK4002', `${name}: ${typeof payload} is nothing that JSON can say`, {
          topic: name,
        });
      return Buffer.from(text);
    },
    decode(bytes) {
      let payload: T;
      try {
        payload = JSON.parse(bytes.toString('utf8')) as T;
      } catch (cause) {
        throw new RookeryError('RK4001', `${name}: no JSON`, { topic: name }, { cause });
      }
      return check === null ? payload : check(payload);
    },
  };
}
