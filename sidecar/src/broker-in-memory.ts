import { openBroker, type Broker } from './broker.ts';
import { systemClock } from './clock.ts';
import { Config } from './config.ts';
import { EventBus } from './events.ts';
import type { Prepare } from './log/preparation.ts';
import { RawConnection } from './server/raw-connection.ts';
import { MemoryFileSystem } from './vfs/memory.ts';

/** A broker whose disk is memory, on real sockets: for tests of what its clients see. */
export class BrokerInMemory {
  readonly fs = new MemoryFileSystem();
  readonly events = new EventBus();
  /** What handlers threw and background work died of: nothing, unless a test makes the disk fail. */
  readonly failures: unknown[] = [];
  readonly #sets: readonly string[];
  readonly #prepare: Prepare | undefined;
  readonly #connections: RawConnection[] = [];
  #broker: Broker | null = null;

  private constructor(sets: readonly string[], prepare?: Prepare) {
    this.#sets = sets;
    this.#prepare = prepare;
    this.events.on('handlerFailed', ({ error }) => this.failures.push(error));
    this.events.on('backgroundFailed', (info) => this.failures.push(info));
  }

  /** @param sets settings, `name=value` each */
  static start(...sets: string[]): Promise<BrokerInMemory> {
    return BrokerInMemory.#started(new BrokerInMemory(sets));
  }

  /** One that looks into records elsewhere than on the loop. */
  static startPreparing(prepare: Prepare, ...sets: string[]): Promise<BrokerInMemory> {
    return BrokerInMemory.#started(new BrokerInMemory(sets, prepare));
  }

  static async #started(broker: BrokerInMemory): Promise<BrokerInMemory> {
    await broker.#open();
    return broker;
  }

  get broker(): Broker {
    return this.#broker!;
  }

  async connect(): Promise<RawConnection> {
    const connection = await RawConnection.open(this.broker.kafka);
    this.#connections.push(connection);
    return connection;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.#open();
  }

  async stop(): Promise<void> {
    for (const connection of this.#connections.splice(0)) await connection.close();
    await this.#broker?.close();
    this.#broker = null;
  }

  async #open(): Promise<void> {
    const { fs, events } = this;
    const config = new Config({
      sets: this.#sets,
      flags: { listen: '127.0.0.1:0', admin: '127.0.0.1:0' },
    });
    this.#broker = await openBroker({
      ...{ config, dataDir: '/data', fs, clock: systemClock, events },
      ...(this.#prepare === undefined ? {} : { prepare: this.#prepare }),
    });
  }
}
