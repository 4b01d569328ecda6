import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/**
 * A line between a client and a broker that can be cut. The broker advertises the proxy's address, so everything
 * goes over it, also after the broker has come back on another port.
 */
export class CutProxy {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [client: Socket, broker: Socket]>();
  #target = '';
  /** Answers are swallowed from now on: what was asked for happens, and nobody hears of it. */
  isDeaf = false;
  /** Milliseconds by which bytes come late, in either direction. */
  delayMs = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (client) => this.#join(client));
  }

  static open(): Promise<CutProxy> {
    const server = createServer();
    return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(new CutProxy(server))));
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  leadTo(target: string): void {
    this.#target = target;
  }

  /** Breaks every connection. New ones are taken at once. */
  cut(): void {
    for (const [client, broker] of this.#pairs) {
      client.resetAndDestroy();
      broker.destroy();
    }
  }

  close(): Promise<void> {
    this.cut();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #join(client: Socket): void {
    const [host, port] = this.#target.split(':');
    const broker = connect({ host: host!, port: Number(port), noDelay: true });
    client.setNoDelay(true);
    const pair = [client, broker] as const;
    this.#pairs.add(pair);
    const end = (): void => {
      this.#pairs.delete(pair);
      client.destroy();
      broker.destroy();
    };
    for (const socket of pair) socket.on('error', end).on('close', end);
    client.on('data', (bytes: Buffer) => this.#pass(bytes, broker));
    broker.on('data', (bytes: Buffer) => {
      if (!this.isDeaf) this.#pass(bytes, client);
    });
  }

  #pass(bytes: Buffer, to: Socket): void {
    if (this.delayMs > 0) setTimeout(() => to.write(bytes), this.delayMs);
    else to.write(bytes);
  }
}
