import { RookeryError } from './errors.ts';
import type { Schema, Topic } from './topic.ts';

/** Payloads to bytes and back. */
export interface Codec<T = unknown> {
  /** @throws RookeryError RK4002 for a payload that is not valid */
  encode(payload: T): Uint8Array;
  /** @throws RookeryError RK4001 for bytes that are no JSON, RK4002 for a payload that is not valid */
  decode(bytes: Buffer): T;
}

/** JSON; with a schema, checked on both sides, and an instance of the class on arrival. @throws RookeryError RK2002 */
export async function jsonCodec<T>(topic: Topic<T>): Promise<Codec<T>> {
  const check = topic.schema === null ? null : await checker(topic.schema, topic.name);
  return {
    encode(payload) {
      const text = JSON.stringify(check === null ? payload : check(payload));
      if (text === undefined)
        throw new RookeryError('RK4002', `${topic.name}: ${typeof payload} is nothing that JSON can say`, {
          topic: topic.name,
        });
      return Buffer.from(text);
    },
    decode(bytes) {
      let payload: T;
      try {
        payload = JSON.parse(bytes.toString('utf8')) as T;
      } catch (cause) {
        throw new RookeryError('RK4001', `${topic.name}: no JSON`, { topic: topic.name }, { cause });
      }
      return check === null ? payload : check(payload);
    },
  };
}

/** Makes an instance of the class out of a payload, or says what is wrong with it. */
async function checker<T>(schema: Schema<T>, topic: string): Promise<(payload: unknown) => T> {
  const { transformer, validator } = await load(topic);
  const storage = validator.getMetadataStorage();
  const rules = storage.getTargetValidationMetadatas(schema, '', true, false);
  for (const { constraintCls } of rules) {
    if (storage.getTargetValidatorConstraints(constraintCls).some(({ async }) => async))
      throw new RookeryError('RK2002', `topic '${topic}': ${schema.name} has an asynchronous validator`);
  }
  return (payload) => {
    if (typeof payload !== 'object' || payload === null || Array.isArray(payload))
      throw invalid(topic, [`a ${schema.name} is expected`]);
    const instance =
      payload instanceof schema ? payload : transformer.plainToInstance(schema, payload as object);
    const errors = validator.validateSync(instance as object);
    if (errors.length > 0)
      throw invalid(
        topic,
        errors.flatMap((error) => sentences(error, '')),
      );
    return instance;
  };
}

async function load(topic: string) {
  try {
    const [transformer, validator] = await Promise.all([
      import('class-transformer'),
      import('class-validator'),
    ]);
    return { transformer, validator };
  } catch (cause) {
    throw new RookeryError(
      'RK2002',
      `topic '${topic}' has a schema, which needs the packages class-validator and class-transformer`,
      { topic },
      { cause },
    );
  }
}

interface Violation {
  readonly property: string;
  readonly constraints?: Record<string, string>;
  readonly children?: readonly Violation[];
}

function sentences({ constraints = {}, children = [], property }: Violation, path: string): string[] {
  const own = Object.values(constraints).map((sentence) => `${path}${sentence}`);
  return [...own, ...children.flatMap((child) => sentences(child, `${path}${property}.`))];
}

const invalid = (topic: string, violations: readonly string[]): RookeryError =>
  new RookeryError('RK4002', `${topic}: ${violations.join('; ')}`, { topic, violations });
