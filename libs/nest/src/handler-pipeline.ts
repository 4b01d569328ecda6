import { Logger } from '@nestjs/common';
import { ApplicationConfig, ContextIdFactory, ExternalContextCreator, ModuleRef } from '@nestjs/core';
import type { RookeryContext } from '@rookery/engine';
import { isObservable, lastValueFrom } from 'rxjs';
import type { FoundHandler } from './handler-discovery.ts';
import { directCall, isContext, parameterValues, type Method } from './handler-parameters.ts';
import { enhancers, routeArguments } from './nest-metadata.ts';

/** Handles one record: what it returns or throws is the handler's own. */
export type Invoke = (payload: unknown, context: RookeryContext) => unknown;

const logger = new Logger('Rookery');

/**
 * Makes decorated methods callable with guards, pipes, interceptors and filters around them. Nest's creator for
 * such calls lets errors through as they are, which its creator for RPC does not.
 */
export class HandlerPipelines {
  readonly #creator: ExternalContextCreator;
  readonly #config: ApplicationConfig;
  readonly #filters: FiltersCreator;

  constructor(creator: ExternalContextCreator, config: ApplicationConfig) {
    this.#creator = creator;
    this.#config = config;
    this.#filters = withoutLog(
      (creator as unknown as { filtersContextCreator: FiltersCreator }).filtersContextCreator,
    );
  }

  build(handler: FoundHandler): Invoke {
    const { host, type, method, name } = handler;
    if (!host.isDependencyTreeStatic() || host.isTransient) {
      logger.log(`${name} is built anew for each record, because it or what it needs is request-scoped`);
      return this.#scoped(handler);
    }
    const instance = host.instance as Record<string, Method>;
    const run = instance[method]!;
    const direct = this.#isEnhanced(handler) ? null : directCall(type, method);
    if (direct === null) return this.#create(handler, instance, {});
    return (payload, context) => flatten(direct(instance, run, payload, context));
  }

  /** Whether anything of Nest's stands around the handler. */
  #isEnhanced({ host, type, method }: FoundHandler): boolean {
    const config = this.#config;
    const ofAll = [
      config.getGlobalGuards(),
      config.getGlobalPipes(),
      config.getGlobalInterceptors(),
      config.getGlobalFilters(),
    ];
    const run = (host.instance as Record<string, Method>)[method]!;
    return (
      ofAll.some(({ length }) => length > 0) ||
      enhancers.some((key) => Reflect.hasMetadata(key, type) || Reflect.hasMetadata(key, run))
    );
  }

  /** An instance for each record, with the record as its request. */
  #scoped(handler: FoundHandler): Invoke {
    const { host, topic } = handler;
    const moduleRef = host.host!.getProviderByKey<ModuleRef>(ModuleRef).instance as ModuleRef;
    const pattern = typeof topic === 'string' ? topic : topic.name;
    return async (payload, context) => {
      const request = { pattern, data: payload, context };
      const contextId = ContextIdFactory.getByRequest(request);
      const scope = host.isDependencyTreeDurable() ? (contextId as { payload?: unknown }).payload : request;
      moduleRef.registerRequestByContextId(scope, contextId);
      const instance = await moduleRef.resolve<Record<string, Method>>(host.token as never, contextId);
      return this.#create(handler, instance, { contextId, inquirerId: host.id })(payload, context);
    };
  }

  #create(
    { moduleKey, method }: FoundHandler,
    instance: Record<string, Method>,
    {
      contextId,
      inquirerId,
    }: { contextId?: ReturnType<typeof ContextIdFactory.create>; inquirerId?: string },
  ): Invoke {
    // Left to itself the creator looks for the instance among providers only, and runs a controller's handlers
    // without the guards of its class.
    const creator = Object.create(this.#creator, {
      getHostModuleKey: { value: () => moduleKey },
      getContextModuleKey: { value: () => moduleKey },
      transformToResult: { value: flatten },
      getParamValue: { value: getParamValue },
      filtersContextCreator: { value: this.#filters },
    }) as ExternalContextCreator;
    return creator.create(
      instance,
      instance[method]!,
      method,
      routeArguments,
      parameterValues as never,
      contextId,
      inquirerId,
      undefined,
      'rpc',
    );
  }
}

/** What of Nest makes a handler's exception filters. */
interface FiltersCreator {
  create(...of: never[]): {
    next(error: unknown, host: unknown): unknown;
    invokeCustomFilters(error: unknown, host: unknown): unknown;
  };
}

/** Nest logs every error that no filter takes. The engine says more of it, and only once. */
function withoutLog(filters: FiltersCreator): FiltersCreator {
  return Object.create(filters, {
    create: {
      value: (...of: never[]) => {
        const handler = filters.create(...of);
        handler.next = (error, host) => {
          const result: unknown = handler.invokeCustomFilters(error, host);
          return result instanceof Promise ? result.then((late) => given(late, error)) : given(result, error);
        };
        return handler;
      },
    },
  }) as FiltersCreator;
}

/** A filter that gives nothing has only looked at the error: the record is not handled yet. */
function given(result: unknown, error: unknown): unknown {
  if (result === undefined || result === null) throw error;
  return result;
}

/** Waits for an observable to its end: only a subscription makes it run, and one without values is as good. */
const flatten = (result: unknown): unknown =>
  isObservable(result) ? lastValueFrom(result, { defaultValue: undefined }) : result;

function getParamValue(
  this: ExternalContextCreator,
  value: unknown,
  metadata: { readonly type: unknown },
  pipes: never,
): unknown {
  if (isContext(metadata.type)) return value;
  return ExternalContextCreator.prototype.getParamValue.call(this, value, metadata as never, pipes);
}
