import { openBroker, type Broker } from './broker.ts';
import { systemClock } from './clock.ts';
import { Config } from './config.ts';
import { EventBus } from './events.ts';
import { RawConnection } from './server/raw-connection.ts';
import { MemoryFileSystem } from './vfs/memory.ts';

/** A broker whose disk is memory, on real sockets: for tests of what its clients see. */
export class BrokerInMemory {
  readonly fs = new MemoryFileSystem();
  readonly events = new EventBus();
  /** What handlers threw and background work died of: nothing, unless a test makes the disk fail. */
  readonly failures: unknown[] = [];
  readonly #sets: readonly string[];
  readonly #connections: RawConnection[] = [];
  #broker: Broker | null = null;

  private constructor(sets: readonly string[]) {
    this.#sets = sets;
    this.events.on('handlerFailed', ({ error }) => this.failures.push(error));
    this.events.on('backgroundFailed', (info) => this.failures.push(info));
  }

  /** @param sets settings, `name=value` each */
  static async start(...sets: string[]): Promise<BrokerInMemory> {
    const started = new BrokerInMemory(sets);
    await started.#open();
    return started;
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
    this.#broker = await openBroker({ config, dataDir: '/data', fs, clock: systemClock, events });
  }
}
