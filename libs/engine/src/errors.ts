/** Whether trying again can help: `transient` yes, `permanent` no, `fatal` not without an operator, `misuse` not without a change of code. */
export type ErrorKind = 'transient' | 'permanent' | 'fatal' | 'misuse';

const row = (kind: ErrorKind, message: string) => ({ kind, message }) as const;

/** What the SDK can fail with. docs/reference/errors.md is made from this table. */
export const engineErrors = {
  RK1001: row('transient', 'the broker cannot be reached'),
  RK1004: row('transient', 'the service is shutting down'),
  RK2001: row('misuse', 'the driver cannot do this'),
  RK2002: row('misuse', 'the configuration is wrong'),
  RK2003: row('fatal', 'the topic is not there, or not as it should be'),
  RK3001: row('transient', 'the publish was not confirmed in time'),
  RK3002: row('permanent', 'the message is larger than the broker takes'),
  RK3003: row('permanent', 'the broker refused the message'),
  RK3005: row('transient', 'too many publishes are unsettled'),
  RK4001: row('permanent', 'the message cannot be decoded'),
  RK4002: row('permanent', 'the payload is not valid'),
  RK5005: row('transient', 'the lane has gone to another consumer'),
} as const;

export type EngineErrorCode = keyof typeof engineErrors;

export interface ErrorContext {
  readonly topic?: string;
  readonly partition?: number;
  readonly offset?: number;
  readonly group?: string;
  readonly connection?: string;
  /** The broker may have taken the message all the same. */
  readonly outcomeUnknown?: boolean;
  /** What is wrong with a payload, a line each. */
  readonly violations?: readonly string[];
}

export class RookeryError extends Error {
  readonly code: EngineErrorCode;
  readonly detail: string;
  readonly context: ErrorContext;

  /** @param detail where and what, appended to the code's own sentence */
  constructor(code: EngineErrorCode, detail: string, context: ErrorContext = {}, options?: ErrorOptions) {
    super(`${code} ${engineErrors[code].message}: ${detail}`, options);
    this.name = 'RookeryError';
    this.code = code;
    this.detail = detail;
    this.context = context;
  }

  get kind(): ErrorKind {
    return engineErrors[this.code].kind;
  }

  get retryable(): boolean {
    return this.kind === 'transient';
  }
}

/** What a client did wrong, but these: they say that it may come again. */
const worthRetrying = new Set([408, 425, 429]);

/**
 * Whether another attempt is in vain. Beside our own errors that is what carries an HTTP status of the caller's
 * fault: Nest's pipes and guards throw such exceptions.
 */
export function isPermanent(error: unknown): boolean {
  if (error instanceof RookeryError) return !error.retryable;
  const status = (error as { getStatus?: () => unknown } | null)?.getStatus?.();
  return typeof status === 'number' && status >= 400 && status < 500 && !worthRetrying.has(status);
}
