import { createRequire } from 'node:module';

type Crc32c = (bytes: Uint8Array, initial?: number) => number;

let native: Crc32c | null = null;

/** CRC-32C (Castagnoli) over several chunks. The native module loads with the first call. */
export function crc32c(chunks: readonly Uint8Array[]): number {
  native ??= (createRequire(import.meta.url)('@node-rs/crc32') as { crc32c: Crc32c }).crc32c;
  let crc = 0;
  for (const chunk of chunks) crc = native(chunk, crc);
  return crc;
}
