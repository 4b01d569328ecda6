import {
  Inject,
  Logger,
  Module,
  type DynamicModule,
  type FactoryProvider,
  type ModuleMetadata,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
} from '@nestjs/common';
import { ApplicationConfig, ExternalContextCreator, ModulesContainer } from '@nestjs/core';
import { Engine, RookeryError, type EngineOptions } from '@rookery/engine';
import { findHandlers } from './handler-discovery.ts';
import { HandlerPipelines } from './handler-pipeline.ts';
import { bootLast } from './hook-order.ts';
import { nestLogger } from './nest-logger.ts';
import { Rookery } from './rookery.ts';

export type RookeryOptions = EngineOptions;

export interface RookeryAsyncOptions extends Pick<ModuleMetadata, 'imports'> {
  readonly inject?: FactoryProvider['inject'];
  // What it gets is what `inject` names, which no type can follow.
  useFactory(...injected: never[]): RookeryOptions | Promise<RookeryOptions>;
}

const optionsToken = Symbol('rookery options');

/**
 * Publishing everywhere, and handlers from the moment everything else has booted until just before anything else
 * is destroyed. Publishing ends with `onApplicationShutdown`, so that requests still being answered may publish.
 */
@Module({})
export class RookeryModule implements OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown {
  readonly #rookery: Rookery;
  readonly #modules: ModulesContainer;
  readonly #pipelines: HandlerPipelines;

  constructor(
    @Inject(Rookery) rookery: Rookery,
    @Inject(ModulesContainer) modules: ModulesContainer,
    @Inject(ExternalContextCreator) creator: ExternalContextCreator,
    @Inject(ApplicationConfig) config: ApplicationConfig,
  ) {
    this.#rookery = rookery;
    this.#modules = modules;
    this.#pipelines = new HandlerPipelines(creator, config);
    // Distances are known and not yet used: Nest sorts by them when it calls the first hook.
    bootLast(modules, RookeryModule, new Logger('Rookery'));
  }

  static forRoot(options: RookeryOptions): DynamicModule {
    return RookeryModule.forRootAsync({ useFactory: () => options });
  }

  /** Boot waits for the factory. */
  static forRootAsync({ imports = [], inject = [], useFactory }: RookeryAsyncOptions): DynamicModule {
    return {
      module: RookeryModule,
      global: true,
      imports,
      providers: [
        { provide: optionsToken, inject, useFactory },
        {
          provide: Rookery,
          inject: [optionsToken],
          useFactory: (options: RookeryOptions) => new Rookery(new Engine(options, nestLogger())),
        },
      ],
      exports: [Rookery],
    };
  }

  async onApplicationBootstrap(): Promise<void> {
    const engine = this.#rookery.engine;
    const others = [...this.#modules.values()].filter(({ metatype }) => metatype === RookeryModule);
    if (others.length > 1)
      throw new RookeryError('RK2002', 'RookeryModule is imported twice; give one more connections instead');
    for (const handler of findHandlers(this.#modules))
      engine.subscribe<never>(handler.topic, this.#pipelines.build(handler), {
        ...handler.options,
        name: handler.name,
      });
    await engine.start();
  }

  async onModuleDestroy(): Promise<void> {
    await this.#rookery.engine.drain();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.#rookery.engine.close();
  }
}
