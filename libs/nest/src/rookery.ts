import type { Engine, Position, PublishTo, Topic } from '@rookery/engine';

/** What services publish with; inject it anywhere. */
export class Rookery {
  /** What it stands on, shared with Nest's transports. */
  readonly engine: Engine;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /**
   * Resolves with the position in the log. What is published in one turn of the event loop travels together, so
   * publish many before awaiting any.
   * @param payload null for a tombstone
   * @throws RookeryError RK1004, RK3001, RK3002, RK3003, RK3005, RK4002
   */
  publish<T>(to: Topic<T> | string, payload: T | null, options?: PublishTo): Promise<Position> {
    return this.engine.publish(to, payload, options);
  }
}
