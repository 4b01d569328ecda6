import { Logger as NestLogger } from '@nestjs/common';
import type { Logger } from '@rookery/engine';

/** The engine's lines through whatever logger the application has; causes at their end, a stack where it helps. */
export function nestLogger(): Logger {
  const logger = new NestLogger('Rookery');
  return {
    info: (message) => logger.log(message),
    warn: (message, fields) => logger.warn(withCause(message, fields)),
    error: (message, fields) => logger.error(withCause(message, fields), stackOf(fields)),
  };
}

function causeOf(fields: object | undefined): unknown {
  return (fields as { err?: unknown } | undefined)?.err;
}

function withCause(message: string, fields: object | undefined): string {
  const cause = causeOf(fields);
  if (cause === undefined || cause === null) return message;
  return `${message}: ${cause instanceof Error ? `${cause.name}: ${reasonOf(cause)}` : String(cause)}`;
}

/** Nest's validation pipe says what is wrong in the response that it would give. */
function reasonOf(error: Error): string {
  const response = (error as { getResponse?: () => unknown }).getResponse?.();
  const { message } = (response ?? {}) as { message?: unknown };
  return Array.isArray(message) ? message.join('; ') : error.message;
}

const stackOf = (fields: object | undefined): string | undefined =>
  (causeOf(fields) as { stack?: string } | null | undefined)?.stack;
