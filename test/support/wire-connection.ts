import { createConnection, type Socket } from 'node:net';
import {
  apiVersions,
  ByteReader,
  decodeResponseHeader,
  decoderOf,
  encodeRequest,
  ErrorCode,
  FrameCutter,
  type Api,
  type Encodable,
  type Response,
} from '@rookery/wire';

const frameBytesMax = 64 * 1024 * 1024;

/**
 * A bare connection: any request in any version, one at a time, and the answer as it came. No negotiation and no
 * retries, which a client would have and a test of the protocol must not.
 */
export class WireConnection {
  readonly #socket: Socket;
  readonly #cutter = new FrameCutter(frameBytesMax);
  readonly #answers: ((frame: readonly Buffer[] | Error) => void)[] = [];
  #correlationId = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    const fail = (error: Error): void => {
      for (const answer of this.#answers.splice(0)) answer(error);
    };
    socket.on('data', (chunk) => {
      this.#cutter.push(chunk);
      for (let frame = this.#cutter.next(); frame !== null; frame = this.#cutter.next())
        this.#answers.shift()!(frame);
    });
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('the broker closed the connection')));
  }

  static open(address: string): Promise<WireConnection> {
    const colon = address.lastIndexOf(':');
    return new Promise((resolve, reject) => {
      const socket = createConnection({
        host: address.slice(0, colon),
        port: Number(address.slice(colon + 1)),
        noDelay: true,
      });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new WireConnection(socket));
      });
    });
  }

  /** @throws WireError when the answer is not what this version says, to the last byte */
  async ask<A extends Api>(api: A, version: number, body: Encodable<A['request']>): Promise<Response<A>> {
    const correlationId = this.#correlationId++;
    const spans = encodeRequest(api, version, { correlationId, clientId: 'bare' }, body);
    const answered = new Promise<readonly Buffer[] | Error>((resolve) => this.#answers.push(resolve));
    for (const span of spans) this.#socket.write(span as Uint8Array);
    const frame = await answered;
    if (frame instanceof Error) throw frame;
    const reader = new ByteReader(frame);
    const id = decodeResponseHeader(api, version, reader);
    if (id !== correlationId) throw new Error(`answer ${id} to request ${correlationId}`);
    const response = decoderOf(api.response, version)(reader);
    reader.end();
    return response as Response<A>;
  }

  /** The range of versions that the broker offers for each API key. */
  async versions(): Promise<Map<number, readonly [min: number, max: number]>> {
    const { errorCode, apiKeys } = await this.ask(apiVersions, 0, {});
    if (errorCode !== ErrorCode.NONE) throw new Error(`ApiVersions was answered with ${errorCode}`);
    return new Map(apiKeys.map(({ apiKey, minVersion, maxVersion }) => [apiKey, [minVersion, maxVersion]]));
  }

  close(): void {
    this.#socket.destroy();
  }
}
