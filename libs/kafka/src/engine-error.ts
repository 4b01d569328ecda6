import { BrokerError, ClientError } from '@rookery/client';
import { RookeryError, type EngineErrorCode, type ErrorContext } from '@rookery/engine';

/** A client's error as the engine's users know it, with the client's own as its cause. */
export function engineError(error: unknown, context: ErrorContext): RookeryError {
  if (error instanceof RookeryError) return error;
  const cause = error as Error;
  const outcomeUnknown = error instanceof ClientError && error.outcomeUnknown;
  return new RookeryError(codeOf(error), cause.message, { ...context, outcomeUnknown }, { cause });
}

function codeOf(error: unknown): EngineErrorCode {
  if (error instanceof BrokerError) {
    switch (error.error) {
      case 'MESSAGE_TOO_LARGE':
      case 'RECORD_LIST_TOO_LARGE':
        return 'RK3002';
      case 'INVALID_TOPIC_EXCEPTION':
      case 'UNKNOWN_TOPIC_OR_PARTITION':
        return 'RK2003';
      default:
        return 'RK3003';
    }
  }
  switch (error instanceof ClientError ? error.code : null) {
    case 'RK9205':
      return 'RK1004';
    case 'RK9207':
      return 'RK2002';
    case 'RK9209':
      return 'RK3001';
    case 'RK9210':
      return 'RK5005';
    default:
      return 'RK1001';
  }
}
