import { readFileSync } from 'node:fs';
import { inflateRawSync } from 'node:zlib';

const endOfDirectory = 0x06054b50;
const endSize = 22;
const entryHeader = 0x02014b50;
const entrySize = 46;
const localSize = 30;
const deflated = 8;

/** The files of a jar (a zip without encryption or 64-bit sizes) whose names `wanted` picks. */
export function readJar(path: string, wanted: (name: string) => boolean): Map<string, Buffer> {
  const jar = readFileSync(path);
  let end = jar.length - endSize;
  while (end >= 0 && jar.readUInt32LE(end) !== endOfDirectory) end--;
  if (end < 0) throw new Error(`${path} is not a jar`);
  const files = new Map<string, Buffer>();
  let at = jar.readUInt32LE(end + 16);
  for (let left = jar.readUInt16LE(end + 10); left > 0; left--) {
    if (jar.readUInt32LE(at) !== entryHeader) throw new Error(`${path}: the directory is damaged at ${at}`);
    const nameLength = jar.readUInt16LE(at + 28);
    const name = jar.toString('utf8', at + entrySize, at + entrySize + nameLength);
    if (wanted(name)) files.set(name, contentOf(jar, at));
    at += entrySize + nameLength + jar.readUInt16LE(at + 30) + jar.readUInt16LE(at + 32);
  }
  return files;
}

function contentOf(jar: Buffer, entry: number): Buffer {
  const local = jar.readUInt32LE(entry + 42);
  const start = local + localSize + jar.readUInt16LE(local + 26) + jar.readUInt16LE(local + 28);
  const packed = jar.subarray(start, start + jar.readUInt32LE(entry + 20));
  return jar.readUInt16LE(entry + 10) === deflated ? inflateRawSync(packed) : packed;
}
