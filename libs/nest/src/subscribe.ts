import { RookeryError, type SubscribeOptions, type Topic } from '@rookery/engine';
import 'reflect-metadata';
import { notePayloadByDefault } from './handler-parameters.ts';
import { entryProvider } from './nest-metadata.ts';

/** What `@Subscribe` says of a method. */
export interface Subscription {
  readonly topic: Topic<never> | string;
  readonly options: SubscribeOptions;
}

const subscriptions = 'rookery:subscriptions';

/**
 * Handles the records of a topic: a method of a controller or provider. Guards, pipes, interceptors and filters
 * run as they do for HTTP. A record is done when the method's promise or observable is.
 */
export function Subscribe<T>(topic: Topic<T> | string, options: SubscribeOptions = {}): MethodDecorator {
  return (target, method, descriptor) => {
    const handle = descriptor.value as object | undefined;
    if (typeof target === 'function' || typeof handle !== 'function' || typeof method !== 'string')
      throw new RookeryError('RK2002', `@Subscribe on ${String(method)}, which is no method of an instance`);
    const own: Subscription = { topic: topic as unknown as Topic<never> | string, options };
    Reflect.defineMetadata(subscriptions, [own, ...subscriptionsOf(handle)], handle);
    Reflect.defineMetadata(entryProvider, true, target.constructor);
    notePayloadByDefault(target, method);
  };
}

/** Several when the method is decorated more than once. */
export const subscriptionsOf = (method: object): readonly Subscription[] =>
  (Reflect.getMetadata(subscriptions, method) as readonly Subscription[] | undefined) ?? [];
