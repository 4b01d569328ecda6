import {
  ByteReader,
  ByteWriter,
  decoderOf,
  encoderOf,
  fetch,
  metadata,
  offsetCommit,
  produce,
  walkDecode,
  walkEncode,
  type Message,
} from '@rookery/wire';
import { arbitraryMessage } from '../protocol/arbitrary-message.ts';
import { Random } from '../protocol/random.ts';
import { median, shown, table } from './figures.ts';

const seed = 1;
/** Different values, so that neither codec learns one by heart. */
const values = 64;
const measuredMs = 100;

/** What brokers and clients code most: of the largest version, the one that is spoken. */
const messages: readonly Message[] = [
  produce.request,
  produce.response,
  fetch.request,
  fetch.response,
  metadata.response,
  offsetCommit.request,
];

export interface CodecRow {
  readonly message: string;
  readonly direction: 'encode' | 'decode';
  /** Nanoseconds a message, of every round. */
  readonly compiled: number[];
  readonly walked: number[];
}

/** Both codecs over the same messages, in turn. */
export function compareCodecs(rounds: number): CodecRow[] {
  return messages.flatMap((message) => {
    const version = message.versions[1];
    const random = new Random(seed);
    const structs = Array.from({ length: values }, () => arbitraryMessage(message, version, random));
    const frames = structs.map((struct) => {
      const writer = new ByteWriter();
      walkEncode(message, version, writer, struct);
      return writer.join();
    });
    const [encode, decode] = [encoderOf(message, version), decoderOf(message, version)];
    const name = `${message.name} v${version}`;
    return [
      row(name, 'encode', rounds, {
        compiled: (i) => encode(new ByteWriter(), structs[i]!),
        walked: (i) => walkEncode(message, version, new ByteWriter(), structs[i]!),
      }),
      row(name, 'decode', rounds, {
        compiled: (i) => decode(new ByteReader(frames[i]!)),
        walked: (i) => walkDecode(message, version, new ByteReader(frames[i]!)),
      }),
    ];
  });
}

function row(
  message: string,
  direction: CodecRow['direction'],
  rounds: number,
  codec: { compiled(i: number): unknown; walked(i: number): unknown },
): CodecRow {
  const result: CodecRow = { message, direction, compiled: [], walked: [] };
  nanoseconds(codec.compiled);
  nanoseconds(codec.walked);
  for (let round = 0; round < rounds; round++) {
    result.compiled.push(nanoseconds(codec.compiled));
    result.walked.push(nanoseconds(codec.walked));
  }
  return result;
}

function nanoseconds(once: (i: number) => unknown): number {
  const started = performance.now();
  let count = 0;
  let spent = 0;
  do {
    for (let i = 0; i < values; i++) once(i);
    count += values;
    spent = performance.now() - started;
  } while (spent < measuredMs);
  return (spent * 1e6) / count;
}

export function codecTable(rows: readonly CodecRow[]): string {
  return table(
    ['message', 'direction', 'walked, ns', 'compiled, ns', 'ratio'],
    rows.map(({ message, direction, ...each }) => {
      const [walked, compiled] = [median(each.walked), median(each.compiled)];
      return [message, direction, shown(walked), shown(compiled), `${shown(walked / compiled)}×`];
    }),
  );
}
