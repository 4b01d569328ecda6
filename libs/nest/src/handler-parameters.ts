import type { PipeTransform, Type } from '@nestjs/common';
import type { RookeryContext } from '@rookery/engine';
import 'reflect-metadata';
import { customArgument, routeArguments } from './nest-metadata.ts';

type Pipe = Type<PipeTransform> | PipeTransform;

/** What a parameter gets. The first two are Nest's own numbers, so its `@Payload()` and `@Ctx()` work here too. */
const kinds = { payload: 3, context: 6, key: 101, header: 102 } as const;

/** A parameter as Nest's decorators note it, by `kind:index`. */
interface Note {
  readonly index: number;
  readonly data?: unknown;
  readonly pipes: readonly unknown[];
  readonly schema?: unknown;
}

type Notes = Readonly<Record<string, Note>>;

/** The payload, or one property of it; pipes as elsewhere in Nest. */
export function Payload(...pipes: Pipe[]): ParameterDecorator;
export function Payload(property: string, ...pipes: Pipe[]): ParameterDecorator;
export function Payload(first?: string | Pipe, ...rest: Pipe[]): ParameterDecorator {
  if (typeof first === 'string') return parameter(kinds.payload, first, rest);
  return parameter(kinds.payload, undefined, first === undefined ? rest : [first, ...rest]);
}

/** What there is to know of the record beside its payload: a `RookeryContext`. */
export const Ctx = (): ParameterDecorator => parameter(kinds.context, undefined, []);

/** The record's key as text; undefined when it has none. */
export const Key = (...pipes: Pipe[]): ParameterDecorator => parameter(kinds.key, undefined, pipes);

/** A header as text; undefined when it is not there. Without a name, all of them. */
export const Header = (name?: string, ...pipes: Pipe[]): ParameterDecorator =>
  parameter(kinds.header, name, pipes);

/** Nest's own RPC handlers take their first argument for the payload; without this note no pipe would see it. */
export function notePayloadByDefault(target: object, method: string | symbol): void {
  if (Reflect.getMetadata(routeArguments, target.constructor, method) === undefined)
    parameter(kinds.payload, undefined, [])(target, method, 0);
}

/** Reads a parameter's value out of the two arguments of every handler. */
export const parameterValues = {
  exchangeKeyForValue(kind: number, data: unknown, [payload, context]: [unknown, RookeryContext]): unknown {
    switch (kind) {
      case kinds.payload:
        return typeof data === 'string' ? (payload as Record<string, unknown> | null)?.[data] : payload;
      case kinds.context:
        return context;
      case kinds.key:
        return context.key;
      case kinds.header:
        return typeof data === 'string' ? context.header(data) : context.headers;
      default:
        return null;
    }
  },
};

/** Whether a value of that kind is the framework's: pipes are for what came from outside. */
export const isContext = (kind: unknown): boolean => kind === kinds.context;

/**
 * How to call a method without any of Nest's machinery; null when a parameter needs it, for a pipe or a
 * decorator of its own.
 */
export function directCall(
  type: Type,
  method: string,
): ((of: object, run: Method, payload: unknown, context: RookeryContext) => unknown) | null {
  const notes = Reflect.getMetadata(routeArguments, type, method) as Notes;
  const parameters: { index: number; kind: number; data: unknown }[] = [];
  for (const [name, { index, data, pipes, schema }] of Object.entries(notes)) {
    if (name.includes(customArgument) || pipes.length > 0 || schema !== undefined) return null;
    parameters.push({ index, kind: Number(name.split(':')[0]), data });
  }
  parameters.sort((a, b) => a.index - b.index);
  const [first, second] = parameters;
  const isPlain = parameters.every(({ index, data }, at) => index === at && data === undefined);
  // The two shapes that nearly all handlers have do without an array for each record.
  if (isPlain && first?.kind === kinds.payload) {
    if (parameters.length === 1) return (of, run, payload) => run.call(of, payload);
    if (parameters.length === 2 && second?.kind === kinds.context)
      return (of, run, payload, context) => run.call(of, payload, context);
  }
  return (of, run, payload, context) => {
    const values: unknown[] = [];
    for (const { index, kind, data } of parameters)
      values[index] = parameterValues.exchangeKeyForValue(kind, data, [payload, context]);
    return run.apply(of, values);
  };
}

export type Method = (...values: unknown[]) => unknown;

function parameter(kind: number, data: unknown, pipes: readonly Pipe[]): ParameterDecorator {
  return (target, method, index) => {
    if (method === undefined) throw new TypeError('parameters of a handler, not of a constructor');
    const notes = (Reflect.getMetadata(routeArguments, target.constructor, method) ?? {}) as Notes;
    const note: Note = { index, data, pipes };
    Reflect.defineMetadata(
      routeArguments,
      { ...notes, [`${kind}:${index}`]: note },
      target.constructor,
      method,
    );
  };
}
