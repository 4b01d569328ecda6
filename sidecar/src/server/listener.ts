import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Clock, Timer } from '../clock.ts';
import type { Address } from '../listener-address.ts';
import { Connection, type ConnectionDeps } from './connection.ts';

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  /** `max.connections`: one more is closed at once. */
  readonly connectionsMax: number;
  /**
   * For how many connections the system has descriptors. One more is closed too: without a descriptor the system
   * could not even take it in, and would tell us of it again and again.
   */
  readonly descriptorsLeft: () => number;
  /** `connections.max.idle.ms`. */
  readonly idleMs: number;
  /** How long a peer may pause inside a request. */
  readonly stallMs: number;
  readonly clock: Clock;
  readonly opened: (connection: Connection) => void;
  readonly refused: (remoteAddress: string, reason: string) => void;
  /** Made when the port is known, which handlers advertise. */
  readonly connection: (bound: Address) => ConnectionDeps;
}

const sweepMs = 5_000;
/** How long closing connections may take to send what is answered. */
const endMs = 1_000;

/** The Kafka port: takes connections in, counts them, and cuts off those that only sit there. */
export class Listener {
  readonly connections = new Set<Connection>();
  readonly #options: ListenerOptions;
  readonly #server: Server;
  #sweep: Timer | null = null;
  #deps: ConnectionDeps | null = null;

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  /** Resolves with the address in use: `port` 0 has become a real one. */
  listen(): Promise<Address> {
    const { host, port, clock } = this.#options;
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        // A connection could not be taken, for want of descriptors say. The next one may be.
        this.#server.on('error', (error) => this.#options.refused('', error.message));
        this.#sweep = clock.every(sweepMs, () => this.#cutOffIdle());
        const { address, port: boundPort } = this.#server.address() as AddressInfo;
        const bound = { host: address, port: boundPort };
        this.#deps = this.#options.connection(bound);
        resolve(bound);
      });
    });
  }

  /** No new connections; the others may send what is answered, then close. */
  async close(): Promise<void> {
    this.#sweep?.cancel();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of this.connections) connection.end();
    const late = this.#options.clock.after(endMs, () => {
      for (const connection of this.connections) connection.close('the broker stops');
    });
    await closed;
    late.cancel();
  }

  #accept(socket: Socket): void {
    const deps = this.#deps!;
    const limit = this.#reachedLimit();
    if (limit !== null) {
      this.#options.refused(socket.remoteAddress ?? '', `${limit} is reached`);
      socket.on('error', () => {});
      socket.destroy();
      return;
    }
    const connection = new Connection(socket, {
      ...deps,
      closed: (which, reason) => {
        this.connections.delete(which);
        deps.closed(which, reason);
      },
    });
    this.connections.add(connection);
    this.#options.opened(connection);
  }

  #reachedLimit(): string | null {
    const { connectionsMax, descriptorsLeft } = this.#options;
    if (this.connections.size >= connectionsMax) return `max.connections (${connectionsMax})`;
    if (this.connections.size < descriptorsLeft()) return null;
    return `what the limit of open files leaves to connections (${descriptorsLeft()})`;
  }

  #cutOffIdle(): void {
    const { idleMs, stallMs } = this.#options;
    const now = this.#deps!.now();
    for (const each of this.connections) {
      const quiet = now - each.lastActive;
      if (each.isMidFrame && quiet > stallMs) each.close('stalled inside a request');
      else if (each.isTrickling(now, stallMs)) each.close('sends a request too slowly');
      else if (each.isIdle && quiet > idleMs) each.close('idle');
      else if (!each.isIdle && each.isUnread && quiet > stallMs) each.close('does not read its answers');
    }
  }
}
