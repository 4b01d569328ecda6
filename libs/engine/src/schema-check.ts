import { RookeryError } from './errors.ts';
import type { Schema } from './topic.ts';

type Values = Record<string, unknown>;

/** One property's decorators, as far as calling them directly comes to what class-validator comes to. */
interface Property {
  readonly name: string;
  /** `@IsOptional`, `@ValidateIf`: all must hold, or the rest does not count. */
  readonly conditions: readonly ((of: object, value: unknown) => boolean)[];
  readonly rules: readonly { readonly validate: Validate; readonly constraints: readonly unknown[] }[];
}

type Validate = (value: unknown, args: object) => boolean;
type Library = Awaited<ReturnType<typeof load>>;

/**
 * Makes an instance of the class out of a payload, or says what is wrong with it. The payload itself stays as it
 * is; properties without decorators pass.
 *
 * class-transformer and class-validator look up their decorators for every object, 12 µs for a small one. What
 * plain classes need of them is read once and done in under 1 µs; they are asked themselves for everything else,
 * and for the wording of what is wrong.
 *
 * @throws RookeryError RK2002
 */
export async function schemaCheck<T>(schema: Schema<T>, topic: string): Promise<(payload: unknown) => T> {
  const library = await load(topic);
  const { transformer, validator } = library;
  const rules = rulesOf(library, schema, topic);
  const properties = directRules(library, schema, rules);
  const make = directInstance(library, schema);
  return (payload) => {
    if (typeof payload !== 'object' || payload === null || Array.isArray(payload))
      throw invalid(topic, [`a ${schema.name} is expected`]);
    const instance = (
      payload instanceof schema
        ? payload
        : make === null
          ? transformer.plainToInstance(schema, payload as object)
          : make(payload as Values)
    ) as T & Values;
    if (properties !== null && holds(schema.name, instance, properties)) return instance;
    const violations = validator.validateSync(instance as object).flatMap((error) => sentences(error, ''));
    if (violations.length > 0) throw invalid(topic, violations);
    return instance;
  };
}

function rulesOf({ storage }: Library, schema: Schema<unknown>, topic: string) {
  const rules = storage.getTargetValidationMetadatas(schema, '', false, false);
  if (rules.length === 0)
    throw new RookeryError('RK2002', `topic '${topic}': ${schema.name} has no class-validator decorators`);
  for (const { constraintCls } of rules) {
    if (storage.getTargetValidatorConstraints(constraintCls).some(({ async }) => async))
      throw new RookeryError('RK2002', `topic '${topic}': ${schema.name} has an asynchronous validator`);
  }
  return rules;
}

/** Null when a decorator does more than judge one value. */
function directRules(
  { storage, kinds }: Library,
  schema: Schema<unknown>,
  rules: ReturnType<typeof rulesOf>,
): readonly Property[] | null {
  const isDirect = rules.every(
    ({ type, each, validateIf }) =>
      (type === kinds.CUSTOM_VALIDATION || type === kinds.CONDITIONAL_VALIDATION) &&
      !each &&
      validateIf === undefined,
  );
  if (!isDirect) return null;
  return [...Map.groupBy(rules, ({ propertyName }) => propertyName)].map(([name, of]) => ({
    name,
    conditions: of.flatMap(({ type, constraints }) =>
      type === kinds.CONDITIONAL_VALIDATION ? [constraints[0] as Property['conditions'][number]] : [],
    ),
    rules: of.flatMap(({ type, constraintCls, constraints }) =>
      type !== kinds.CUSTOM_VALIDATION
        ? []
        : storage.getTargetValidatorConstraints(constraintCls).map(({ instance }) => ({
            validate: (value: unknown, args: object) => instance.validate(value, args as never) === true,
            constraints,
          })),
    ),
  }));
}

function holds(targetName: string, object: Values, properties: readonly Property[]): boolean {
  for (const { name, conditions, rules } of properties) {
    const value = object[name];
    let counts = true;
    for (const condition of conditions) counts = counts && condition(object, value);
    if (!counts) continue;
    for (const { validate, constraints } of rules)
      if (!validate(value, { targetName, property: name, object, value, constraints })) return false;
  }
  return true;
}

/** Null when class-transformer has something to do: a decorator of its own, or an accessor to respect. */
function directInstance<T>(
  { transforms }: Library,
  schema: Schema<T>,
): ((payload: Values) => T & Values) | null {
  const reserved = new Set<string>();
  for (let of: object | null = schema.prototype as object; of !== null; of = Object.getPrototypeOf(of)) {
    if (of !== Object.prototype && transforms(of.constructor)) return null;
    for (const [name, { get, set }] of Object.entries(Object.getOwnPropertyDescriptors(of))) {
      if (of !== Object.prototype && (get !== undefined || set !== undefined)) return null;
      reserved.add(name);
    }
  }
  return (payload) => {
    const instance = new schema() as T & Values;
    // A payload may be called anything: what a class or every object has of its own stays.
    for (const name of Object.keys(payload))
      if (!reserved.has(name)) (instance as Values)[name] = payload[name];
    return instance;
  };
}

async function load(topic: string) {
  try {
    const [transformer, validator, transforms] = await Promise.all([
      import('class-transformer'),
      import('class-validator'),
      transformLookup(),
    ]);
    return {
      transformer,
      validator,
      storage: validator.getMetadataStorage(),
      kinds: validator.ValidationTypes,
      transforms,
    };
  } catch (cause) {
    throw new RookeryError(
      'RK2002',
      `topic '${topic}' has a schema, which needs the packages class-validator and class-transformer`,
      { topic },
      { cause },
    );
  }
}

/**
 * Whether a class has decorators of class-transformer. It does not say so openly; where its storage is not as it
 * is known to be, every class counts as one that has.
 */
async function transformLookup(): Promise<(type: unknown) => boolean> {
  const path = 'class-transformer/cjs/storage.js';
  const module = (await import(path).catch(() => null)) as { defaultMetadataStorage?: Values } | null;
  const storage = module?.defaultMetadataStorage;
  const maps = ['_typeMetadatas', '_transformMetadatas', '_exposeMetadatas', '_excludeMetadatas'].map(
    (name) => storage?.[name],
  );
  return (type) => maps.some((map) => !(map instanceof Map) || map.has(type));
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
