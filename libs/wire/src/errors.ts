/**
 * What can be wrong with bytes that claim to be the Kafka protocol. Every refusal in this package is a
 * `WireError` with one of these codes, so that a caller can tell a torn frame from a lying one.
 */
export const wireErrors = {
  RK9001: 'the bytes end before the value does',
  RK9002: 'bytes are left over after the last field',
  RK9003: 'a length or count is negative or larger than the bytes that are left',
  RK9004: 'a 64-bit number is outside ±2^53',
  RK9005: 'a string is not UTF-8',
  RK9006: 'the message has no such version',
  RK9007: 'a variable-length number is longer than its type allows',
  RK9008: 'null where the field may not be null',
  RK9009: 'the message has more elements than the limit',
  RK9010: 'tagged fields are repeated or out of order',
  RK9011: 'a frame is larger than the limit, or too small to hold a header',
  RK9012: 'a value to encode does not fit its field',
  RK9101: 'the record batch is malformed',
  RK9102: 'the record batch fails its CRC-32C',
  RK9103: 'the record batch has an unknown magic or compression codec',
  RK9104: 'the compressed records are malformed',
  RK9105: 'the records decompress to more than the limit',
} as const;

export type WireErrorCode = keyof typeof wireErrors;

/** Bytes that break the protocol, or a value that cannot be expressed in it. */
export class WireError extends Error {
  readonly code: WireErrorCode;

  /** @param detail where and what, appended to the code's own sentence */
  constructor(code: WireErrorCode, detail: string, options?: ErrorOptions) {
    super(`${code} ${wireErrors[code]}: ${detail}`, options);
    this.name = 'WireError';
    this.code = code;
  }
}
