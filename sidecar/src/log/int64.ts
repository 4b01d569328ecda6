/**
 * 64-bit numbers of the log's files, big-endian, as doubles: half the cost of a BigInt. What a double cannot hold
 * exactly is read as the nearest one, so that damaged bytes give a wrong number and never an exception.
 */

export const readInt64 = (bytes: Buffer, at: number): number =>
  bytes.readInt32BE(at) * 0x100000000 + bytes.readUInt32BE(at + 4);

export function writeInt64(bytes: Buffer, at: number, value: number): void {
  bytes.writeInt32BE(Math.floor(value / 0x100000000), at);
  bytes.writeUInt32BE(value >>> 0, at + 4);
}
