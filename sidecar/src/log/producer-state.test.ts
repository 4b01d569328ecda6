import { encodeBatch, RecordBatch } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { AppendRefused } from './append-checks.ts';
import { batchOf, openMemoryLogs } from './memory-logs.ts';
import type { PartitionLog } from './partition-log.ts';
import { decodeSnapshot, encodeSnapshot } from './producer-snapshot.ts';
import { ProducerState } from './producer-state.ts';

const sequenceMax = 0x7fffffff;

interface Sent {
  producer?: number;
  epoch?: number;
  sequence: number;
  records?: number;
  isTransactional?: boolean;
}

function sent({
  producer = 7,
  epoch = 0,
  sequence,
  records = 1,
  isTransactional = false,
}: Sent): RecordBatch {
  return batchOf(
    Array.from({ length: records }, () => 'x'),
    { producerId: producer, producerEpoch: epoch, baseSequence: sequence, isTransactional },
  );
}

/** A coordinator's marker. */
function marker(producer: number, type: 'abort' | 'commit'): RecordBatch {
  const key = Buffer.from([0, 0, 0, type === 'commit' ? 1 : 0]);
  const value = Buffer.from([0, 0, 0, 0, 0, 3]);
  const options = { producerId: producer, producerEpoch: 0, isControl: true, isTransactional: true };
  return RecordBatch.split([encodeBatch([{ key, value, timestamp: 1_700_000_000_000 }], options)])[0]!;
}

/** A state that has noted these batches one after another. */
function noted(...batches: RecordBatch[]): ProducerState {
  const state = new ProducerState();
  let offset = 0;
  for (const batch of batches) {
    batch.setBaseOffset(offset);
    state.note(batch);
    offset = batch.nextOffset;
  }
  return state;
}

const errorOf = (act: () => unknown): string | null => {
  try {
    act();
    return null;
  } catch (error) {
    if (error instanceof AppendRefused) return error.error;
    throw error;
  }
};

describe('sequences', () => {
  test('a producer that nobody knows may begin anywhere', () => {
    expect(new ProducerState().check(sent({ sequence: 41 }))).toBeNull();
  });

  test('the next sequence follows the last record of the last batch', () => {
    const state = noted(sent({ sequence: 0, records: 3 }));
    expect(state.check(sent({ sequence: 3 }))).toBeNull();
    expect(errorOf(() => state.check(sent({ sequence: 4 })))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(errorOf(() => state.check(sent({ sequence: 2 })))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  test('sequences wrap after 2^31−1, also inside a batch', () => {
    const state = noted(sent({ sequence: sequenceMax - 1, records: 4 }));
    expect(state.check(sent({ sequence: 2 }))).toBeNull();
    expect(noted(sent({ sequence: sequenceMax })).check(sent({ sequence: 0 }))).toBeNull();
  });

  test('each of the last five batches is known again, the one before them is not', () => {
    const state = noted(...[0, 1, 2, 3, 4, 5].map((sequence) => sent({ sequence })));
    for (const sequence of [1, 2, 3, 4, 5])
      expect(state.check(sent({ sequence }))).toMatchObject({ lastOffset: sequence });
    expect(errorOf(() => state.check(sent({ sequence: 0 })))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
  });

  test('a new epoch begins with sequence 0 and shuts the old one out', () => {
    const state = noted(sent({ sequence: 0 }), sent({ sequence: 1 }));
    expect(errorOf(() => state.check(sent({ epoch: 1, sequence: 2 })))).toBe('OUT_OF_ORDER_SEQUENCE_NUMBER');
    expect(state.check(sent({ epoch: 1, sequence: 0 }))).toBeNull();
    state.note(sent({ epoch: 1, sequence: 0 }));
    expect(errorOf(() => state.check(sent({ epoch: 0, sequence: 2 })))).toBe('INVALID_PRODUCER_EPOCH');
  });

  test('producers are forgotten when they were silent for long, but not with a transaction open', () => {
    const state = noted(
      sent({ producer: 1, sequence: 0 }),
      sent({ producer: 2, sequence: 0, isTransactional: true }),
    );
    state.expire(1_700_000_000_001);
    expect(state.describe().map(({ producerId }) => producerId)).toEqual([2]);
  });
});

describe('snapshots', () => {
  test('say the same again', () => {
    const state = noted(
      sent({ sequence: 0, records: 3 }),
      sent({ producer: 9, sequence: 5, isTransactional: true }),
    );
    const again = new ProducerState();
    again.restore(decodeSnapshot(state.encode())!);
    expect(again.describe()).toEqual(state.describe());
    expect(again.firstUnstableOffset).toBe(3);
    expect(again.check(sent({ sequence: 0, records: 3 }))).toMatchObject({ lastOffset: 2 });
    expect(again.check(sent({ sequence: 3 }))).toBeNull();
  });

  test('are Kafka’s to the byte', () => {
    const bytes = encodeSnapshot([
      {
        producerId: 1,
        producerEpoch: 2,
        lastSequence: 3,
        lastOffset: 4,
        offsetDelta: 5,
        timestamp: 6,
        coordinatorEpoch: 7,
        transactionFirstOffset: -1,
      },
    ]);
    expect(bytes.subarray(6).toString('hex')).toBe(
      '00000001' +
        '0000000000000001' +
        '0002' +
        '00000003' +
        '0000000000000004' +
        '00000005' +
        '0000000000000006' +
        '00000007' +
        'ffffffffffffffff',
    );
    expect(bytes.readInt16BE(0)).toBe(1);
  });

  test('that are cut short or changed count for nothing', () => {
    const bytes = noted(sent({ sequence: 0 }), sent({ producer: 9, sequence: 5 })).encode();
    for (let at = 0; at < bytes.length; at++) {
      expect(decodeSnapshot(bytes.subarray(0, at))).toBeNull();
      const changed = Buffer.from(bytes);
      changed[at]! ^= 0x10;
      expect(decodeSnapshot(changed)).toBeNull();
    }
  });
});

describe('a log', () => {
  const append = (log: PartitionLog, batch: RecordBatch) => log.appendAsLeader([batch], 0);

  test('answers a repetition as the first time and does not append it again', () => {
    const log = openMemoryLogs().log();
    append(log, sent({ sequence: 0, records: 2 }));
    append(log, sent({ sequence: 2 }));
    expect(append(log, sent({ sequence: 0, records: 2 }))).toMatchObject({ baseOffset: 0, lastOffset: 1 });
    expect(log.logEndOffset).toBe(3);
  });

  test.each(['killed', 'stopped'] as const)('knows its producers after it was %s', async (end) => {
    const { fs, log, logs, settle } = openMemoryLogs();
    // Enough for several segments, so that there are snapshots and batches behind the last one.
    for (let i = 0; i < 100; i++)
      append(log(), sent({ producer: i % 3, sequence: 10 * Math.floor(i / 3), records: 10 }));
    await settle();
    const before = log().describeProducers();
    const segments = log().segmentCount;
    if (end === 'stopped') await logs.close();
    const again = openMemoryLogs({ fs: fs.afterKill() }).log();
    expect(segments).toBeGreaterThan(2);
    expect(again.describeProducers()).toEqual(expect.arrayContaining(before));
    expect(append(again, sent({ producer: 0, sequence: 330, records: 10 }))).toMatchObject({
      baseOffset: 990,
    });
    expect(errorOf(() => append(again, sent({ producer: 0, sequence: 999 })))).toBe(
      'OUT_OF_ORDER_SEQUENCE_NUMBER',
    );
  });

  test('passes over a damaged snapshot', async () => {
    const { fs, log, settle } = openMemoryLogs();
    for (let i = 0; i < 60; i++) append(log(), sent({ sequence: 10 * i, records: 10 }));
    await settle();
    const names = fs.list('/data/orders-0').filter((name) => name.endsWith('.snapshot'));
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) fs.open(`/data/orders-0/${name}`, 'write').writeNow([Buffer.alloc(20, 7)], 0);
    const again = openMemoryLogs({ fs: fs.afterKill() }).log();
    expect(again.describeProducers()).toEqual(log().describeProducers());
  });

  test('takes back what a full disk refused from its producers too', async () => {
    const { fs, log, settle } = openMemoryLogs();
    append(log(), sent({ sequence: 0 }));
    await settle();
    fs.failWhen(({ name }) => (name === 'write' ? 'ENOSPC' : null));
    append(log(), sent({ sequence: 1 }));
    await settle();
    fs.failWhen(null);
    expect(append(log(), sent({ sequence: 1 }))).toMatchObject({ baseOffset: 1 });
    expect(log().logEndOffset).toBe(2);
  });

  test('refuses a producer without an epoch or a sequence', () => {
    const log = openMemoryLogs().log();
    expect(errorOf(() => append(log, sent({ producer: 5, sequence: -1 })))).toBe('INVALID_RECORD');
    expect(errorOf(() => append(log, sent({ producer: 5, epoch: -1, sequence: 0 })))).toBe('INVALID_RECORD');
    expect(errorOf(() => append(log, sent({ producer: -2, sequence: 0 })))).toBe('INVALID_RECORD');
  });

  test('a producer of which nothing but a marker is known begins with 0', () => {
    const log = openMemoryLogs().log();
    log.appendAsLeader([marker(5, 'commit')], 0, 'coordinator');
    expect(errorOf(() => append(log, sent({ producer: 5, sequence: 7 })))).toBe(
      'OUT_OF_ORDER_SEQUENCE_NUMBER',
    );
    expect(append(log, sent({ producer: 5, sequence: 0 }))).toMatchObject({ baseOffset: 1 });
  });

  test('keeps what is not decided out of stable reads, and knows what was aborted', async () => {
    const { fs, log, logs, settle } = openMemoryLogs();
    const orders = log();
    const coordinator = (batch: RecordBatch) => orders.appendAsLeader([batch], 0, 'coordinator');
    coordinator(sent({ producer: 1, sequence: 0, isTransactional: true }));
    coordinator(sent({ producer: 2, sequence: 0, isTransactional: true }));
    expect(orders.firstUnstableOffset).toBe(0);
    coordinator(marker(1, 'abort'));
    await settle();
    orders.advanceHighWatermark(3);
    expect(orders.firstUnstableOffset).toBe(1);
    coordinator(marker(2, 'commit'));
    await settle();
    orders.advanceHighWatermark(4);
    expect(orders.firstUnstableOffset).toBeNull();
    const aborted = [{ producerId: 1, firstOffset: 0, lastOffset: 2, lastStableOffset: 1 }];
    expect(orders.abortedTransactions(0, 4)).toEqual(aborted);
    expect(orders.abortedTransactions(3, 4)).toEqual([]);
    const killed = openMemoryLogs({ fs: fs.afterKill() }).log();
    expect(killed.abortedTransactions(0, 4)).toEqual(aborted);
    expect(killed.firstUnstableOffset).toBeNull();
    await logs.close();
    expect(openMemoryLogs({ fs: fs.afterKill() }).log().abortedTransactions(0, 4)).toEqual(aborted);
  });
});
