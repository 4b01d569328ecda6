import { systemClock } from '../clock.ts';
import { SidecarError } from '../errors.ts';
import { inTime, withClient, type BrokerFlags } from './with-client.ts';

export interface ProduceFlags extends BrokerFlags {
  readonly keySeparator?: string;
}

const deliveredWithinMs = 30_000;
/** Bytes of lines that may wait for their acknowledgement before more are read. */
const waitingBytesMax = 8 * 1024 * 1024;
/** What even an empty line takes while it waits. */
const recordBytes = 100;
/** No broker takes a record as large as this; a line without an end must not fill the memory. */
const lineBytesMax = 32 * 1024 * 1024;

/** `rookery produce TOPIC`: every line of the input becomes a record. Ends when all are acknowledged. */
export function produce(topic: string, flags: ProduceFlags): Promise<void> {
  const separator = flags.keySeparator === undefined ? null : Buffer.from(flags.keySeparator);
  if (separator?.length === 0) throw new SidecarError('RK0101', '--key-separator is empty');
  return withClient(flags, async (client) => {
    // The producer would create a topic that is not there: a typing error is no reason to.
    const { length: partitions } = await inTime((signal) => client.admin().leadersOf(topic, signal));
    const producer = client.producer({ deliveryTimeoutMs: deliveredWithinMs });
    let failure: Error | null = null;
    const failed = (error: Error): void => void (failure ??= error);
    const delivered = (): void => {};
    let waitingBytes = 0;
    for await (const line of linesOf(process.stdin)) {
      const { key, value } = recordOf(line, separator);
      const partition = producer.place(topic, key, partitions);
      producer.append(topic, partition, { key, value, timestamp: systemClock.now() }, { delivered, failed });
      waitingBytes += line.length + recordBytes;
      if (waitingBytes >= waitingBytesMax) {
        await producer.flush();
        waitingBytes = 0;
      }
      if (failure !== null) break;
    }
    await producer.flush();
    if (failure !== null) throw failure as Error;
  });
}

/** Up to the first separator is the key; a line without one has none. */
function recordOf(line: Buffer, separator: Buffer | null): { key: Buffer | null; value: Buffer } {
  const at = separator === null ? -1 : line.indexOf(separator);
  return at < 0
    ? { key: null, value: line }
    : { key: line.subarray(0, at), value: line.subarray(at + separator!.length) };
}

/** Lines as bytes, whatever their encoding. What follows the last line end is a line if there is anything. */
async function* linesOf(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const newline = 0x0a;
  let begun: Buffer[] = [];
  let begunBytes = 0;
  for await (const chunk of input) {
    let from = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, from)) {
      const rest = chunk.subarray(from, end);
      yield begunBytes === 0 ? rest : Buffer.concat([...begun, rest]);
      begun = [];
      begunBytes = 0;
      from = end + 1;
    }
    if (from === chunk.length) continue;
    begun.push(chunk.subarray(from));
    begunBytes += chunk.length - from;
    if (begunBytes > lineBytesMax)
      throw new SidecarError('RK0101', `a line of more than ${lineBytesMax} bytes cannot be a record`);
  }
  if (begunBytes > 0) yield Buffer.concat(begun);
}
