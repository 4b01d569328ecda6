import { createRequire } from 'node:module';
import { constants, gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { WireError } from './errors.ts';
import { compressLz4Frame, decompressLz4Frame } from './lz4.ts';
import type { CompressionCodec } from './record-batch.ts';
import { compressXerial, decompressSnappy } from './snappy.ts';

/**
 * The four codecs of record batches, each bounded: nothing is decompressed past `outputMax` bytes, whatever
 * the compressed bytes claim. The native modules behind snappy and lz4 load with their first use.
 */

const require = createRequire(import.meta.url);

/**
 * @param level of gzip and zstd; their own default where nothing is said
 * @throws WireError RK9012 when the codec fails on bytes that it should take
 */
export function compress(codec: CompressionCodec, bytes: Buffer, level: number | null = null): Buffer {
  switch (codec) {
    case 'none':
      return bytes;
    case 'gzip':
      return gzipSync(bytes, level === null ? {} : { level });
    case 'zstd':
      return zstdCompressSync(
        bytes,
        level === null ? {} : { params: { [constants.ZSTD_c_compressionLevel]: level } },
      );
    case 'snappy':
      return compressXerial(bytes, require);
    case 'lz4':
      return compressLz4Frame(bytes, require);
  }
}

/**
 * @param outputMax the most bytes that may come out
 * @throws WireError RK9104 for malformed bytes, RK9105 for more than `outputMax`
 */
export function decompress(codec: CompressionCodec, bytes: Buffer, outputMax: number): Buffer {
  switch (codec) {
    case 'none':
      return bytes;
    case 'gzip':
      return bounded(bytes, outputMax, (options) => gunzipSync(bytes, options));
    case 'zstd':
      // The window is memory that the sender chooses; 8 MiB is what Kafka's own levels use at the most.
      return bounded(bytes, outputMax, (options) =>
        zstdDecompressSync(bytes, { ...options, params: { [constants.ZSTD_d_windowLogMax]: 23 } }),
      );
    case 'snappy':
      return decompressSnappy(bytes, outputMax, require);
    case 'lz4':
      return decompressLz4Frame(bytes, outputMax);
  }
}

/** What Node's calls answer when they are asked for `info`, which its types do not know. */
interface Inflated {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

function bounded(
  bytes: Buffer,
  outputMax: number,
  inflate: (options: { info: true; maxOutputLength: number }) => unknown,
): Buffer {
  let inflated: Inflated;
  try {
    inflated = inflate({ info: true, maxOutputLength: Math.max(1, outputMax) }) as Inflated;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ERR_BUFFER_TOO_LARGE') throw new WireError('RK9105', `${outputMax} bytes`);
    throw new WireError('RK9104', message, { cause: error });
  }
  // Node stops at the end of the first zstd frame, and of gzip's last member, without a word.
  const { buffer, engine } = inflated;
  if (engine.bytesWritten !== bytes.length) {
    throw new WireError('RK9104', `${bytes.length - engine.bytesWritten} bytes after the end`);
  }
  if (buffer.length > outputMax) throw new WireError('RK9105', `${outputMax} bytes`);
  return buffer;
}
