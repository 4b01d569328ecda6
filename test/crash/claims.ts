import { assert } from '@rookery/sidecar/rooms/invariant';
import type { PartitionLog } from '@rookery/sidecar/rooms/log/partition-log';
import { readFile } from '@rookery/sidecar/rooms/vfs/file-system';
import { FileRegion } from '@rookery/sidecar/rooms/vfs/file-region';
import { decodeRecords, RecordBatch, type ByteSpan, type LogRecord } from '@rookery/wire';
import type { KnownBatch, Promised } from './history.ts';
import type { Machine } from './machine.ts';

/**
 * What must be true of a log that was recovered from a crash, one claim a function. Each yields what it finds
 * wrong, in words; `claims.test.ts` shows for each of them a log that it finds wrong.
 */
type Claim = (log: PartitionLog, promised: Promised, machine: Machine) => Generator<string>;

/** A crash alone never takes a partition out of service: what was synced is on the disk. */
function* isOnline(log: PartitionLog): Generator<string> {
  if (log.offlineReason !== null) yield `it is offline: ${log.offlineReason}`;
}

/** Nothing acknowledged is lost, nothing is there that nobody sent, and what was deleted stays so. */
function* holdsWhatWasPromised(log: PartitionLog, promised: Promised): Generator<string> {
  const { logEndOffset, logStartOffset, durableEndOffset } = log;
  const { end, batches, start, startMax } = promised;
  if (logEndOffset < end) yield `it ends at ${logEndOffset}, ${end} was promised`;
  const appendedEnd = (batches.at(-1)?.lastOffset ?? -1) + 1;
  if (logEndOffset > Math.max(appendedEnd, logStartOffset))
    yield `it ends at ${logEndOffset}, only ${appendedEnd} was ever appended`;
  if (durableEndOffset !== logEndOffset)
    yield `readers see up to ${durableEndOffset} of ${logEndOffset} after recovery`;
  if (logStartOffset < start) yield `it starts at ${logStartOffset}, everything before ${start} was deleted`;
  if (logStartOffset > startMax)
    yield `it starts at ${logStartOffset}, nothing from ${startMax} on was deleted`;
  if (logStartOffset > logEndOffset) yield `it starts at ${logStartOffset}, after its end ${logEndOffset}`;
}

/** The files hold the batches that were sent, whole, in order, each once, and not a byte more. */
function* filesHoldWholeBatches(log: PartitionLog, promised: Promised, machine: Machine): Generator<string> {
  const names = machine.disk.list(log.directory).filter((name) => /^\d+\.log$/.test(name));
  const bases = names.map((name) => Number(name.slice(0, -4)));
  // What is deleted may be there still, in part: its files go one after another.
  const first = Math.max(
    0,
    bases.findLastIndex((base) => base <= log.logStartOffset),
  );
  if (bases.length > 0 && bases[first]! > log.logStartOffset)
    yield `its first file begins at ${bases[first]}, the log at ${log.logStartOffset}`;
  const stored = names.slice(first).map((name) => readFile(machine.disk, `${log.directory}/${name}`)!);
  const sent = new Map(promised.batches.map((batch) => [batch.baseOffset, batch]));
  const missing = new Set(batchesOf(log, promised).map(({ baseOffset }) => baseOffset));
  let nextOffset = 0;
  for (const [index, bytes] of stored.entries()) {
    for (let at = 0; at < bytes.length;) {
      const offset = at + 8 <= bytes.length ? Number(bytes.readBigInt64BE(at)) : -1;
      const batch = sent.get(offset);
      const place = `${names[first + index]} at ${at}`;
      if (batch === undefined || !batch.bytes.equals(bytes.subarray(at, at + batch.bytes.length))) {
        yield `${place} of ${bytes.length} stands what nobody sent`;
        break;
      }
      if (offset < nextOffset) yield `${place} stands offset ${offset}, again or out of order`;
      missing.delete(offset);
      nextOffset = batch.lastOffset + 1;
      at += batch.bytes.length;
    }
  }
  if (nextOffset > log.logEndOffset) yield `its files end at ${nextOffset}, the log at ${log.logEndOffset}`;
  if (missing.size > 0) yield `its files lack the batches at ${[...missing].join(', ')}`;
}

/** Each key has its last record, unless that deletes it; every record is one that was sent, and they are in order. */
function* keysHaveTheirLast(log: PartitionLog, promised: Promised): Generator<string> {
  const sent = new Map<number, LogRecord>();
  const last = new Map<string, LogRecord>();
  for (const batch of batchesOf(log, promised)) {
    for (const record of decodeRecords(RecordBatch.split([batch.bytes])[0]!)) {
      sent.set(record.offset, record);
      if (record.offset >= log.logStartOffset) last.set(String(record.key), record);
    }
  }
  let nextOffset = log.logStartOffset;
  while (nextOffset < log.logEndOffset) {
    const batches = RecordBatch.split(log.read(nextOffset, 1, Infinity, true).spans.map(bytesOf));
    if (batches.length === 0) break;
    for (const batch of batches) {
      for (const { offset, key, value } of decodeRecords(batch)) {
        const own = sent.get(offset);
        if (String(own?.key) !== String(key) || String(own?.value) !== String(value))
          yield `offset ${offset} holds what nobody sent`;
        if (last.get(String(key))?.offset === offset) last.delete(String(key));
      }
      if (batch.lastOffset < nextOffset) return yield `after ${nextOffset} comes ${batch.lastOffset} again`;
      nextOffset = batch.nextOffset;
    }
  }
  for (const [key, { offset, value }] of last)
    if (value !== null) yield `${key} has lost its last record, at ${offset}`;
}

/** Every batch is found by any of its offsets. */
function* offsetsAreFound(log: PartitionLog, promised: Promised): Generator<string> {
  for (const { baseOffset, lastOffset, bytes } of batchesOf(log, promised)) {
    const offset = Math.max(log.logStartOffset, (baseOffset + lastOffset) >> 1);
    const read = Buffer.concat(log.read(offset, 1, Infinity, true).spans.map(bytesOf));
    if (!read.equals(bytes)) yield `a read at ${offset} gives ${describe(read)}, not ${describe(bytes)}`;
  }
}

/** Which epoch wrote an offset is what the batches themselves say. */
function* epochsAreTheBatches(log: PartitionLog, promised: Promised): Generator<string> {
  for (const { baseOffset, lastOffset, leaderEpoch } of batchesOf(log, promised)) {
    for (const offset of [Math.max(baseOffset, log.logStartOffset), lastOffset]) {
      const epoch = log.epochOf(offset);
      if (epoch !== leaderEpoch) yield `offset ${offset} is of epoch ${leaderEpoch}, it says ${epoch}`;
    }
  }
}

/** What is known of the producers is what their batches say. */
function* producersAreTheBatches(log: PartitionLog, promised: Promised): Generator<string> {
  const known = new Map(log.describeProducers().map((producer) => [producer.producerId, producer]));
  for (const { lastOffset } of known.values())
    if (lastOffset >= log.logEndOffset) yield `a producer has sent ${lastOffset}, the log ends before`;
  const last = new Map(batchesOf(log, promised).map((batch) => [batch.producerId, batch]));
  for (const [producerId, { lastSequence, lastOffset }] of last) {
    if (producerId < 0) continue;
    const said = known.get(producerId);
    if (said?.lastSequence !== lastSequence || said.lastOffset !== lastOffset)
      yield `producer ${producerId} ended with ${lastSequence} at ${lastOffset}, it says ${said?.lastSequence} at ${said?.lastOffset}`;
  }
}

const claimsOfAll: readonly Claim[] = [
  isOnline,
  holdsWhatWasPromised,
  epochsAreTheBatches,
  producersAreTheBatches,
];
const claimsOfWhole: readonly Claim[] = [...claimsOfAll, filesHoldWholeBatches, offsetsAreFound];
const claimsOfCompacted: readonly Claim[] = [...claimsOfAll, keysHaveTheirLast];

/** What is wrong with the recovered logs, in words; nothing when every promise is kept. */
export function brokenClaims(machine: Machine, promises: readonly Promised[]): string[] {
  const broken: string[] = [];
  for (const promised of promises) {
    const log = machine.log(promised.topic);
    const say = (what: string): void => void broken.push(`${promised.topic}: ${what}`);
    if (log === undefined) {
      if (promised.existence === 'there') say('it is gone');
    } else if (promised.existence === 'gone') {
      say('it is there, and nobody made it');
    } else {
      const served = promised.isCompacted ? claimsOfCompacted : claimsOfWhole;
      // Of what is not served nothing else can be seen.
      const claims = log.offlineReason === null ? served : [isOnline];
      for (const claim of claims) for (const what of claim(log, promised, machine)) say(what);
    }
  }
  return broken;
}

/** Times lead to the first record that is as young. Apart, because it has to wait for the disk. */
export async function brokenTimeLookups(machine: Machine, promises: readonly Promised[]): Promise<string[]> {
  const broken: string[] = [];
  for (const promised of promises) {
    const log = machine.log(promised.topic);
    if (log === undefined || log.offlineReason !== null || promised.isCompacted) continue;
    const records = batchesOf(log, promised)
      .flatMap(({ bytes }) => decodeRecords(RecordBatch.split([bytes])[0]!))
      .filter(({ offset }) => offset >= log.logStartOffset);
    for (const timestamp of new Set(records.map((record) => record.timestamp))) {
      const wanted = records.find((record) => record.timestamp >= timestamp)!.offset;
      const found = (await log.offsetForTimestamp(timestamp))?.offset;
      if (found !== wanted)
        broken.push(`${promised.topic}: time ${timestamp} leads to ${found}, not to ${wanted}`);
    }
  }
  return broken;
}

/** What a log is, in a word: equal for logs that nobody can tell apart. */
export function stateOf(machine: Machine): string {
  const states = [...machine.logs.all()].map((log) => {
    const names = machine.disk.list(log.directory).filter((name) => name.endsWith('.log'));
    const files = names.map((name) => `${name}:${machine.disk.size(`${log.directory}/${name}`)}`);
    const epochs = Array.from({ length: log.latestEpoch + 1 }, (_, epoch) => {
      const { leaderEpoch, endOffset } = log.endOffsetForEpoch(epoch);
      return `${leaderEpoch}:${endOffset}`;
    });
    const { name, logStartOffset, logEndOffset, offlineReason } = log;
    return [name, logStartOffset, logEndOffset, offlineReason, files.join(','), epochs.join(',')].join(' ');
  });
  return states.sort().join('\n');
}

function bytesOf(span: ByteSpan): Buffer {
  assert(span instanceof FileRegion, 'a log is read by regions of its files');
  const bytes = span.readNow();
  span.release();
  return bytes;
}

/** The batches that must be in the log. */
const batchesOf = (log: PartitionLog, { batches }: Promised): readonly KnownBatch[] =>
  batches.filter(({ lastOffset }) => lastOffset >= log.logStartOffset && lastOffset < log.logEndOffset);

const describe = (bytes: Buffer): string =>
  bytes.length < 61
    ? `${bytes.length} bytes`
    : `${bytes.length} bytes from offset ${bytes.readBigInt64BE(0)} on`;
