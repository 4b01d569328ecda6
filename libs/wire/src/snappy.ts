import { WireError } from './errors.ts';

/**
 * Snappy, raw or in the framing of the xerial library that Java clients use:
 *
 *   82 'SNAPPY' 00  version:i32  compatible:i32  (length:i32 block)…
 *
 * Each block is raw snappy, which begins with its uncompressed length: that is checked against the budget,
 * and against what so few bytes can make, before memory is taken for it.
 */

const magic = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0x00]);
const headerSize = 16;
const blockBytes = 32 * 1024;
/** The densest element is a copy of 64 bytes in 3. */
const ratioMax = 64 / 3;

interface Snappy {
  compressSync(bytes: Uint8Array): Buffer;
  uncompressSync(bytes: Uint8Array, options: { asBuffer: true }): Buffer;
}

const load = (require: NodeJS.Require): Snappy => require('snappy') as Snappy;

export function compressXerial(bytes: Buffer, require: NodeJS.Require): Buffer {
  const snappy = load(require);
  const header = Buffer.alloc(headerSize);
  magic.copy(header);
  header.writeInt32BE(1, 8);
  header.writeInt32BE(1, 12);
  const pieces: Buffer[] = [header];
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const block = snappy.compressSync(bytes.subarray(at, at + blockBytes));
    const length = Buffer.alloc(4);
    length.writeInt32BE(block.length);
    pieces.push(length, block);
  }
  return Buffer.concat(pieces);
}

export function decompressSnappy(bytes: Buffer, outputMax: number, require: NodeJS.Require): Buffer {
  const snappy = load(require);
  const isFramed = bytes.length >= headerSize && bytes.subarray(0, magic.length).equals(magic);
  if (!isFramed) return block(snappy, bytes, outputMax);
  const pieces: Buffer[] = [];
  let left = outputMax;
  for (let at = headerSize; at < bytes.length;) {
    if (bytes.length - at < 4) throw malformed('the bytes end inside a block length');
    const length = bytes.readInt32BE(at);
    at += 4;
    if (length < 0 || length > bytes.length - at)
      throw malformed(`a block of ${length} bytes in ${bytes.length - at}`);
    const piece = block(snappy, bytes.subarray(at, at + length), left);
    left -= piece.length;
    pieces.push(piece);
    at += length;
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

function block(snappy: Snappy, bytes: Buffer, outputMax: number): Buffer {
  const length = uncompressedLength(bytes);
  if (length > outputMax) throw new WireError('RK9105', `${length} bytes of ${outputMax}`);
  if (length > bytes.length * ratioMax) throw malformed(`${length} bytes from a block of ${bytes.length}`);
  try {
    return snappy.uncompressSync(bytes, { asBuffer: true });
  } catch (error) {
    throw new WireError('RK9104', (error as Error).message, { cause: error });
  }
}

/** The variable-length number that every raw snappy block begins with. */
function uncompressedLength(bytes: Buffer): number {
  let length = 0;
  for (let i = 0; i < 5; i++) {
    const byte = bytes[i];
    if (byte === undefined) throw malformed('the bytes end inside the length');
    length += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return length;
  }
  throw malformed('a length of more than 5 bytes');
}

const malformed = (what: string): WireError => new WireError('RK9104', `snappy: ${what}`);
