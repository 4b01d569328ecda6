import {
  BadRequestException,
  Catch,
  Controller,
  Inject,
  Injectable,
  Module,
  Scope,
  UseFilters,
  UseGuards,
  UseInterceptors,
  UsePipes,
  ValidationPipe,
  type CallHandler,
  type CanActivate,
  type DynamicModule,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
  type PipeTransform,
  type Provider,
  type Type,
} from '@nestjs/common';
import { APP_GUARD, APP_INTERCEPTOR, APP_PIPE, NestFactory, REQUEST } from '@nestjs/core';
import { sidecar } from '@rookery/kafka';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { IsInt } from 'class-validator';
import { EMPTY, of, tap, throwError, timer, type Observable } from 'rxjs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  backoff,
  Ctx,
  Header,
  Key,
  Payload,
  Rookery,
  RookeryContext,
  RookeryModule,
  Subscribe,
  type PublishTo,
} from './index.ts';

let broker: SidecarProcess;
beforeAll(async () => void (broker = await startSidecar()));
afterAll(async () => void (await broker.stop()));

/** What happened, in order. */
@Injectable()
class Journal {
  readonly lines: string[] = [];
  note(line: string): void {
    this.lines.push(line);
  }
}

@Injectable()
class Watch implements CanActivate, PipeTransform, NestInterceptor {
  constructor(@Inject(Journal) private readonly journal: Journal) {}

  canActivate(context: ExecutionContext): boolean {
    const { offset } = context.switchToRpc().getContext<RookeryContext>();
    this.journal.note(`guard @${offset}`);
    return true;
  }

  transform(value: { n: number }): { n: number } {
    this.journal.note(`pipe ${value.n}`);
    return value;
  }

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    this.journal.note(`before ${context.switchToRpc().getData<{ n: number }>().n}`);
    return next.handle().pipe(tap({ complete: () => this.journal.note('after') }));
  }
}

@Catch(TypeError)
@Injectable()
class Tell implements ExceptionFilter {
  constructor(@Inject(Journal) private readonly journal: Journal) {}

  catch(error: TypeError): never {
    this.journal.note(`filter ${error.message}`);
    throw error;
  }
}

let topics = 0;
const freshTopic = (): string => `pipeline-${++topics}`;
const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const app of open.splice(0)) await app.close();
});

interface Boot {
  readonly providers?: Provider[];
  readonly publish?: PublishTo;
}

/** Boots an application around one class of handlers and publishes; resolves with its journal. */
async function boot(
  kind: 'controller' | 'provider',
  type: Type,
  topic: string,
  payloads: readonly unknown[],
  { providers = [], publish = {} }: Boot = {},
): Promise<string[]> {
  const journal = new Journal();
  @Module({})
  class App {
    static whole(): DynamicModule {
      return {
        module: App,
        imports: [RookeryModule.forRoot({ service: topic, connections: { default: sidecar(broker.url) } })],
        controllers: kind === 'controller' ? [type] : [],
        providers: [
          { provide: Journal, useValue: journal },
          ...(kind === 'provider' ? [type] : []),
          ...providers,
        ],
      };
    }
  }
  const quiet = (): void => {};
  const app = await NestFactory.createApplicationContext(App.whole(), {
    logger: {
      log: quiet,
      warn: quiet,
      error: (message: unknown) => journal.note(String(message)),
    },
  });
  open.push(app);
  const rookery = app.get(Rookery);
  await Promise.all(payloads.map((payload) => rookery.publish(topic, payload, publish)));
  return journal.lines;
}

/** Waits until the journal reads so, and sees that nothing is added to it until the application has closed. */
async function reads(journal: readonly string[], expected: readonly string[]): Promise<void> {
  await expect.poll(() => journal.length, { timeout: 30_000 }).toBeGreaterThanOrEqual(expected.length);
  for (const app of open.splice(0)) await app.close();
  expect(journal).toEqual(expected);
}

const kinds = ['controller', 'provider'] as const;
const noRetry = { retry: backoff({ attempts: 1 }) };

describe.each(kinds)('on a %s', (kind) => {
  const host = (): ClassDecorator => (kind === 'controller' ? Controller() : Injectable());

  describe.each(['class', 'instance'] as const)('given as %s', (how) => {
    test.each(['class', 'method'] as const)('all enhancers of the %s run, in order', async (where) => {
      const topic = freshTopic();
      const journalHere = new Journal();
      const watch = how === 'class' ? Watch : new Watch(journalHere);
      const tell = how === 'class' ? Tell : new Tell(journalHere);
      const all = [UseGuards(watch), UseInterceptors(watch), UsePipes(watch), UseFilters(tell)];

      class Handlers {
        constructor(readonly journal: Journal) {}
        handle({ n }: { n: number }): void {
          this.journal.note(`handler ${n}`);
          if (n === 2) throw new TypeError('two');
        }
      }
      Inject(Journal)(Handlers, undefined, 0);
      const method = Object.getOwnPropertyDescriptor(Handlers.prototype, 'handle')!;
      if (where === 'method') for (const use of all) use(Handlers.prototype, 'handle', method);
      Subscribe(topic, noRetry)(Handlers.prototype, 'handle', method);
      if (where === 'class') for (const use of all) use(Handlers);
      host()(Handlers);

      const journal = await boot(kind, Handlers, topic, [{ n: 1 }, { n: 2 }]);
      const expected = ['guard @0', 'before 1', 'pipe 1', 'handler 1', 'after'].concat([
        ...['guard @1', 'before 2', 'pipe 2', 'handler 2', 'filter two'],
        `Handlers.handle skipped ${topic}/0@1 after one attempt: TypeError: two`,
      ]);
      if (how === 'class') return reads(journal, expected);
      // Instances have a journal of their own.
      await reads(journal, ['handler 1', 'handler 2', expected.at(-1)!]);
      expect(journalHere.lines).toEqual(
        expected.filter((line) => !line.startsWith('handler') && !line.startsWith('Handlers')),
      );
    });
  });

  test('a guard that says no is a permanent failure, and the handler does not run', async () => {
    const topic = freshTopic();
    @UseGuards({ canActivate: () => false })
    class Handlers {
      @Subscribe(topic)
      handle(): void {
        throw new Error('the guard was skipped');
      }
    }
    host()(Handlers);
    await reads(await boot(kind, Handlers, topic, [{}]), [
      `Handlers.handle skipped ${topic}/0@0 after one attempt: ForbiddenException: Forbidden resource`,
    ]);
  });

  test('a validation pipe sees a payload that no decorator marks, and its own exception decides', async () => {
    const topic = freshTopic();
    class Order {
      @IsInt() n!: number;
    }
    const seen: unknown[] = [];
    @UsePipes(new ValidationPipe({ transform: true }))
    class Handlers {
      @Subscribe(topic)
      handle(order: Order): void {
        seen.push(order);
      }
    }
    host()(Handlers);
    await reads(await boot(kind, Handlers, topic, [{ n: 'x' }, { n: 7 }]), [
      `Handlers.handle skipped ${topic}/0@0 after one attempt: BadRequestException: n must be an integer number`,
    ]);
    expect(seen).toEqual([expect.any(Order)]);
  });

  test('enhancers of the application run', async () => {
    const topic = freshTopic();
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(topic)
      handle(@Payload() { n }: { n: number }, @Ctx() context: RookeryContext): void {
        this.journal.note(`handler ${n} ${context.position}`);
      }
    }
    host()(Handlers);
    const providers = [APP_GUARD, APP_INTERCEPTOR, APP_PIPE].map((provide) => ({ provide, useClass: Watch }));
    await reads(await boot(kind, Handlers, topic, [{ n: 1 }], { providers }), [
      ...['guard @0', 'before 1', 'pipe 1', `handler 1 ${topic}/0@0`, 'after'],
    ]);
  });

  test('request-scoped handlers and guards are made for each record, with the record as their request', async () => {
    const topic = freshTopic();
    interface Request {
      pattern: string;
      data: { n: number };
      context: RookeryContext;
    }
    @Injectable({ scope: Scope.REQUEST })
    class ScopedGuard implements CanActivate {
      constructor(
        @Inject(REQUEST) private readonly request: Request,
        @Inject(Journal) private readonly journal: Journal,
      ) {}
      canActivate(): boolean {
        const { pattern, data, context } = this.request;
        this.journal.note(`guard ${pattern === topic} ${data.n} ${context.offset}`);
        return true;
      }
    }
    let made = 0;
    @Injectable({ scope: Scope.REQUEST })
    class PerRecord {
      readonly number = ++made;
    }
    class Handlers {
      constructor(
        @Inject(PerRecord) private readonly per: PerRecord,
        @Inject(Journal) private readonly journal: Journal,
      ) {}
      @Subscribe(topic)
      handle(@Payload('n') n: number): void {
        this.journal.note(`handler ${n} by instance ${this.per.number}`);
      }
    }
    host()(Handlers);
    const providers = [PerRecord, { provide: APP_GUARD, useClass: ScopedGuard }];
    await reads(await boot(kind, Handlers, topic, [{ n: 1 }, { n: 2 }], { providers }), [
      'guard true 1 0',
      'handler 1 by instance 1',
      'guard true 2 1',
      'handler 2 by instance 2',
    ]);
  });

  test('a transient handler is made for each record too', async () => {
    const topic = freshTopic();
    let made = 0;
    @Injectable({ scope: Scope.TRANSIENT })
    class Part {
      readonly number = ++made;
    }
    class Handlers {
      constructor(
        @Inject(Part) private readonly part: Part,
        @Inject(Journal) private readonly journal: Journal,
      ) {}
      @Subscribe(topic)
      handle({ n }: { n: number }): void {
        this.journal.note(`${n} ${this.part.number > 0}`);
      }
    }
    if (kind === 'controller') Controller({ scope: Scope.TRANSIENT })(Handlers);
    else Injectable({ scope: Scope.TRANSIENT })(Handlers);
    await reads(await boot(kind, Handlers, topic, [{ n: 1 }, { n: 2 }], { providers: [Part] }), [
      '1 true',
      '2 true',
    ]);
  });

  test('a static handler gets a request-scoped guard of the application', async () => {
    const topic = freshTopic();
    @Injectable({ scope: Scope.REQUEST })
    class ScopedGuard implements CanActivate {
      constructor(
        @Inject(REQUEST) private readonly request: { data: { n: number } },
        @Inject(Journal) private readonly journal: Journal,
      ) {}
      canActivate(): boolean {
        this.journal.note(`guard ${this.request.data.n}`);
        return true;
      }
    }
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(topic)
      handle(): void {
        this.journal.note('handler');
      }
    }
    host()(Handlers);
    const providers = [{ provide: APP_GUARD, useClass: ScopedGuard }];
    await reads(await boot(kind, Handlers, topic, [{ n: 1 }], { providers }), ['guard 1', 'handler']);
  });

  test('an observable is subscribed to and awaited, also one without values', async () => {
    const topic = freshTopic();
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(topic, noRetry)
      handle({ n }: { n: number }): Observable<unknown> {
        this.journal.note(`called ${n}`);
        if (n === 1) return timer(20).pipe(tap(() => this.journal.note('done 1')));
        if (n === 2) return EMPTY;
        return n === 3 ? throwError(() => new RangeError('three')) : of(1, 2);
      }
    }
    host()(Handlers);
    await reads(await boot(kind, Handlers, topic, [{ n: 1 }, { n: 2 }, { n: 3 }, { n: 4 }]), [
      ...['called 1', 'done 1', 'called 2', 'called 3'],
      `Handlers.handle skipped ${topic}/0@2 after one attempt: RangeError: three`,
      'called 4',
    ]);
  });

  test('key, headers, context and one property of the payload are parameters', async () => {
    const topic = freshTopic();
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(topic)
      handle(
        @Key() key: string,
        @Header('trace') trace: string,
        @Header('missing') missing: unknown,
        @Header() all: object,
        @Payload('n') n: number,
        @Ctx() context: RookeryContext,
      ): void {
        this.journal.note(JSON.stringify([key, trace, missing ?? 'none', all, n, context.key]));
      }
    }
    host()(Handlers);
    const publish = { key: 'k1', headers: { trace: 'é', other: 'x' } };
    await reads(await boot(kind, Handlers, topic, [{ n: 5 }], { publish }), [
      JSON.stringify(['k1', 'é', 'none', { trace: 'é', other: 'x' }, 5, 'k1']),
    ]);
  });

  test('a pipe of one parameter sees that parameter alone', async () => {
    const topic = freshTopic();
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(topic)
      handle(
        @Payload('n', { transform: (n: number) => n * 2 }) n: number,
        @Key({ transform: (key: string) => key.toUpperCase() }) key: string,
        @Ctx() context: RookeryContext,
      ): void {
        this.journal.note(`${n} ${key} ${context.offset}`);
      }
    }
    host()(Handlers);
    await reads(await boot(kind, Handlers, topic, [{ n: 5 }], { publish: { key: 'k' } }), ['10 K 0']);
  });

  test('a filter that answers settles the record', async () => {
    const topic = freshTopic();
    @Catch(BadRequestException)
    class Accept implements ExceptionFilter {
      catch(): string {
        return 'accepted';
      }
    }
    @UseFilters(Accept)
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(topic)
      handle({ n }: { n: number }): void {
        this.journal.note(`handler ${n}`);
        if (n === 1) throw new BadRequestException();
      }
    }
    host()(Handlers);
    await reads(await boot(kind, Handlers, topic, [{ n: 1 }, { n: 2 }]), ['handler 1', 'handler 2']);
  });

  test.each(['at once', 'late'] as const)(
    'a filter that answers nothing, %s, has not handled it',
    async (when) => {
      const topic = freshTopic();
      @Catch()
      class LookOn implements ExceptionFilter {
        catch(): unknown {
          return when === 'late' ? Promise.resolve() : undefined;
        }
      }
      @UseFilters(LookOn)
      class Handlers {
        constructor(@Inject(Journal) private readonly journal: Journal) {}
        @Subscribe(topic, { retry: backoff({ attempts: 2, initial: '1ms' }) })
        handle({ n }: { n: number }): void {
          this.journal.note(`handler ${n}`);
          if (n === 1) throw new Error('again');
        }
      }
      host()(Handlers);
      const skipped = `Handlers.handle skipped ${topic}/0@0 after 2 attempts: Error: again`;
      const expected = ['handler 1', 'handler 1', skipped, 'handler 2'];
      await reads(await boot(kind, Handlers, topic, [{ n: 1 }, { n: 2 }]), expected);
    },
  );

  test('one method may handle several topics', async () => {
    const [first, second] = [freshTopic(), freshTopic()];
    class Handlers {
      constructor(@Inject(Journal) private readonly journal: Journal) {}
      @Subscribe(first)
      @Subscribe(second)
      handle(@Ctx() { topic }: RookeryContext): void {
        this.journal.note(topic);
      }
    }
    host()(Handlers);
    const journal = await boot(kind, Handlers, first, [{}]);
    await expect.poll(() => journal, { timeout: 30_000 }).toEqual([first]);
  });
});
