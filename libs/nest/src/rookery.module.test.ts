import {
  Controller,
  Get,
  Inject,
  Injectable,
  Module,
  type DynamicModule,
  type INestApplicationContext,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
  type OnModuleInit,
  type Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { sidecar } from '@rookery/kafka';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { IsInt, IsOptional } from 'class-validator';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  backoff,
  Ctx,
  Payload,
  Rookery,
  RookeryModule,
  Subscribe,
  topic,
  type RookeryContext,
  type RookeryOptions,
} from './index.ts';
import { RookeryServer } from './microservices/index.ts';

let broker: SidecarProcess;
beforeAll(async () => void (broker = await startSidecar()));
afterAll(async () => void (await broker.stop()));

const open: INestApplicationContext[] = [];
afterEach(async () => {
  for (const app of open.splice(0)) await app.close();
});

let topics = 0;
const freshTopic = (): string => `module-${++topics}`;
const soon = { timeout: 30_000 };

/** A logger that keeps the lines of one context. */
function keepLines(lines: string[], context = 'Rookery') {
  const keep = (message: unknown, ...rest: unknown[]): void => {
    if (rest.at(-1) === context) lines.push(String(message));
  };
  return { log: keep, warn: keep, error: keep };
}

function appOf(options: RookeryOptions, type: Type, more: Partial<DynamicModule> = {}): DynamicModule {
  @Module({})
  class App {}
  return {
    module: App,
    imports: [RookeryModule.forRoot(options), ...(more.imports ?? [])],
    controllers: more.controllers ?? [],
    providers: [type, ...(more.providers ?? [])],
  };
}

async function context(module: DynamicModule, lines: string[] = []): Promise<INestApplicationContext> {
  const app = await NestFactory.createApplicationContext(module, { logger: keepLines(lines) });
  open.push(app);
  return app;
}

const optionsFor = (service: string, more: Partial<RookeryOptions> = {}): RookeryOptions => ({
  service,
  connections: { default: sidecar(broker.url) },
  ...more,
});

describe('an application of each kind', () => {
  const boots: Record<string, (module: DynamicModule) => Promise<INestApplicationContext>> = {
    create: async (module) => {
      const app = await NestFactory.create(module, { logger: false });
      await app.listen(0, '127.0.0.1');
      return app;
    },
    createApplicationContext: (module) => NestFactory.createApplicationContext(module, { logger: false }),
    createMicroservice: async (module) => {
      const strategy = new RookeryServer(optionsFor('unused'));
      const app = await NestFactory.createMicroservice(module, { strategy, logger: false });
      await app.listen();
      return app;
    },
    hybrid: async (module) => {
      const app = await NestFactory.create(module, { logger: false });
      app.connectMicroservice({ strategy: new RookeryServer(app.get(Rookery)) });
      await app.startAllMicroservices();
      await app.listen(0, '127.0.0.1');
      return app;
    },
  };

  test.each(Object.keys(boots))(
    '%s: handlers run after everything has booted and end before anything is destroyed',
    async (kind) => {
      const name = freshTopic();
      const order: string[] = [];
      let release = (): void => {};
      const isHeld = new Promise<void>((resolve) => (release = resolve));

      @Injectable()
      class Database implements OnModuleInit, OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown {
        onModuleInit(): void {
          order.push('init');
        }
        async onApplicationBootstrap(): Promise<void> {
          await new Promise((resolve) => setTimeout(resolve, 50));
          order.push('boot');
        }
        onModuleDestroy(): void {
          order.push('destroy');
        }
        onApplicationShutdown(): void {
          order.push('shutdown');
        }
      }

      @Module({ providers: [Database], exports: [Database] })
      class DatabaseModule {}

      @Injectable()
      class Handlers {
        @Subscribe(name)
        async handle(): Promise<void> {
          order.push('handling');
          await isHeld;
          order.push('handled');
        }
      }

      // A record waits before the application is there.
      const publisher = await context(appOf(optionsFor(`${name}-publisher`), class {}));
      await publisher.get(Rookery).publish(name, {});

      const app = await boots[kind]!(appOf(optionsFor(name), Handlers, { imports: [DatabaseModule] }));
      await expect.poll(() => order, soon).toEqual(['init', 'boot', 'handling']);
      const closed = app.close();
      setTimeout(release, 100);
      await closed;
      expect(order).toEqual(['init', 'boot', 'handling', 'handled', 'destroy', 'shutdown']);
    },
  );
});

test('what a module publishes while it is destroyed still leaves, and after the shutdown nothing does', async () => {
  const name = freshTopic();
  let last: Promise<unknown> = Promise.resolve();
  @Injectable()
  class Late implements OnModuleDestroy {
    constructor(@Inject(Rookery) private readonly rookery: Rookery) {}
    onModuleDestroy(): void {
      last = this.rookery.publish(name, { late: true });
    }
  }
  const app = await context(appOf(optionsFor(name), Late));
  open.pop();
  const rookery = app.get(Rookery);
  await app.close();
  await expect(last).resolves.toMatchObject({ topic: name, offset: 0 });
  await expect(rookery.publish(name, {})).rejects.toThrow(/^RK1004/);
});

test('the options may come from a factory that takes its time', async () => {
  const name = freshTopic();
  const seen: unknown[] = [];
  @Injectable()
  class Handlers {
    @Subscribe(name)
    handle(payload: unknown): void {
      seen.push(payload);
    }
  }
  @Module({ providers: [{ provide: 'url', useValue: broker.url }], exports: ['url'] })
  class Config {}
  @Module({
    imports: [
      RookeryModule.forRootAsync({
        imports: [Config],
        inject: ['url'],
        useFactory: async (url: string) => {
          await new Promise((resolve) => setTimeout(resolve, 20));
          return { service: name, connections: { default: sidecar(url) } };
        },
      }),
    ],
    providers: [Handlers],
  })
  class App {}
  const app = await NestFactory.createApplicationContext(App, { logger: false });
  open.push(app);
  await app.get(Rookery).publish(name, { n: 1 });
  await expect.poll(() => seen, soon).toEqual([{ n: 1 }]);
});

describe('without its sidecar', () => {
  async function freePort(): Promise<number> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    return port;
  }

  test('a service boots, waits for it, and goes on after its restart', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'rookery-nest-'));
    const listen = `127.0.0.1:${await freePort()}`;
    const name = freshTopic();
    const seen: number[] = [];
    const lines: string[] = [];
    @Injectable()
    class Handlers {
      @Subscribe(name)
      handle({ n }: { n: number }): void {
        seen.push(n);
      }
    }
    const options = { service: name, connections: { default: sidecar(`tcp://${listen}`) } };
    const app = await context(appOf(options, Handlers), lines);
    const rookery = app.get(Rookery);
    const first = rookery.publish(name, { n: 1 });
    await expect
      .poll(() => lines, soon)
      .toContain(`connection 'default' (${listen}) is not there yet, waiting for it`);

    let late = await startSidecar({ dataDir, listen });
    try {
      await expect(first).resolves.toMatchObject({ offset: 0 });
      await expect.poll(() => seen, soon).toEqual([1]);

      await late.stop();
      const second = rookery.publish(name, { n: 2 });
      late = await startSidecar({ dataDir, listen });
      await expect(second).resolves.toMatchObject({ offset: 1 });
      await expect.poll(() => seen, soon).toEqual([1, 2]);
      // What was acknowledged before the restart does not come again.
      await rookery.publish(name, { n: 3 });
      await expect.poll(() => seen, soon).toEqual([1, 2, 3]);
    } finally {
      for (const each of open.splice(0)) await each.close();
      await late.stop();
      await rm(dataDir, { recursive: true, force: true });
    }
  });

  test('a message is given up after its time, and the service stops all the same', async () => {
    const url = `tcp://127.0.0.1:${await freePort()}`;
    const options = {
      service: 'lonely',
      connections: { default: sidecar(url) },
      publish: { timeout: 200 },
      shutdown: { drain: 300 },
    };
    const name = freshTopic();
    @Injectable()
    class Handlers {
      @Subscribe(name)
      handle(): void {}
    }
    const app = await context(appOf(options, Handlers));
    open.pop();
    const rookery = app.get(Rookery);
    await expect(rookery.publish(name, {})).rejects.toThrow(/^RK3001.*no broker in 200 ms/);
    const left = rookery.publish(name, {});
    const outcome = expect(left).rejects.toThrow(/^RK(1004|3001)/);
    await app.close();
    await outcome;
  });
});

describe('at boot', () => {
  async function refusal(options: Partial<RookeryOptions>, type: Type = class {}): Promise<string> {
    @Module({})
    class App {}
    const module: DynamicModule = {
      module: App,
      imports: [RookeryModule.forRoot(optionsFor('refused', options))],
      providers: [type],
    };
    const error: unknown = await NestFactory.createApplicationContext(module, {
      logger: false,
      abortOnError: false,
    }).then(
      async (app) => {
        await app.close();
        return null;
      },
      (reason: unknown) => reason,
    );
    return (error as Error | null)?.message ?? 'it booted';
  }

  const withOptions = (options: object): Type => {
    class Handlers {
      handle(): void {}
    }
    const method = Object.getOwnPropertyDescriptor(Handlers.prototype, 'handle')!;
    Subscribe('refused', options)(Handlers.prototype, 'handle', method);
    return Handlers;
  };

  test.each([
    [{ connection: 'other' }, /^RK2002.*Handlers.handle: connection: there is no 'other', only 'default'/],
    [{ group: '' }, /^RK2002.*Handlers.handle: group is empty/],
    [{ from: 'middle' }, /^RK2002.*Handlers.handle: from: 'middle' is neither/],
    [{ retry: { attempts: 0 } }, /^RK2002.*Handlers.handle: retry: not what backoff\(\) makes/],
  ])('the handler with the option %o is refused by name', async (options, message) => {
    expect(await refusal({}, withOptions(options))).toMatch(message);
  });

  test('two handlers of one topic in one group are refused', async () => {
    class Handlers {
      @Subscribe('twice')
      first(): void {}
      @Subscribe('twice')
      second(): void {}
    }
    expect(await refusal({}, Handlers)).toMatch(
      /^RK2002.*Handlers.second: group: Handlers.first handles 'twice' in group 'refused' already/,
    );
  });

  test('a service without a name, or without connections, is refused', async () => {
    expect(await refusal({ service: '' })).toMatch(/^RK2002.*service has no name/);
    expect(await refusal({ connections: {} })).toMatch(/^RK2002.*connections is empty/);
  });

  test('a driver that lacks what is asked for is refused', async () => {
    const whole = sidecar(broker.url);
    const poor = {
      name: 'poor',
      capabilities: { ...whole.capabilities, consumerGroups: false },
      connect: whole.connect.bind(whole),
    };
    expect(await refusal({ connections: { default: poor } }, withOptions({}))).toMatch(
      /^RK2001.*Handlers.handle: group: driver 'poor' has no consumer groups/,
    );
  });

  test('a schema that checks nothing is refused', async () => {
    class Bare {
      n!: number;
    }
    class Handlers {
      @Subscribe(topic('bare', { schema: Bare }))
      handle(): void {}
    }
    expect(await refusal({}, Handlers)).toMatch(/^RK2002.*Bare has no class-validator decorators/);
  });

  test('a second import of the module is refused', async () => {
    @Module({ imports: [RookeryModule.forRoot(optionsFor('other'))] })
    class Second {}
    @Module({ imports: [RookeryModule.forRoot(optionsFor('one')), Second] })
    class App {}
    await expect(
      NestFactory.createApplicationContext(App, { logger: false, abortOnError: false }),
    ).rejects.toThrow(/^RK2002.*imported twice/);
  });
});

test('an error is retried in line with growing pauses, then logged with its place and cause, and skipped', async () => {
  const name = freshTopic();
  const lines: string[] = [];
  const attempts: string[] = [];
  @Injectable()
  class Handlers {
    @Subscribe(name, { retry: backoff({ attempts: 3, initial: 1 }) })
    async handle(@Payload() { n }: { n: number }, @Ctx() { offset, attempt }: RookeryContext): Promise<void> {
      attempts.push(`${offset}#${attempt}`);
      await Promise.resolve();
      if (n === 1) throw new TypeError('no such column');
      if (n === 2 && attempt < 3) throw new Error('deadlock');
    }
  }
  const app = await context(appOf(optionsFor(name), Handlers), lines);
  const rookery = app.get(Rookery);
  await Promise.all([0, 1, 2, 3].map((n) => rookery.publish(name, { n })));
  // In order: what comes after a failing record waits for it.
  const expected = ['0#1', '1#1', '1#2', '1#3', '2#1', '2#2', '2#3', '3#1'];
  await expect.poll(() => attempts, soon).toEqual(expected);
  expect(lines).toContain(`Handlers.handle skipped ${name}/0@1 after 3 attempts: TypeError: no such column`);
  expect(lines.filter((line) => line.includes('skipped'))).toHaveLength(1);
});

test('payloads are checked where they leave and where they arrive, and stay as they were', async () => {
  class Reading {
    @IsInt() n!: number;
    @IsOptional() @IsInt() m?: number;
  }
  const readings = topic(freshTopic(), { schema: Reading });
  const seen: Reading[] = [];
  const lines: string[] = [];
  @Injectable()
  class Handlers {
    @Subscribe(readings)
    read(reading: Reading): void {
      seen.push(reading);
    }
  }
  const app = await context(appOf(optionsFor(readings.name), Handlers), lines);
  const rookery = app.get(Rookery);
  await expect(rookery.publish(readings, { n: 1.5 })).rejects.toMatchObject({
    code: 'RK4002',
    context: { violations: ['n must be an integer number'] },
  });
  const payload = Object.freeze({ n: 1, unknown: Object.freeze(['kept']) });
  await rookery.publish(readings, payload);
  // The same topic as code without the schema knows it.
  await rookery.publish(readings.name, { n: 'one' });
  await rookery.publish(readings, Object.assign(new Reading(), { n: 2, m: 3 }));
  await expect.poll(() => seen.length, soon).toBe(2);
  expect(seen.map((reading) => ({ ...reading }))).toEqual([
    { n: 1, unknown: ['kept'] },
    { n: 2, m: 3 },
  ]);
  for (const reading of seen) expect(reading).toBeInstanceOf(Reading);
  expect(lines.filter((line) => line.includes('skipped'))).toEqual([
    expect.stringMatching(
      new RegExp(
        `^Handlers.read skipped ${readings.name}/0@1 after one attempt: .*RK4002.*n must be an integer`,
      ),
    ),
  ]);
});

test('two services of one group share the partitions, each key with one of them and in order', async () => {
  const shared = topic<{ key: string; n: number }>(freshTopic(), { key: ({ key }) => key, partitions: 4 });
  const seen: { by: string; key: string; n: number }[] = [];
  const service = (by: string): DynamicModule => {
    @Injectable()
    class Handlers {
      @Subscribe(shared)
      handle({ key, n }: { key: string; n: number }): void {
        seen.push({ by, key, n });
      }
    }
    return appOf(optionsFor(shared.name), Handlers);
  };
  const lines: string[] = [];
  const first = await context(service('first'), lines);
  await context(service('second'), lines);
  await expect
    .poll(() => lines.filter((line) => / reads module-\d+ \d \d$/.test(line)).length, soon)
    .toBeGreaterThanOrEqual(2);

  const keys = Array.from({ length: 40 }, (_, index) => `key-${index}`);
  const rounds = 5;
  const rookery = first.get(Rookery);
  for (let n = 0; n < rounds; n++) await Promise.all(keys.map((key) => rookery.publish(shared, { key, n })));
  await expect.poll(() => seen.length, soon).toBe(keys.length * rounds);
  expect(new Set(seen.map(({ by }) => by))).toEqual(new Set(['first', 'second']));
  for (const [key, of] of Map.groupBy(seen, (each) => each.key)) {
    expect(new Set(of.map(({ by }) => by)), key).toHaveLength(1);
    expect(of.map(({ n }) => n)).toEqual([0, 1, 2, 3, 4]);
  }
});

test('requests over HTTP and records meet in one application', async () => {
  const name = freshTopic();
  @Controller()
  class Counter {
    count = 0;
    @Subscribe(name)
    handle(): void {
      this.count++;
    }
    @Get()
    get(): { count: number } {
      return { count: this.count };
    }
  }
  const app = await NestFactory.create(appOf(optionsFor(name), class {}, { controllers: [Counter] }), {
    logger: false,
  });
  open.push(app);
  await app.listen(0, '127.0.0.1');
  await app.get(Rookery).publish(name, {});
  const url = await app.getUrl();
  await expect.poll(async () => (await fetch(url)).json(), soon).toEqual({ count: 1 });
});
