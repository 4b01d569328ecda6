export { backoff, type BackoffOptions, type RetryPolicy } from './backoff.ts';
export { RookeryContext } from './context.ts';
export type * from './driver.ts';
export { type Duration } from './duration.ts';
export { Engine, type EngineOptions, type PublishTo, type SubscribeOptions } from './engine.ts';
export {
  engineErrors,
  RookeryError,
  type EngineErrorCode,
  type ErrorContext,
  type ErrorKind,
} from './errors.ts';
export type { Logger } from './logger.ts';
export type { Position, PublishOptions } from './publisher.ts';
export { topic, type PayloadOf, type Topic, type TopicOptions } from './topic.ts';
