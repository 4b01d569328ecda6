import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isLoopback, type Address } from '../listener-address.ts';
import type { Metrics } from '../metrics.ts';

export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: Metrics;
  /** What is not ready yet; empty when everything serves. */
  readonly notReady: () => readonly string[];
  /** What lies on this disk of a topic; null where there is no such topic. */
  readonly topic: (name: string) => object | null;
}

// Not by an import: that reads every export of the module, and one of them loads a whole WebSocket client, which
// costs 13 MiB and tens of milliseconds.
const { createServer } = process.getBuiltinModule('node:http');

const headerBytesMax = 16 * 1024;
const connectionsMax = 100;
/** A peer that does not take its answer is given this long. */
const unreadMs = 10_000;

/**
 * Health, metrics and what only this host knows of a topic, over HTTP. Plain `node:http`, because it must answer within the start-up budget and from
 * the first moment on.
 */
export class AdminServer {
  readonly #options: AdminOptions;
  readonly #server: Server;

  constructor(options: AdminOptions) {
    this.#options = options;
    this.#server = createServer(
      {
        maxHeaderSize: headerBytesMax,
        headersTimeout: 5_000,
        requestTimeout: 10_000,
        keepAliveTimeout: 5_000,
        // How often the two timeouts above are looked after.
        connectionsCheckingInterval: 2_000,
      },
      (request, response) => {
        this.#answer(request, response).catch(() => {
          if (!response.headersSent) send(response, 500, { error: 'the request could not be answered' });
          else response.destroy();
        });
      },
    );
    this.#server.maxConnections = connectionsMax;
    this.#server.setTimeout(unreadMs, (socket) => socket.destroy());
  }

  /** Resolves with the address in use: `port` 0 has become a real one. */
  listen(): Promise<Address> {
    const { host, port } = this.#options;
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        // A connection that could not be taken is no reason to stop; Node would throw without a listener.
        this.#server.on('error', () => {});
        const address = this.#server.address() as AddressInfo;
        resolve({ host: address.address, port: address.port });
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '/').split('?')[0]!;
    if (!this.#isMeantForUs(request))
      return send(response, 403, { error: 'the Host header names another host' });
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      return send(response, 405, { error: 'only GET is served' });
    }
    switch (path) {
      case '/health/live':
        return send(response, 200, { status: 'live' });
      case '/health/ready': {
        const reasons = this.#options.notReady();
        return send(response, reasons.length === 0 ? 200 : 503, {
          status: reasons.length === 0 ? 'ready' : 'not ready',
          reasons,
        });
      }
      case '/metrics': {
        const { exposition } = await import('./exposition.ts');
        const text = await exposition(this.#options.metrics);
        response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
        response.end(text);
        return;
      }
      default: {
        const name = /^\/topics\/([a-zA-Z0-9._-]+)$/.exec(path)?.[1];
        const topic = name === undefined ? null : this.#options.topic(name);
        if (topic !== null) return send(response, 200, topic);
        return send(response, 404, { error: 'there is nothing at this path' });
      }
    }
  }

  /**
   * A web page elsewhere can make a browser ask us under its own name; it must not learn anything. Browsers
   * always name a host; simple probes in HTTP/1.0 need not.
   */
  #isMeantForUs(request: IncomingMessage): boolean {
    if (!isLoopback(this.#options.host) || request.headers.host === undefined) return true;
    const host = request.headers.host.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
    return isLoopback(host);
  }
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}
