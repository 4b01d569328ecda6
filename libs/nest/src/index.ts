export * from '@rookery/engine';
export { Ctx, Header, Key, Payload } from './handler-parameters.ts';
export { RookeryModule, type RookeryAsyncOptions, type RookeryOptions } from './rookery.module.ts';
export { Rookery } from './rookery.ts';
export { Subscribe } from './subscribe.ts';
