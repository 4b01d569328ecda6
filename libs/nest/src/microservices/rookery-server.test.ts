import {
  Controller,
  Inject,
  Injectable,
  Module,
  UseInterceptors,
  UsePipes,
  ValidationPipe,
  type CallHandler,
  type DynamicModule,
  type ExecutionContext,
  type INestApplicationContext,
  type NestInterceptor,
  type Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  ClientsModule,
  Ctx,
  EventPattern,
  MessagePattern,
  Payload,
  type ClientProxy,
} from '@nestjs/microservices';
import { sidecar } from '@rookery/kafka';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { IsInt } from 'class-validator';
import { EMPTY, firstValueFrom, type Observable } from 'rxjs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  backoff,
  Rookery,
  RookeryModule,
  topic,
  type RookeryContext,
  type RookeryOptions,
} from '../index.ts';
import { RookeryClient, RookeryRecord, RookeryServer } from './index.ts';

let broker: SidecarProcess;
beforeAll(async () => void (broker = await startSidecar()));
afterAll(async () => void (await broker.stop()));

const open: INestApplicationContext[] = [];
afterEach(async () => {
  for (const app of open.splice(0)) await app.close();
});

let topics = 0;
const freshTopic = (): string => `events-${++topics}`;
const soon = { timeout: 30_000 };
const optionsFor = (service: string): RookeryOptions => ({
  service,
  connections: { default: sidecar(broker.url) },
});

/** An application that emits: its client is Nest's own, configured the way Nest has it. */
async function emitter(): Promise<ClientProxy> {
  @Module({
    imports: [
      ClientsModule.register([
        { name: 'EVENTS', customClass: RookeryClient, options: optionsFor('emitter') as object },
      ]),
    ],
  })
  class App {}
  const app = await NestFactory.createApplicationContext(App, { logger: false });
  open.push(app);
  return app.get<ClientProxy>('EVENTS');
}

const kinds: Record<string, (service: string, controllers: Type[], lines: string[]) => Promise<void>> = {
  createMicroservice: async (service, controllers, lines) => {
    @Module({})
    class App {}
    const module: DynamicModule = { module: App, controllers };
    const app = await NestFactory.createMicroservice(module, {
      strategy: new RookeryServer(optionsFor(service)),
      logger: keep(lines),
    });
    open.push(app);
    await app.listen();
  },
  hybrid: async (service, controllers, lines) => {
    @Module({})
    class App {}
    const module: DynamicModule = {
      module: App,
      controllers,
      imports: [RookeryModule.forRoot(optionsFor(service))],
    };
    const app = await NestFactory.create(module, { logger: keep(lines) });
    open.push(app);
    app.connectMicroservice({ strategy: new RookeryServer(app.get(Rookery)) });
    await app.startAllMicroservices();
    await app.listen(0, '127.0.0.1');
  },
  'hybrid, started after its application': async (service, controllers, lines) => {
    @Module({})
    class App {}
    const module: DynamicModule = {
      module: App,
      controllers,
      imports: [RookeryModule.forRoot(optionsFor(service))],
    };
    const app = await NestFactory.create(module, { logger: keep(lines) });
    open.push(app);
    app.connectMicroservice({ strategy: new RookeryServer(app.get(Rookery)) });
    await app.listen(0, '127.0.0.1');
    await app.startAllMicroservices();
  },
};

function keep(lines: string[]) {
  const line = (message: unknown, ...rest: unknown[]): void => {
    if (rest.at(-1) === 'Rookery') lines.push(String(message));
  };
  return { log: line, warn: line, error: line };
}

describe.each(Object.keys(kinds))('%s', (kind) => {
  test('@EventPattern handles what emit sends, with key, headers and position', async () => {
    const name = freshTopic();
    const seen: unknown[] = [];
    @Controller()
    class Handlers {
      @EventPattern<string>(name)
      handle(@Payload() payload: unknown, @Ctx() context: RookeryContext): void {
        seen.push([payload, context.key, context.headers, context.position]);
      }
    }
    await kinds[kind]!(name, [Handlers], []);
    const client = await emitter();
    const first = firstValueFrom(client.emit(name, { n: 1 }));
    // Nobody subscribes to this one.
    client.emit(name, new RookeryRecord({ n: 2 }, { key: 'k', headers: { h: 'v' } }));
    await expect(first).resolves.toMatchObject({ topic: name, partition: 0, offset: 0 });
    await expect
      .poll(() => seen, soon)
      .toEqual([
        [{ n: 1 }, undefined, {}, `${name}/0@0`],
        [{ n: 2 }, 'k', { h: 'v' }, `${name}/0@1`],
      ]);
  });

  test('pipes and interceptors run, observables are awaited, errors are retried, then skipped', async () => {
    const name = freshTopic();
    const journal: string[] = [];
    const lines: string[] = [];
    class Order {
      @IsInt() n!: number;
    }
    @Injectable()
    class Watch implements NestInterceptor {
      intercept(_: ExecutionContext, next: CallHandler): Observable<unknown> {
        journal.push('before');
        return next.handle();
      }
    }
    @Controller()
    @UseInterceptors(Watch)
    class Handlers {
      @EventPattern<string>(name, { retry: backoff({ attempts: 2, initial: 1 }) })
      @UsePipes(new ValidationPipe({ transform: true }))
      handle(@Payload() order: Order): Observable<never> {
        journal.push(`${order.constructor.name} ${order.n}`);
        if (order.n === 2) throw new TypeError('two');
        return EMPTY;
      }
    }
    // First: Nest has one logger, that of the last application.
    const client = await emitter();
    await kinds[kind]!(name, [Handlers], lines);
    for (const n of [1, 2, 'x', 3]) client.emit(name, { n });
    await expect.poll(() => journal.at(-1), soon).toBe('Order 3');
    const twice = ['before', 'Order 2', 'before', 'Order 2'];
    expect(journal).toEqual(['before', 'Order 1', ...twice, 'before', 'before', 'before', 'Order 3']);
    expect(lines.filter((line) => line.includes('skipped'))).toEqual([
      `@EventPattern('${name}') skipped ${name}/0@1 after 2 attempts: Error: Internal server error`,
      `@EventPattern('${name}') skipped ${name}/0@2 after 2 attempts: Error: Internal server error`,
    ]);
  });

  test('two handlers of one event are both called, and a group of its own sets one apart', async () => {
    const name = freshTopic();
    const seen: string[] = [];
    @Controller()
    class Handlers {
      @EventPattern<string>(name)
      first(): void {
        seen.push('first');
      }
      @EventPattern<string>(name)
      second(): void {
        seen.push('second');
      }
      @EventPattern<string>(name, { group: `${name}-apart` })
      third(@Ctx() { group }: RookeryContext): void {
        seen.push(group);
      }
    }
    await kinds[kind]!(name, [Handlers], []);
    (await emitter()).emit(name, {});
    await expect.poll(() => [...seen].sort(), soon).toEqual([`${name}-apart`, 'first', 'second']);
  });
});

test('a topic object is a pattern too, with its key', async () => {
  const orders = topic<{ id: string }>(freshTopic(), { key: ({ id }) => id });
  const seen: unknown[] = [];
  @Controller()
  class Handlers {
    @EventPattern(orders)
    handle(@Ctx() { key }: RookeryContext): void {
      seen.push(key);
    }
  }
  await kinds['createMicroservice']!(orders.name, [Handlers], []);
  (await emitter()).emit(orders, { id: 'o-1' });
  await expect.poll(() => seen, soon).toEqual(['o-1']);
});

test('a client may share the connections of the module', async () => {
  const name = freshTopic();
  @Module({
    imports: [
      RookeryModule.forRoot(optionsFor(name)),
      ClientsModule.registerAsync([
        {
          name: 'EVENTS',
          inject: [Rookery],
          useFactory: (rookery: Rookery) => ({ customClass: RookeryClient, options: rookery }),
        },
      ]),
    ],
  })
  class App {
    constructor(@Inject('EVENTS') readonly events: ClientProxy) {}
  }
  const app = await NestFactory.createApplicationContext(App, { logger: false });
  open.push(app);
  expect(app.get(App).events.unwrap()).toBe(app.get(Rookery));
  await expect(firstValueFrom(app.get(App).events.emit(name, {}))).resolves.toMatchObject({ offset: 0 });
});

test('what cannot be emitted is said in the log, also when nobody subscribes', async () => {
  const lines: string[] = [];
  @Module({
    imports: [
      ClientsModule.register([
        { name: 'EVENTS', customClass: RookeryClient, options: optionsFor('emitter') as object },
      ]),
    ],
  })
  class App {}
  const app = await NestFactory.createApplicationContext(App, { logger: keep(lines) });
  open.push(app);
  app.get<ClientProxy>('EVENTS').emit('no topic', {});
  await expect
    .poll(() => lines, soon)
    .toEqual([
      expect.stringMatching(/^an emitted event was not published: RookeryError: RK2002.*'no topic'/),
    ]);
});

test('requests that want a reply are refused, on both sides', async () => {
  const client = await emitter();
  await expect(firstValueFrom(client.send('sum', [1]))).rejects.toThrow(/^RK2001.*use emit/);
  @Controller()
  class Handlers {
    @MessagePattern('sum')
    sum(): number {
      return 1;
    }
  }
  await expect(kinds['createMicroservice']!('sums', [Handlers], [])).rejects.toThrow(
    /^RK2001.*use @EventPattern\('sum'\)/,
  );
});
