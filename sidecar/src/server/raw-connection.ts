import { connect, type Socket } from 'node:net';
import {
  ByteReader,
  decodeResponseHeader,
  decoderOf,
  encodeRequest,
  FrameCutter,
  type Api,
  type Encodable,
  type Response,
} from '@rookery/wire';
import type { Address } from '../listener-address.ts';

/**
 * A Kafka connection for tests that want to see every frame: requests of any version, in any number at once,
 * and bytes that are no requests. A client would retry and reconnect, which is what such tests must not have.
 */
export class RawConnection {
  readonly socket: Socket;
  /** Resolves when the other side has closed. */
  readonly closed: Promise<void>;
  #correlationId = 0;
  readonly #cutter = new FrameCutter(0x7fffffff);
  readonly #waiting: { frame(frame: Buffer[]): void; gone(error: Error): void }[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        for (const { gone } of this.#waiting.splice(0)) gone(new Error('the connection closed'));
        resolve();
      });
    });
  }

  static open({ host, port }: Address): Promise<RawConnection> {
    const socket = connect({ host, port, noDelay: true });
    return new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.once('connect', () => resolve(new RawConnection(socket)));
    });
  }

  /** Sends a request; resolves with the body of the next answer. @throws Error when the connection closes first */
  async request<A extends Api>(
    api: A,
    version: number,
    body: Encodable<A['request']>,
    clientId: string | null = 'raw',
  ): Promise<Response<A>> {
    const correlationId = ++this.#correlationId;
    const answer = this.nextFrame();
    this.send(frameOf(api, version, body, { correlationId, clientId }));
    const reader = new ByteReader(await answer);
    const told = decodeResponseHeader(api, version, reader);
    if (told !== correlationId) throw new Error(`answer ${told} came where ${correlationId} was due`);
    const decoded = decoderOf(api.response, version)(reader) as Response<A>;
    reader.end();
    return decoded;
  }

  /** The next frame that nobody before has asked for. */
  nextFrame(): Promise<Buffer[]> {
    const frame = new Promise<Buffer[]>((resolve, reject) => {
      if (this.socket.destroyed) reject(new Error('the connection closed'));
      else this.#waiting.push({ frame: resolve, gone: reject });
    });
    // Whoever waits for several at once awaits them one by one.
    frame.catch(() => {});
    return frame;
  }

  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Closes, and waits until it is. */
  async close(): Promise<void> {
    this.socket.destroy();
    await this.closed;
  }

  #take(chunk: Buffer): void {
    this.#cutter.push(chunk);
    for (let frame = this.#cutter.next(); frame !== null; frame = this.#cutter.next())
      this.#waiting.shift()?.frame(frame);
  }
}

/** A whole request as it goes over the wire. */
export function frameOf<A extends Api>(
  api: A,
  version: number,
  body: Encodable<A['request']>,
  header: { correlationId: number; clientId: string | null } = { correlationId: 1, clientId: 'raw' },
): Buffer {
  return Buffer.concat(encodeRequest(api, version, header, body) as Buffer[]);
}
