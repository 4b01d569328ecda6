import type { Api, Encodable, Request } from '@rookery/wire';

/** Who asks, and in which version; what a handler may know of the connection. */
export interface Call {
  readonly version: number;
  readonly clientId: string | null;
  readonly remoteAddress: string;
  /** Runs when the connection closes, or never: a parked request lets go of what it holds. */
  whenClosed(release: () => void): () => void;
  /**
   * To be called when nobody will look at the request's bytes once it is answered, so that their memory can be used
   * again. Nothing that was decoded may be kept then: byte fields are views of that memory. Who does not call loses
   * nothing.
   */
  bytesSpent(): void;
}

export type Answer<A extends Api> = Encodable<A['response']>;

/**
 * One API that the broker serves. ApiVersions is derived from these registrations, so it cannot lie: what is
 * not registered is not advertised.
 */
export interface Handler<A extends Api = Api> {
  readonly api: A;
  /** Versions served; every one of the table's when left out. */
  readonly versions?: readonly [min: number, max: number];
  /** The lowest version to advertise, where clients need a lie that `refuse` then makes good. */
  readonly advertisedFrom?: number;
  /** The body of the answer; null when the client expects none (Produce with acks=0). */
  handle(request: Request<A>, call: Call): Answer<A> | null | Promise<Answer<A> | null>;
}

/** Keeps the table's type while handlers of different APIs stand in one list. */
export const handler = <A extends Api>(of: Handler<A>): Handler => of as unknown as Handler;

export const servedVersions = (of: Handler): readonly [number, number] => of.versions ?? of.api.versions;
