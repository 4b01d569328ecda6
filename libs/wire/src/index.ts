export { ByteReader, safe } from './byte-reader.ts';
export { ByteWriter } from './byte-writer.ts';
export { apiOf, catalogue, dataMessages } from './catalogue.ts';
export { decoderOf, encoderOf } from './compile.ts';
export { crc32c } from './crc32c.ts';
export { ErrorCode, errorName, errorRows, isRetriable } from './error-codes.ts';
export type { ErrorName } from './error-codes.ts';
export { WireError, wireErrors } from './errors.ts';
export type { WireErrorCode } from './errors.ts';
export * from './frame.ts';
export * from './messages/configs.ts';
export * from './messages/fetch.ts';
export * from './messages/group-admin.ts';
export * from './messages/group-records.ts';
export * from './messages/groups.ts';
export * from './messages/log-dirs.ts';
export * from './messages/metadata.ts';
export * from './messages/offsets.ts';
export * from './messages/produce.ts';
export * from './messages/topics.ts';
export * from './messages/transactions.ts';
export { murmur2, partitionFor } from './murmur2.ts';
export { batchHeaderSize, batchOverhead, RecordBatch } from './record-batch.ts';
export type { CompressionCodec } from './record-batch.ts';
export {
  decodeRecords,
  decompressedMax,
  eachRecord,
  encodeBatch,
  filterBatch,
  recompressBatch,
} from './records.ts';
export type { BatchOptions, LogRecord, NewRecord, RecordHeader } from './records.ts';
export type {
  AnyField,
  Api,
  ByteSpan,
  Decoded,
  Encodable,
  Fields,
  Message,
  Request,
  Response,
} from './schema.ts';
export { defaultOf, exists, isNullable, isTagged, zeroUuid } from './schema.ts';
export { sizeOf, walkDecode, walkEncode } from './walk.ts';
export type { Trace } from './walk.ts';
