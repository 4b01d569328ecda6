import { ErrorCode, isRetriable, type ErrorName } from '@rookery/wire';

/** What goes wrong between a client and its brokers. docs/reference/errors.md is made from this table. */
export const clientErrors = {
  RK9201: 'no broker can be reached',
  RK9202: 'the connection broke before the answer',
  RK9203: 'the broker did not answer in time',
  RK9204: 'the broker does not serve what is asked for',
  RK9205: 'the client is closed',
  RK9206: 'too many bytes wait to be sent',
  RK9207: 'an option or argument has a bad value',
  RK9208: 'the broker refused',
  RK9209: 'the records were not delivered in time',
  RK9210: 'the partition is not assigned to this member any more',
  RK9211: 'what the broker sent makes no sense',
} as const;

export type ClientErrorCode = keyof typeof clientErrors;

export class ClientError extends Error {
  readonly code: ClientErrorCode;
  readonly detail: string;
  /** Whether the broker may have acted on the request all the same. */
  readonly outcomeUnknown: boolean;

  /** @param detail where and what, appended to the code's own sentence */
  constructor(
    code: ClientErrorCode,
    detail: string,
    options: ErrorOptions & { outcomeUnknown?: boolean } = {},
  ) {
    super(`${code} ${clientErrors[code]}: ${detail}`, options);
    this.name = 'ClientError';
    this.code = code;
    this.detail = detail;
    this.outcomeUnknown = options.outcomeUnknown ?? false;
  }

  /** Whether the same request may succeed later. */
  get retriable(): boolean {
    switch (this.code) {
      case 'RK9201':
      case 'RK9202':
      case 'RK9203':
      case 'RK9211':
        return true;
      default:
        return false;
    }
  }
}

/** A broker's refusal, by Kafka's name and number. */
export class BrokerError extends ClientError {
  readonly error: ErrorName;

  constructor(error: ErrorName, detail: string, options: ErrorOptions & { outcomeUnknown?: boolean } = {}) {
    super('RK9208', `${error} (${ErrorCode[error]}), ${detail}`, options);
    this.name = 'BrokerError';
    this.error = error;
  }

  override get retriable(): boolean {
    return isRetriable(this.error);
  }
}

export const isRetriableError = (error: unknown): boolean => error instanceof ClientError && error.retriable;
