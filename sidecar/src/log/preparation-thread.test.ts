import { decodeRecords } from '@rookery/wire';
import { afterEach, expect, test } from 'vitest';
import { ManualClock } from '../manual-clock.ts';
import { AppendRefused } from './append-checks.ts';
import { batchOf } from './memory-logs.ts';
import { PreparationThreads } from './preparation-thread.ts';
import type { Demand } from './preparation.ts';

const clock = new ManualClock();
const threads = new PreparationThreads(clock, 2);
const toZstd: Demand = { codec: 'zstd', level: 3, needsKeys: false, times: null, decompressedMax: 1e6 };

afterEach(() => threads.close());

test('batches come back in the codec that was asked for, each to whoever sent it', async () => {
  const batches = Array.from({ length: 20 }, (_, i) => batchOf([`${i}`, 'x'.repeat(i * 100)]));
  const prepared = await Promise.all(batches.map((batch) => threads.prepare(batch, toZstd)));
  expect(prepared.map(({ codec }) => codec)).toEqual(batches.map(() => 'zstd'));
  expect(prepared.map((batch) => decodeRecords(batch))).toEqual(batches.map((batch) => decodeRecords(batch)));
});

test('a batch that need not change comes back itself', async () => {
  const batch = batchOf(['a']);
  expect(await threads.prepare(batch, { ...toZstd, codec: null })).toBe(batch);
});

test('a refusal comes back with its name and the records at fault, and harms no other', async () => {
  const [refused, taken] = await Promise.allSettled([
    threads.prepare(batchOf(['a']), { ...toZstd, needsKeys: true }),
    threads.prepare(batchOf(['b']), toZstd),
  ]);
  expect(refused).toMatchObject({ status: 'rejected', reason: { error: 'INVALID_RECORD' } });
  const { reason } = refused as PromiseRejectedResult;
  expect(reason).toBeInstanceOf(AppendRefused);
  expect((reason as AppendRefused).recordErrors).toMatchObject([{ index: 0 }]);
  expect(taken.status).toBe('fulfilled');
});

test('idle threads go, and new ones come', async () => {
  await threads.prepare(batchOf(['a']), toZstd);
  clock.advance(60_000);
  expect((await threads.prepare(batchOf(['b']), toZstd)).codec).toBe('zstd');
});

test('a thread that dies takes the batch that it had with it, and no other', async () => {
  // A codec that does not exist throws what is no refusal.
  const deadly = threads.prepare(batchOf(['a']), { ...toZstd, codec: 'brotli' as never });
  const others = [1, 2, 3].map((i) => threads.prepare(batchOf([`${i}`]), toZstd));
  await expect(Promise.allSettled([deadly])).resolves.toMatchObject([{ status: 'rejected' }]);
  expect((await Promise.all(others)).map(({ codec }) => codec)).toEqual(['zstd', 'zstd', 'zstd']);
});

test('whoever waits when the broker stops is refused', async () => {
  const waiting = [1, 2, 3, 4].map((i) => threads.prepare(batchOf([`${i}`]), toZstd));
  threads.close();
  for (const outcome of await Promise.allSettled(waiting))
    expect(outcome).toMatchObject({ status: 'rejected', reason: { error: 'KAFKA_STORAGE_ERROR' } });
});
