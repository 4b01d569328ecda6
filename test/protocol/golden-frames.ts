import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/**
 * Frames that other people's clients sent and that a real Kafka answered, as `capture-frames.ts` recorded them:
 * a file for each client, a line for each frame.
 *
 *   Produce 9 request zstd 00000003…
 */

export interface GoldenFrame {
  readonly client: string;
  readonly api: string;
  readonly version: number;
  readonly direction: 'request' | 'response';
  /** The compression codec of the records inside; `-` without records. */
  readonly codec: string;
  /** The frame without its size. */
  readonly bytes: Buffer;
}

/** Found by the package's name: this file runs from the sources and from dist/. */
const directory = join(
  dirname(createRequire(import.meta.url).resolve('@rookery/test/package.json')),
  'protocol/golden',
);

export function readGoldenFrames(): GoldenFrame[] {
  return readdirSync(directory).flatMap((file) =>
    readFileSync(join(directory, file), 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line): GoldenFrame => {
        const [api, version, direction, codec, hex] = line.split(' ') as [
          string,
          string,
          string,
          string,
          string,
        ];
        return {
          client: file.replace('.txt', ''),
          api,
          version: Number(version),
          direction: direction as GoldenFrame['direction'],
          codec,
          bytes: Buffer.from(hex, 'hex'),
        };
      }),
  );
}

export function writeGoldenFrames(client: string, frames: readonly GoldenFrame[]): void {
  const lines = frames.map(
    ({ api, version, direction, codec, bytes }) =>
      `${api} ${version} ${direction} ${codec} ${bytes.toString('hex')}`,
  );
  const text = [`# Recorded by capture-frames.ts; see there.`, ...lines, ''].join('\n');
  writeFileSync(join(directory, `${client}.txt`), text);
}
