import type { Api, ByteSpan, Encodable } from '@rookery/wire';
import {
  ByteReader,
  decodeRequestHeader,
  decoderOf,
  encodeResponse,
  skipRequestHeaderTags,
  type RequestHeader,
} from '@rookery/wire';
import { apiVersions, legacyProduce } from '@rookery/wire';
import { refuseLegacyProduce } from './handlers/produce.ts';
import { unsupportedApiVersions } from './handlers/api-versions.ts';
import { FrameRefused } from './frame-refused.ts';
import { servedVersions, type Call, type Handler } from './handler.ts';

export type Reply = readonly ByteSpan[] | null;
/** What a connection tells of itself. */
export type Caller = Pick<Call, 'remoteAddress' | 'whenClosed'>;

/** The most array elements one request may hold in all: some 50 MiB of objects, whatever the frame's size. */
const elementsMax = 500_000;

/** From a frame to its handler and back to a frame. */
export class Dispatcher {
  readonly #handlers: (Handler | undefined)[] = [];
  readonly #observe: (api: Api, milliseconds: number) => void;
  readonly #now: () => number;

  constructor(
    handlers: readonly Handler[],
    options: { now: () => number; observe: (api: Api, milliseconds: number) => void },
  ) {
    for (const handler of handlers) this.#handlers[handler.api.key] = handler;
    this.#observe = options.observe;
    this.#now = options.now;
  }

  /**
   * Handles one whole request frame. Synchronous as far as the handler is, so that what arrives in order on a
   * connection is appended in that order.
   *
   * @param spent called before the answer comes if nobody will look at the frame's bytes after it
   * @throws FrameRefused or WireError when the connection must close
   */
  dispatch(frame: readonly Buffer[], caller: Caller, spent: () => void): Reply | Promise<Reply> {
    const reader = new ByteReader(frame, elementsMax);
    const header = decodeRequestHeader(reader);
    const handler = this.#handlers[header.apiKey];
    if (handler === undefined) throw new FrameRefused(`API key ${header.apiKey} is not served`);
    const [min, max] = servedVersions(handler);
    if (header.apiVersion < min || header.apiVersion > max)
      return this.#refuseVersion(handler, header, reader);
    skipRequestHeaderTags(handler.api, header.apiVersion, reader);
    const request = decoderOf(handler.api.request, header.apiVersion)(reader);
    reader.end();
    const started = this.#now();
    const call = new DispatchedCall(header, caller, spent);
    const answer = handler.handle(request, call);
    if (answer instanceof Promise)
      return answer.then((body) => this.#reply(handler.api, header, body, started));
    return this.#reply(handler.api, header, answer, started);
  }

  #reply(api: Api, header: RequestHeader, body: Encodable<Api['response']> | null, started: number): Reply {
    this.#observe(api, this.#now() - started);
    if (body === null) return null;
    return encodeResponse(api, header.apiVersion, header.correlationId, body);
  }

  /**
   * Two APIs answer a version that they do not serve: ApiVersions, so that a newer client can step down, and
   * Produce below its first version, which is advertised although nobody may use it (see handlers/produce.ts).
   */
  #refuseVersion(handler: Handler, header: RequestHeader, reader: ByteReader): Reply {
    const { apiVersion, correlationId } = header;
    if (handler.api.key === apiVersions.key) {
      return encodeResponse(apiVersions, 0, correlationId, unsupportedApiVersions(handler));
    }
    if (
      handler.advertisedFrom !== undefined &&
      apiVersion >= handler.advertisedFrom &&
      apiVersion < handler.api.versions[0]
    ) {
      const request = decoderOf(legacyProduce.request, apiVersion)(reader);
      if (request.acks === 0) return null;
      return encodeResponse(legacyProduce, apiVersion, correlationId, refuseLegacyProduce(request));
    }
    throw new FrameRefused(`${handler.api.name} version ${apiVersion} is not served`);
  }
}

class DispatchedCall implements Call {
  readonly version: number;
  readonly clientId: string | null;
  readonly remoteAddress: string;
  readonly bytesSpent: () => void;
  readonly #caller: Caller;

  constructor(header: RequestHeader, caller: Caller, spent: () => void) {
    this.bytesSpent = spent;
    this.version = header.apiVersion;
    this.clientId = header.clientId;
    this.remoteAddress = caller.remoteAddress;
    this.#caller = caller;
  }

  whenClosed(release: () => void): () => void {
    return this.#caller.whenClosed(release);
  }
}
