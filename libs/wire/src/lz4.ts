import { WireError } from './errors.ts';

/**
 * The LZ4 frame format, decoded block by block against a budget: the library's one-shot call would allocate
 * whatever the frame announces.
 *
 *   04 22 4D 18  flags  block-size  [content size:u64]  [dictionary id:u32]  header checksum
 *   (size:u32 block [checksum:u32])…  00 00 00 00  [content checksum:u32]
 *
 * The highest bit of a block's size says that the block is stored as it is. Checksums are passed over: the
 * batch's CRC-32C already covers these bytes.
 */

const magic = 0x184d2204;
const storedBit = 0x80000000;
const blockBytesByCode = [0, 0, 0, 0, 65_536, 262_144, 1_048_576, 4_194_304];

export function decompressLz4Frame(bytes: Buffer, outputMax: number): Buffer {
  if (bytes.length < 7 || bytes.readUInt32LE(0) !== magic) throw malformed('no frame begins here');
  const flags = bytes[4]!;
  if (flags >>> 6 !== 1) throw malformed(`version ${flags >>> 6}`);
  const hasDictionary = (flags & 0x01) !== 0;
  const hasContentChecksum = (flags & 0x04) !== 0;
  const hasContentSize = (flags & 0x08) !== 0;
  const hasBlockChecksums = (flags & 0x10) !== 0;
  if (hasDictionary) throw malformed('dictionaries are not carried in Kafka');
  const blockMax = blockBytesByCode[(bytes[5]! >>> 4) & 0x07]!;
  if (blockMax === 0) throw malformed('an unknown block size');
  // The frame's block size is what the sender likes to say; the bytes that came are what is known.
  const output = new Output(outputMax, Math.min(blockMax, 4 * bytes.length));
  let at = 6 + (hasContentSize ? 8 : 0) + 1;
  for (;;) {
    if (bytes.length - at < 4) throw malformed('the bytes end before the end mark');
    const word = bytes.readUInt32LE(at);
    at += 4;
    if (word === 0) break;
    const size = word & ~storedBit;
    if (size > bytes.length - at) throw malformed(`a block of ${size} bytes in ${bytes.length - at}`);
    const block = bytes.subarray(at, at + size);
    if (word >= storedBit) output.append(block);
    else decompressBlock(block, output);
    at += size + (hasBlockChecksums ? 4 : 0);
  }
  if (bytes.length - at !== (hasContentChecksum ? 4 : 0)) throw malformed('bytes after the end mark');
  return output.finish();
}

/** A growing buffer with a limit; blocks may refer back into what came before them. */
class Output {
  bytes: Buffer;
  length = 0;
  readonly #max: number;

  constructor(max: number, capacity: number) {
    this.#max = max;
    this.bytes = Buffer.allocUnsafe(Math.min(max, capacity));
  }

  room(size: number): void {
    const needed = this.length + size;
    if (needed <= this.bytes.length) return;
    if (needed > this.#max) throw new WireError('RK9105', `lz4: ${this.#max} bytes`);
    const larger = Buffer.allocUnsafe(Math.min(this.#max, Math.max(needed, this.bytes.length * 2)));
    this.bytes.copy(larger, 0, 0, this.length);
    this.bytes = larger;
  }

  append(bytes: Buffer): void {
    this.room(bytes.length);
    bytes.copy(this.bytes, this.length);
    this.length += bytes.length;
  }

  finish(): Buffer {
    return this.bytes.subarray(0, this.length);
  }
}

/**
 * One block: sequences of (token, literals, distance, match). A token's nibbles are the lengths; 15 says that
 * more bytes of length follow. The last sequence ends after its literals.
 */
function decompressBlock(block: Buffer, output: Output): void {
  let at = 0;
  const more = (length: number): number => {
    if (length !== 15) return length;
    let byte: number | undefined;
    do {
      byte = block[at++];
      if (byte === undefined) throw malformed('the block ends inside a length');
      length += byte;
    } while (byte === 255);
    return length;
  };
  while (at < block.length) {
    const token = block[at++]!;
    const literals = more(token >>> 4);
    if (literals > block.length - at) throw malformed('the block ends inside literals');
    output.room(literals);
    block.copy(output.bytes, output.length, at, at + literals);
    output.length += literals;
    at += literals;
    if (at === block.length) return;
    if (block.length - at < 2) throw malformed('the block ends inside a distance');
    const distance = block[at]! | (block[at + 1]! << 8);
    at += 2;
    copyMatch(output, distance, more(token & 0x0f) + 4);
  }
}

function copyMatch(output: Output, distance: number, length: number): void {
  if (distance === 0 || distance > output.length) throw malformed(`a match ${distance} bytes back`);
  output.room(length);
  const { bytes } = output;
  const to = output.length;
  const from = to - distance;
  if (distance >= length) bytes.copyWithin(to, from, from + length);
  // The match overlaps what it makes: a run, copied byte by byte because each byte may be one just written.
  else for (let i = 0; i < length; i++) bytes[to + i] = bytes[from + i]!;
  output.length = to + length;
}

interface Lz4 {
  compressFrameSync(bytes: Buffer): Buffer;
}

export function compressLz4Frame(bytes: Buffer, require: NodeJS.Require): Buffer {
  return (require('lz4-napi') as Lz4).compressFrameSync(bytes);
}

const malformed = (what: string): WireError => new WireError('RK9104', `lz4: ${what}`);
