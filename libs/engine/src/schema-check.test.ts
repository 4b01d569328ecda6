import { Exclude, plainToInstance, Transform, Type } from 'class-transformer';
import {
  IsArray,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  Length,
  Matches,
  Min,
  Validate,
  ValidateIf,
  ValidateNested,
  validateSync,
  ValidatorConstraint,
} from 'class-validator';
import * as fc from 'fast-check';
import 'reflect-metadata';
import { describe, expect, test } from 'vitest';
import type { RookeryError } from './errors.ts';
import { schemaCheck } from './schema-check.ts';
import type { Schema } from './topic.ts';

/** Decorators as calls: this package is compiled without them. */
function decorate(type: Schema<unknown>, properties: Record<string, PropertyDecorator[]>): void {
  for (const [name, decorators] of Object.entries(properties))
    for (const each of decorators) each(type.prototype as object, name);
}

class Base {
  id!: string;
}
decorate(Base, { id: [IsString(), Length(1, 3)] });

class Plain extends Base {
  n!: number;
  note?: string;
  kind = 'a';
  tags?: string[];
  only!: string;
}
decorate(Plain, {
  n: [IsInt(), Min(0)],
  note: [IsOptional(), Matches(/^x/)],
  kind: [IsIn(['a', 'b'])],
  tags: [IsOptional(), IsArray()],
  only: [ValidateIf((of: Plain) => of.kind === 'b'), IsString()],
});

class Each extends Base {
  tags!: string[];
}
decorate(Each, { tags: [IsString({ each: true })] });

class Nested extends Base {
  child!: Base;
}
decorate(Nested, { child: [ValidateNested(), Type(() => Base)] });

class Transformed extends Base {
  n!: number;
  secret?: string;
}
decorate(Transformed, { n: [Transform(({ value }) => Number(value)), IsInt()], secret: [Exclude()] });

class Accessors extends Base {
  #n = 0;
  get n(): number {
    return this.#n;
  }
  set n(value: number) {
    this.#n = value * 2;
  }
}
decorate(Accessors, { n: [IsInt()] });

const value = fc.oneof(
  fc.string({ maxLength: 4 }),
  fc.integer({ min: -2, max: 5 }),
  fc.double(),
  fc.constantFrom(null, true, 'x1', 'a', 'b', [], ['t'], [1], { id: 'ab' }, { id: 5 }),
);
const payload = fc.dictionary(
  fc.constantFrom(
    'id',
    'n',
    'note',
    'kind',
    'tags',
    'only',
    'child',
    'secret',
    'unknown',
    'toString',
    'constructor',
  ),
  value,
);

describe('comes to the very verdict of class-validator, and to the instance of class-transformer', () => {
  test.each([Plain, Each, Nested, Transformed, Accessors])('for %o', async (schema) => {
    const check = await schemaCheck<object>(schema, 'topic');
    fc.assert(
      fc.property(payload, (plain) => {
        const copy = structuredClone(plain);
        const instance = plainToInstance(schema as Schema<object>, plain);
        const isValid = validateSync(instance).length === 0;
        let made: object | null = null;
        try {
          made = check(plain);
        } catch (error) {
          expect((error as RookeryError).code).toBe('RK4002');
        }
        expect(made !== null).toBe(isValid);
        if (made !== null) {
          expect(made).toBeInstanceOf(schema);
          expect(JSON.stringify(made)).toBe(JSON.stringify(instance));
        }
        expect(plain).toEqual(copy);
      }),
      { numRuns: 500 },
    );
  });
});

test('says what is wrong, property by property, also within', async () => {
  const check = await schemaCheck(Nested, 'topic');
  const violations = (plain: unknown): unknown => {
    try {
      return check(plain);
    } catch (error) {
      return new Set((error as RookeryError).context.violations);
    }
  };
  expect(violations({ id: 5, child: { id: 'long one' } })).toEqual(
    new Set([
      'id must be a string',
      'id must be longer than or equal to 1 and shorter than or equal to 3 characters',
      'child.id must be shorter than or equal to 3 characters',
    ]),
  );
  for (const none of [null, 5, 'text', [], undefined])
    expect(violations(none)).toEqual(new Set(['a Nested is expected']));
});

test('a name that every object has does no harm', async () => {
  const check = await schemaCheck(Base, 'topic');
  const made = check(JSON.parse('{"id":"a","__proto__":{"id":7},"constructor":1,"hasOwnProperty":2}'));
  expect(Object.getPrototypeOf(made)).toBe(Base.prototype);
  expect(Object.keys(made)).toEqual(['id']);
});

test('an instance is checked as it is', async () => {
  const check = await schemaCheck(Base, 'topic');
  const base = Object.assign(new Base(), { id: 'a', more: 1 });
  expect(check(base)).toBe(base);
  expect(() => check(new Base())).toThrow(/^RK4002.*id must be a string/);
});

test('a class without decorators, and one that would have to wait for its verdict, are refused', async () => {
  class Bare {}
  await expect(schemaCheck(Bare, 'bare')).rejects.toThrow(/^RK2002.*Bare has no class-validator decorators/);
  class Later {
    validate(): Promise<boolean> {
      return Promise.resolve(true);
    }
  }
  ValidatorConstraint({ async: true })(Later);
  class Waits {
    n!: number;
  }
  decorate(Waits, { n: [Validate(Later)] });
  await expect(schemaCheck(Waits, 'waits')).rejects.toThrow(/^RK2002.*Waits has an asynchronous validator/);
});
