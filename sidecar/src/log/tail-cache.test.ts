import { describe, expect, test } from 'vitest';
import { RecordBatch } from '@rookery/wire';
import { ManualClock } from '../manual-clock.ts';
import type { FileRegion } from '../vfs/file-region.ts';
import { batchOf, openMemoryLogs } from './memory-logs.ts';
import type { PartitionLog } from './partition-log.ts';
import type { Segment } from './segment.ts';
import { Tail, TailCache } from './tail-cache.ts';

const seed = Number(process.env['ROOKERY_SEED'] ?? 1);
const plenty = 1024 * 1024;
/** Tails only compare segments. */
const segment = { baseOffset: 0 } as Segment;
const next = { baseOffset: 100 } as Segment;

/** A batch in memory of its own, as it comes from a socket. */
function batchAt(baseOffset: number, value = 'value'): RecordBatch {
  const bytes = new Uint8Array(Buffer.concat(batchOf([value]).chunks));
  const [batch] = RecordBatch.split([Buffer.from(bytes.buffer)]);
  batch!.setBaseOffset(baseOffset);
  return batch!;
}

/** Adds batches one behind the other, from offset and position 0 on. */
function fill(tail: Tail, count: number, value?: string): RecordBatch[] {
  const batches: RecordBatch[] = [];
  let position = 0;
  for (let offset = 0; offset < count; offset++) {
    const batch = batchAt(offset, value);
    tail.add(batch, segment, position);
    position += batch.sizeInBytes;
    batches.push(batch);
  }
  return batches;
}

describe('what is kept', () => {
  test('nothing, until somebody has read to the end', () => {
    const cache = new TailCache(plenty);
    const tail = cache.tail();
    fill(tail, 3);
    expect(cache.bytes).toBe(0);
    tail.reachedEnd();
    fill(tail, 3);
    expect(cache.bytes).toBeGreaterThan(0);
  });

  test('whole batches, found by offset and read by position, the last one cut where the reader wants', () => {
    const tail = new TailCache(plenty).tail();
    tail.reachedEnd();
    const batches = fill(tail, 4);
    const bytes = Buffer.concat(batches.flatMap(({ chunks }) => chunks));
    const size = batches[0]!.sizeInBytes;
    expect(tail.find(segment, 2)).toMatchObject({ baseOffset: 2, position: 2 * size });
    expect(tail.find(segment, 4)).toBeNull();
    expect(Buffer.concat(tail.read(segment, size, size + 10)!)).toEqual(bytes.subarray(size, 2 * size + 10));
    expect(tail.read(segment, 3 * size, size + 1)).toBeNull();
  });

  test('offsets that compaction left out are found as the batch behind them', () => {
    const tail = new TailCache(plenty).tail();
    tail.reachedEnd();
    const first = batchAt(5);
    tail.add(first, segment, 0);
    tail.add(batchAt(20), segment, first.sizeInBytes);
    expect(tail.find(segment, 4)).toBeNull();
    expect(tail.find(segment, 6)).toMatchObject({ baseOffset: 20 });
  });

  test('a new segment, and a log that was cut, begin anew', () => {
    const tail = new TailCache(plenty).tail();
    tail.reachedEnd();
    const [batch] = fill(tail, 3);
    tail.add(batchAt(100), next, 0);
    expect(tail.find(segment, 0)).toBeNull();
    expect(tail.find(next, 100)).toMatchObject({ position: 0 });
    tail.add(batchAt(101), next, batch!.sizeInBytes);
    tail.add(batchAt(101, 'another'), next, batch!.sizeInBytes);
    expect(tail.find(next, 100)).toBeNull();
    expect(tail.find(next, 101)).toMatchObject({ position: batch!.sizeInBytes });
  });

  test('with a budget of 0, nothing', () => {
    const cache = new TailCache(0);
    const tail = cache.tail();
    tail.reachedEnd();
    fill(tail, 3);
    expect([cache.bytes, tail.find(segment, 0)]).toEqual([0, null]);
  });
});

describe('the budget', () => {
  test('counts all of the memory that a slice holds, and counts it once', () => {
    const cache = new TailCache(plenty);
    const tail = cache.tail();
    tail.reachedEnd();
    const one = batchOf(['value']).chunks[0]!;
    const arrived = Buffer.from(new ArrayBuffer(50_000));
    one.copy(arrived, 0);
    one.copy(arrived, one.length);
    const [first, second] = RecordBatch.split([arrived.subarray(0, 2 * one.length)]);
    tail.add(first!, segment, 0);
    const alone = cache.bytes;
    tail.add(second!, segment, one.length);
    expect(alone).toBeGreaterThanOrEqual(50_000);
    expect(cache.bytes - alone).toBeLessThan(1_000);
    tail.clear();
    expect(cache.bytes).toBe(0);
  });

  test('is kept by the tail that was read longest ago giving up its oldest', () => {
    const cache = new TailCache(20_000);
    const [idle, busy] = [cache.tail(), cache.tail()];
    for (const tail of [idle, busy]) {
      tail.reachedEnd();
      fill(tail, 5, 'x'.repeat(1000));
      tail.reachedEnd();
    }
    idle.reachedEnd();
    busy.reachedEnd();
    const last = busy.find(segment, 4)!;
    let position = last.position + last.sizeInBytes;
    for (let offset = 5; offset < 12; offset++) {
      const batch = batchAt(offset, 'x'.repeat(1000));
      busy.add(batch, segment, position);
      position += batch.sizeInBytes;
    }
    expect(cache.bytes).toBeLessThanOrEqual(20_000);
    expect(idle.find(segment, 0)).toBeNull();
    expect(busy.find(segment, 0)).not.toBeNull();
  });

  test('is not spent on a partition whose reader has gone: what nobody came for goes, and no more is kept', () => {
    const cache = new TailCache(10_000);
    const tail = cache.tail();
    tail.reachedEnd();
    fill(tail, 50, 'x'.repeat(1000));
    expect(cache.bytes).toBe(0);
    fill(tail, 1);
    expect(cache.bytes).toBe(0);
    tail.reachedEnd();
    fill(tail, 1);
    expect(cache.bytes).toBeGreaterThan(0);
  });

  test(`holds whatever happens, and everything comes back (seed ${seed})`, () => {
    const random = new ManualClock({ seed });
    const below = (limit: number): number => random.randomBytes(2).readUInt16BE() % limit;
    const cache = new TailCache(30_000);
    const tails = Array.from({ length: 5 }, () => ({ tail: cache.tail(), offset: 0, position: 0 }));
    for (let step = 0; step < 20_000; step++) {
      const of = tails[below(tails.length)]!;
      const does = below(100);
      if (does < 60) {
        const batch = batchAt(of.offset, 'x'.repeat(below(3_000)));
        of.tail.add(batch, segment, of.position);
        of.offset++;
        of.position += batch.sizeInBytes;
      } else if (does < 95) {
        const found = of.tail.find(segment, Math.max(0, of.offset - 1 - below(5)));
        if (found !== null) of.tail.read(segment, found.position, of.position - found.position);
        if (below(4) > 0) of.tail.reachedEnd();
      } else if (does < 98) {
        of.position += 1;
      } else {
        of.tail.clear();
      }
      expect(cache.bytes, `step ${step}`).toBeLessThanOrEqual(30_000);
    }
    for (const { tail } of tails) tail.clear();
    expect(cache.bytes).toBe(0);
  });
});

describe('a log with a reader at its tail', () => {
  /** What a read yields, from memory if it is there; and whether the file says the same. */
  function read(log: PartitionLog, offset: number, maxBytes: number, limit = Infinity) {
    const { spans } = log.read(offset, maxBytes, limit, true);
    const region = spans[0] as FileRegion | undefined;
    if (region === undefined) return null;
    const inMemory = region.inMemory === null ? null : Buffer.concat(region.inMemory);
    const inFile = region.readNow();
    region.release();
    return { isInMemory: inMemory !== null, isSame: inMemory === null || inMemory.equals(inFile), inFile };
  }

  const append = (log: PartitionLog, value: string) => log.appendAsLeader([batchOf([value])], 3);

  test('yields what has just arrived without a look at the disk', async () => {
    const { log, fs, settle } = openMemoryLogs();
    const orders = log();
    read(orders, 0, 1000);
    append(orders, 'a');
    append(orders, 'b');
    await settle();
    const operations = fs.operations.length;
    const { spans } = orders.read(1, 1000, Infinity, true);
    expect((spans[0] as FileRegion).inMemory).not.toBeNull();
    expect(fs.operations.slice(operations)).toEqual([]);
  });

  test('yields nothing before it is durable', async () => {
    const { log, fs, clock, settle } = openMemoryLogs();
    const orders = log();
    append(orders, 'a');
    await settle();
    read(orders, 1, 1000);
    fs.untilSynced = () => new Promise(() => {});
    append(orders, 'b');
    clock.turn();
    expect(read(orders, 1, 1000)).toBeNull();
    expect(orders.durableEndOffset).toBe(1);
  });

  test('yields nothing of what a full disk has taken back', async () => {
    const { log, fs, settle } = openMemoryLogs();
    const orders = log();
    read(orders, 0, 1000);
    append(orders, 'a');
    await settle();
    fs.failWhen(({ name }) => (name === 'write' ? 'ENOSPC' : null));
    append(orders, 'lost');
    await settle();
    fs.failWhen(null);
    append(orders, 'kept');
    await settle();
    const found = read(orders, 1, 1000)!;
    expect(found.isSame).toBe(true);
    expect(found.inFile.includes('kept')).toBe(true);
  });

  test('gives its memory back when it is deleted', async () => {
    const { log, logs, settle, tails } = openMemoryLogs();
    const orders = log();
    read(orders, 0, 1000);
    append(orders, 'a');
    await settle();
    expect(tails.bytes).toBeGreaterThan(0);
    logs.delete('orders', 0);
    expect(tails.bytes).toBe(0);
  });

  test(`yields the bytes of the file, through rolls and reads of any size (seed ${seed})`, async () => {
    const random = new ManualClock({ seed });
    const below = (limit: number): number => random.randomBytes(2).readUInt16BE() % limit;
    const { log, settle } = openMemoryLogs();
    const orders = log();
    let fromMemory = 0;
    for (let step = 0; step < 400; step++) {
      for (let appends = below(4); appends > 0; appends--) append(orders, 'v'.repeat(below(600)));
      if (below(3) > 0) await settle();
      for (let reads = below(4); reads > 0; reads--) {
        const offset = Math.max(0, orders.durableEndOffset - below(30));
        const found = read(orders, offset, 1 + below(2_000), below(5) === 0 ? offset + 3 : Infinity);
        if (found?.isInMemory === true) fromMemory++;
        expect(found?.isSame ?? true, `step ${step}, offset ${offset}`).toBe(true);
      }
    }
    expect(fromMemory).toBeGreaterThan(100);
    expect(orders.segmentCount).toBeGreaterThan(10);
  });
});
