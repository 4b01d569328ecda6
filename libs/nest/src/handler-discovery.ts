import type { Type } from '@nestjs/common';
import { MetadataScanner, ModulesContainer } from '@nestjs/core';
import { subscriptionsOf, type Subscription } from './subscribe.ts';

/** One of Nest's providers or controllers, as its container keeps it. */
export type Host =
  ModulesContainer extends Map<string, infer M>
    ? M extends { controllers: Map<unknown, infer W> }
      ? W
      : never
    : never;

/** A decorated method and whose it is. */
export interface FoundHandler extends Subscription {
  readonly host: Host;
  readonly moduleKey: string;
  readonly type: Type;
  readonly method: string;
  /** `Class.method` */
  readonly name: string;
}

/** Every method with `@Subscribe`, on controllers and providers alike. */
export function findHandlers(modules: ModulesContainer): FoundHandler[] {
  const scanner = new MetadataScanner();
  const seen = new Set<unknown>();
  const found: FoundHandler[] = [];
  for (const [moduleKey, { controllers, providers }] of modules) {
    for (const host of [...controllers.values(), ...providers.values()] as Host[]) {
      // One instance may be provided under several tokens.
      const instance: unknown = host.isAlias ? null : host.instance;
      if (typeof instance !== 'object' || instance === null || seen.has(instance)) continue;
      const prototype = Object.getPrototypeOf(instance) as object | null;
      if (prototype === null || prototype === Object.prototype) continue;
      seen.add(instance);
      const type = prototype.constructor as Type;
      for (const method of scanner.getAllMethodNames(prototype)) {
        for (const { topic, options } of subscriptionsOf((prototype as Record<string, object>)[method]!))
          found.push({
            topic,
            options,
            host,
            moduleKey,
            type,
            method,
            name: options.name ?? `${type.name}.${method}`,
          });
      }
    }
  }
  return found;
}
