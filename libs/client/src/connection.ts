import { createConnection, type Socket } from 'node:net';
import {
  apiVersions,
  ByteReader,
  decodeResponseHeader,
  decoderOf,
  encodeRequest,
  ErrorCode,
  FrameCutter,
  WireError,
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
/** How long a connection may be idle before the system looks whether its peer is still there. */
const keepAliveMs = 30_000;

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
  #isProven = false;
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
   * Connects and asks what the broker serves. The signal gives it up at any point before it resolves.
   * @throws ClientError RK9201 when it cannot be reached in time
   */
  static async open(address: Address, options: ConnectionOptions, signal?: AbortSignal): Promise<Connection> {
    const connection = await connect(
      address,
      options.connectTimeoutMs,
      (socket) => new Connection(socket, address, options),
      signal,
    );
    const giveUp = (): void => connection.close();
    signal?.addEventListener('abort', giveUp);
    try {
      if (signal?.aborted) giveUp();
      await connection.#negotiate();
    } catch (error) {
      connection.close();
      throw new ClientError('RK9201', `${format(address)}: ${(error as Error).message}`, { cause: error });
    } finally {
      signal?.removeEventListener('abort', giveUp);
    }
    return connection;
  }

  /** Whether it has answered anything but the first question. */
  get isProven(): boolean {
    return this.#isProven;
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

  /** @throws ClientError RK9202, RK9203, RK9204, RK9207 */
  request<A extends Api>(api: A, body: Body<A>, options: RequestOptions = {}): Promise<Response<A>> {
    return new Promise((resolve, reject) => {
      this.#checkOpen();
      const version = this.versionOf(api, options.versionMax);
      const correlationId = this.#write(api, version, body);
      const timeoutMs = options.timeoutMs ?? this.#options.requestTimeoutMs;
      const timer = setTimeout(() => this.close(this.#late(api, timeoutMs)), timeoutMs);
      this.#waiting.push({ api, version, correlationId, timer, resolve, reject });
    });
  }

  /**
   * For a request that the broker does not answer, Produce with acks=0: resolves when the socket has taken it.
   * @throws ClientError RK9202, RK9204, RK9207
   */
  tell<A extends Api>(api: A, body: Body<A>, options: RequestOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#checkOpen();
      this.#write(api, this.versionOf(api, options.versionMax), body, (error) => {
        if (error === null || error === undefined) resolve();
        else reject(this.#reason ?? this.#broken(error.message, error));
      });
    });
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
    const options = { timeoutMs: this.#options.connectTimeoutMs };
    // Version 3 is the first with a name; a broker that is too old for it answers in version 0.
    this.#versions.set(apiVersions.key, [0, 3]);
    let { errorCode, apiKeys } = await this.request(apiVersions, body, options);
    if (errorCode === ErrorCode.UNSUPPORTED_VERSION) {
      this.#versions.set(apiVersions.key, [0, 0]);
      ({ errorCode, apiKeys } = await this.request(apiVersions, {}, options));
    }
    if (errorCode !== ErrorCode.NONE) throw new Error(`ApiVersions was answered with error ${errorCode}`);
    this.#versions = new Map(
      apiKeys.map(({ apiKey, minVersion, maxVersion }) => [apiKey, [minVersion, maxVersion]]),
    );
  }

  /** What is asked of a connection that is gone has not been sent, whatever became of what was asked before. */
  #checkOpen(): void {
    const reason = this.#reason;
    if (reason !== null) throw new ClientError(reason.code, reason.detail, { cause: reason });
  }

  #write<A extends Api>(
    api: A,
    version: number,
    body: Body<A>,
    written?: (error: Error | null | undefined) => void,
  ): number {
    const correlationId = this.#nextCorrelationId;
    this.#nextCorrelationId = (correlationId + 1) & 0x7fffffff;
    const spans = this.#encode(api, version, correlationId, body);
    if (!this.#isCorked) {
      // What is asked in one turn leaves in one gathered write.
      this.#isCorked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#socket.uncork();
      });
    }
    const last = spans.length - 1;
    for (let i = 0; i < last; i++) this.#socket.write(spans[i] as Uint8Array);
    this.#socket.write(spans[last] as Uint8Array, written);
    return correlationId;
  }

  #encode<A extends Api>(api: A, version: number, correlationId: number, body: Body<A>) {
    try {
      const made = typeof body === 'function' ? body(version) : body;
      return encodeRequest(api, version, { correlationId, clientId: this.#options.clientId }, made);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      throw new ClientError('RK9207', `${api.name}: ${error.message}`, { cause: error });
    }
  }

  #onData(chunk: Buffer): void {
    try {
      this.#cutter.push(chunk);
      for (let frame = this.#cutter.next(); frame !== null; frame = this.#cutter.next()) this.#answer(frame);
      // Nobody waits for what is coming here: it must not be collected until it makes a whole frame.
      if (this.#waiting.length === 0 && this.#cutter.held > 0)
        throw new Error('an answer that nobody asked for');
    } catch (error) {
      this.close(this.#senseless(error as Error));
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
      this.#isProven = api.key !== apiVersions.key;
      resolve(response as never);
    } catch (error) {
      reject(this.#senseless(error as Error));
      throw error;
    }
  }

  #broken(why: string, cause?: unknown): ClientError {
    const options = cause === undefined ? {} : { cause };
    return new ClientError('RK9202', `${format(this.address)}: ${why}`, { ...options, outcomeUnknown: true });
  }

  #senseless(error: Error): ClientError {
    const detail = `${format(this.address)}: ${error.message}`;
    return new ClientError('RK9211', detail, { cause: error, outcomeUnknown: true });
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

/** The socket is `made` into what looks after it in the very turn in which it connects. */
function connect<T>(
  address: Address,
  timeoutMs: number,
  made: (socket: Socket) => T,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({
      ...address,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: keepAliveMs,
    });
    const settled = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      socket.off('error', fail);
    };
    const fail = (error: Error): void => {
      settled();
      socket.on('error', () => {});
      socket.destroy();
      reject(new ClientError('RK9201', `${format(address)}: ${error.message}`, { cause: error }));
    };
    const abort = (): void => fail(new Error('given up'));
    const timer = setTimeout(() => fail(new Error(`no connection after ${timeoutMs} ms`)), timeoutMs);
    socket.once('error', fail);
    socket.once('connect', () => {
      settled();
      resolve(made(socket));
    });
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort);
  });
}
