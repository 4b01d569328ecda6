import { ClientProxy, type ReadPacket, type WritePacket } from '@nestjs/microservices';
import { Engine, RookeryError, type Logger } from '@rookery/engine';
import { nestLogger } from '../nest-logger.ts';
import type { RookeryOptions } from '../rookery.module.ts';
import { Rookery } from '../rookery.ts';
import { RookeryRecord } from './rookery-record.ts';
import { topicOf } from './topic-of-pattern.ts';

/**
 * Nest's client over the engine: `emit(topic, payload)` publishes, and its observable gives the position in the
 * log. For `ClientsModule`: `{ name, customClass: RookeryClient, options }`, where options are those of
 * `RookeryModule`, or its `Rookery`.
 */
export class RookeryClient extends ClientProxy {
  readonly #rookery: Rookery;
  readonly #isShared: boolean;
  readonly #logger: Logger = nestLogger();

  /** @throws RookeryError RK2002 */
  constructor(of: RookeryOptions | Rookery) {
    super();
    this.#isShared = of instanceof Rookery;
    this.#rookery = of instanceof Rookery ? of : new Rookery(new Engine(of, this.#logger));
  }

  /** There is nothing to wait for: what is emitted waits for the broker itself. */
  async connect(): Promise<void> {}

  async close(): Promise<void> {
    if (!this.#isShared) await this.#rookery.engine.close();
  }

  unwrap<T = Rookery>(): T {
    return this.#rookery as T;
  }

  protected publish({ pattern }: ReadPacket, callback: (packet: WritePacket) => void): () => void {
    const detail = `send(${JSON.stringify(pattern)}): there are no replies; use emit`;
    callback({ err: new RookeryError('RK2001', detail) });
    return () => {};
  }

  protected async dispatchEvent<T>({ pattern, data }: ReadPacket): Promise<T> {
    const record = data instanceof RookeryRecord ? data : new RookeryRecord(data as unknown, {});
    try {
      return (await this.#rookery.publish(topicOf(pattern), record.payload, record.options)) as T;
    } catch (error) {
      // Nobody has to subscribe to what `emit` returns, and then nobody would ever know.
      this.#logger.error('an emitted event was not published', { err: error });
      throw error;
    }
  }
}
