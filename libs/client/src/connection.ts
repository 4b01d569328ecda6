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
import { ClientError } from './errors.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ConnectionOptions {
  readonly clientId: string;
  readonly connectTimeoutMs: number;
  readonly requestTimeoutMs: number;
}

export interface RequestOptions {
  /** Milliseconds until the connection is given up; the connection's own when left out. */
  readonly timeoutMs?: number;
  /** The highest version that the caller can use, where that is not the table's. */
  readonly versionMax?: number;
}

/** A body, or how to make one for the version that both sides speak. */
export type Body<A extends Api> = Encodable<A['request']> | ((version: number) => Encodable<A['request']>);

const softwareName = 'rookery';
const softwareVersion = '0.1.0';
/** The largest answer that is taken in: Kafka's own limit for a fetch is half of it. */
const frameBytesMax = 128 * 1024 * 1024;
const elementsMax = 2_000_000;

interface Waiting {
  readonly api: Api;
  readonly version: number;
  readonly correlationId: number;
  readonly timer: NodeJS.Timeout;
  readonly resolve: (response: never) => void;
  readonly reject: (error: Error) => void;
}

/**
 * One socket to one broker. Requests leave in the order of the calls and are answered in that order. A request
 * that is not answered in time takes the connection with it, because what comes later on it would be late too.
 */
export class Connection {
  readonly address: Address;
  /** Resolves, with the reason, when the connection is no more. */
  readonly closed: Promise<ClientError>;
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #cutter = new FrameCutter(frameBytesMax);
  #waiting: Waiting[] = [];
  #versions = new Map<number, readonly [min: number, max: number]>();
  #nextCorrelationId = 1;
  #reason: ClientError | null = null;
  #isCorked = false;
  #tellClosed!: (reason: ClientError) => void;

  private constructor(socket: Socket, address: Address, options: ConnectionOptions) {
    this.#socket = socket;
    this.address = address;
    this.#options = options;
    this.closed = new Promise((resolve) => (this.#tellClosed = resolve));
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('error', (error) => this.close(this.#broken(error.message, error)));
    socket.on('close', () => this.close(this.#broken('closed by the broker')));
  }

  /**
   * Connects and asks what the broker serves.
   * @throws ClientError RK9201 when it cannot be reached in time
   */
  static async open(address: Address, options: ConnectionOptions, signal?: AbortSignal): Promise<Connection> {
    const socket = await connect(address, options.connectTimeoutMs, signal);
    const connection = new Connection(socket, address, options);
    try {
      await connection.#negotiate();
    } catch (error) {
      connection.close();
      throw new ClientError('RK9201', `${format(address)}: ${(error as Error).message}`, { cause: error });
    }
    return connection;
  }

  get isOpen(): boolean {
    return this.#reason === null;
  }

  /** Requests without an answer so far. */
  get inFlight(): number {
    return this.#waiting.length;
  }

  /** @throws ClientError RK9204 when no version is spoken by both sides */
  versionOf(api: Api, versionMax = Infinity): number {
    const served = this.#versions.get(api.key);
    const version = Math.min(api.versions[1], served?.[1] ?? -1, versionMax);
    if (served === undefined || version < Math.max(api.versions[0], served[0])) {
      const offer = served === undefined ? 'does not' : `serves versions ${served[0]} to ${served[1]}`;
      throw new ClientError('RK9204', `${api.name} by ${format(this.address)}, which ${offer}`);
    }
    return version;
  }

  /** @throws ClientError RK9202, RK9203, RK9204 */
  request<A extends Api>(api: A, body: Body<A>, options: RequestOptions = {}): Promise<Response<A>> {
    return new Promise((resolve, reject) => {
      if (this.#reason !== null) return reject(this.#reason);
      const version = this.versionOf(api, options.versionMax);
      const correlationId = this.#write(api, version, body);
      const timeoutMs = options.timeoutMs ?? this.#options.requestTimeoutMs;
      const timer = setTimeout(() => this.close(this.#late(api, timeoutMs)), timeoutMs);
      this.#waiting.push({ api, version, correlationId, timer, resolve, reject });
    });
  }

  /** For a request that the broker does not answer: Produce with acks=0. */
  tell<A extends Api>(api: A, body: Body<A>): void {
    if (this.#reason !== null) throw this.#reason;
    this.#write(api, this.versionOf(api), body);
  }

  close(reason = new ClientError('RK9205', format(this.address))): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    this.#socket.destroy();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { timer, reject } of waiting) {
      clearTimeout(timer);
      reject(reason);
    }
    this.#tellClosed(reason);
  }

  async #negotiate(): Promise<void> {
    const body = { clientSoftwareName: softwareName, clientSoftwareVersion: softwareVersion };
    // Version 3 is the first with a name; a broker that is too old for it answers in version 0.
    this.#versions.set(apiVersions.key, [0, 3]);
    const response = await this.request(apiVersions, body, {
      timeoutMs: this.#options.connectTimeoutMs,
    });
    let { errorCode, apiKeys } = response;
    if (errorCode === ErrorCode.UNSUPPORTED_VERSION) {
      this.#versions.set(apiVersions.key, [0, 0]);
      ({ errorCode, apiKeys } = await this.request(apiVersions, {}));
    }
    if (errorCode !== ErrorCode.NONE) throw new Error(`ApiVersions was answered with error ${errorCode}`);
    this.#versions = new Map(
      apiKeys.map(({ apiKey, minVersion, maxVersion }) => [apiKey, [minVersion, maxVersion]]),
    );
  }

  #write<A extends Api>(api: A, version: number, body: Body<A>): number {
    const correlationId = this.#nextCorrelationId;
    this.#nextCorrelationId = (correlationId + 1) & 0x7fffffff;
    const made = typeof body === 'function' ? body(version) : body;
    const spans = encodeRequest(api, version, { correlationId, clientId: this.#options.clientId }, made);
    if (!this.#isCorked) {
      // What is asked in one turn leaves in one gathered write.
      this.#isCorked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#socket.uncork();
      });
    }
    for (const span of spans) this.#socket.write(span as Uint8Array);
    return correlationId;
  }

  #onData(chunk: Buffer): void {
    try {
      this.#cutter.push(chunk);
      for (let frame = this.#cutter.next(); frame !== null; frame = this.#cutter.next()) this.#answer(frame);
    } catch (error) {
      this.close(this.#broken((error as Error).message, error));
    }
  }

  #answer(frame: readonly Buffer[]): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) throw new Error('an answer that nobody asked for');
    const { api, version, correlationId, timer, resolve, reject } = waiting;
    clearTimeout(timer);
    try {
      const reader = new ByteReader(frame, elementsMax);
      const answered = decodeResponseHeader(api, version, reader);
      if (answered !== correlationId) throw new Error(`answer ${answered} to request ${correlationId}`);
      const readAs = api.key === apiVersions.key && isUnsupported(frame) ? 0 : version;
      const response = decoderOf(api.response, readAs)(reader);
      reader.end();
      resolve(response as never);
    } catch (error) {
      const broken = this.#broken((error as Error).message, error);
      reject(broken);
      throw broken;
    }
  }

  #broken(why: string, cause?: unknown): ClientError {
    const options = cause === undefined ? {} : { cause };
    return new ClientError('RK9202', `${format(this.address)}: ${why}`, { ...options, outcomeUnknown: true });
  }

  #late(api: Api, timeoutMs: number): ClientError {
    const detail = `${format(this.address)}: ${api.name} after ${timeoutMs} ms`;
    return new ClientError('RK9203', detail, { outcomeUnknown: true });
  }
}

/** Whether an ApiVersions answer is the version 0 that every broker can fall back to. */
function isUnsupported(frame: readonly Buffer[]): boolean {
  const bytes = Buffer.concat(frame);
  return bytes.length >= 6 && bytes.readInt16BE(4) === ErrorCode.UNSUPPORTED_VERSION;
}

export const format = ({ host, port }: Address): string => `${host}:${port}`;

function connect(address: Address, timeoutMs: number, signal?: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ ...address, noDelay: true, keepAlive: true });
    const settle = (error: Error | null): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      socket.removeAllListeners('error');
      if (error === null) return resolve(socket);
      socket.on('error', () => {});
      socket.destroy();
      reject(new ClientError('RK9201', `${format(address)}: ${error.message}`, { cause: error }));
    };
    const abort = (): void => settle(new Error('given up'));
    const timer = setTimeout(() => settle(new Error(`no connection after ${timeoutMs} ms`)), timeoutMs);
    socket.once('error', settle);
    socket.once('connect', () => settle(null));
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort);
  });
}
