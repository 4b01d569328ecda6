import { Server, type CustomTransportStrategy, type MessageHandler } from '@nestjs/microservices';
import {
  Engine,
  RookeryError,
  type RookeryContext,
  type SubscribeOptions,
  type Topic,
} from '@rookery/engine';
import { isObservable, lastValueFrom } from 'rxjs';
import { nestLogger } from '../nest-logger.ts';
import type { RookeryOptions } from '../rookery.module.ts';
import { Rookery } from '../rookery.ts';
import { topicOf } from './topic-of-pattern.ts';

/** Marks handlers as this transport's where an application has several: `@EventPattern('orders', rookeryTransport)`. */
export const rookeryTransport = Symbol('rookery');

/** What `@EventPattern(topic, extras)` may say. */
export type EventExtras = Omit<SubscribeOptions, 'name'>;

interface Event {
  readonly topic: Topic | string;
  readonly extras: EventExtras;
  readonly handlers: MessageHandler[];
}

/**
 * Nest's transport over the engine: `@EventPattern` handlers get the records of a topic, in order, retried and
 * acknowledged as those of `@Subscribe` are. Nest hides what a handler threw from its transports, so here every
 * error counts as worth another attempt.
 *
 * Given the `Rookery` of a `RookeryModule` it uses that module's connections, and its handlers start after
 * everything has booted and end before anything is destroyed, which Nest grants no transport of its own.
 */
export class RookeryServer extends Server implements CustomTransportStrategy {
  override readonly transportId = rookeryTransport;
  /** What fails is reported by the engine. */
  override readonly propagatesEventHandlerErrors = true;
  readonly #engine: Engine;
  readonly #isShared: boolean;
  readonly #events: Event[] = [];

  /** @throws RookeryError RK2001, RK2002 */
  constructor(of: RookeryOptions | Rookery) {
    super();
    this.#isShared = of instanceof Rookery;
    this.#engine = of instanceof Rookery ? of.engine : new Engine(of, nestLogger());
  }

  override addHandler(
    pattern: unknown,
    handler: MessageHandler,
    isEventHandler = false,
    extras: EventExtras = {},
  ): void {
    const topic = topicOf(pattern);
    const name = typeof topic === 'string' ? topic : topic.name;
    if (!isEventHandler)
      throw new RookeryError(
        'RK2001',
        `@MessagePattern('${name}'): there are no replies; use @EventPattern('${name}')`,
      );
    // As Nest has it, handlers of the same events are called together.
    const { group, connection } = extras;
    const same = this.#events.find(
      (event) =>
        this.#engine.topic(event.topic).name === name &&
        event.extras.group === group &&
        event.extras.connection === connection,
    );
    if (same !== undefined) same.handlers.push(handler);
    else this.#events.push({ topic, extras, handlers: [handler] });
  }

  listen(callback: (error?: unknown) => void): void {
    this.#start().then(() => callback(), callback);
  }

  async close(): Promise<void> {
    await this.#engine.drain();
    if (!this.#isShared) await this.#engine.close();
  }

  on(): never {
    throw new Error('RookeryServer emits no events');
  }

  /** The engine underneath. */
  unwrap<T = Engine>(): T {
    return this.#engine as T;
  }

  async #start(): Promise<void> {
    for (const { topic, extras, handlers } of this.#events) {
      const name = `@EventPattern('${this.#engine.topic(topic).name}')`;
      const [first] = handlers;
      const handle =
        handlers.length === 1
          ? (payload: unknown, context: RookeryContext) => call(first!, payload, context)
          : (payload: unknown, context: RookeryContext) =>
              Promise.all(handlers.map((handler) => call(handler, payload, context)));
      this.#engine.subscribe(topic, handle, { ...extras, name });
    }
    // A shared engine starts with its module, after everything else has booted.
    if (!this.#isShared || this.#engine.hasStarted) await this.#engine.start();
  }
}

/** Resolves when the handler is done: what it returns may be an observable, which only runs when subscribed to. */
async function call(handler: MessageHandler, payload: unknown, context: RookeryContext): Promise<void> {
  try {
    const result: unknown = await handler(payload, context);
    if (isObservable(result)) await lastValueFrom(result, { defaultValue: undefined });
  } catch (error) {
    throw error instanceof Error ? error : new Error(messageOf(error), { cause: error });
  }
}

function messageOf(error: unknown): string {
  const { message } = (error ?? {}) as { message?: unknown };
  return typeof message === 'string' ? message : String(error);
}
