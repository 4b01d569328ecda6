import { expect, test } from 'vitest';
import { outlived, type RetainedSegment, type RetentionLimits } from './retention.ts';

const limits: RetentionLimits = {
  now: 1_000,
  retentionMs: Infinity,
  retentionBytes: Infinity,
  logStartOffset: 0,
  highWatermark: Infinity,
};

/** Segments of 100 bytes and 10 offsets, whose youngest records have these times. */
const segments = (...youngest: number[]): RetainedSegment[] =>
  youngest.map((each, i) => ({ sizeInBytes: 100, youngest: each, nextOffset: 10 * (i + 1) }));

test('without limits everything stays', () => {
  expect(outlived(segments(1, 2, 3), limits)).toEqual({ count: 0, reason: null });
});

test('a segment goes when its youngest record is older than the limit', () => {
  expect(outlived(segments(100, 200, 900), { ...limits, retentionMs: 500 })).toEqual({
    count: 2,
    reason: 'time',
  });
});

test('a young segment keeps older ones behind it', () => {
  expect(outlived(segments(100, 900, 100), { ...limits, retentionMs: 500 }).count).toBe(1);
});

test('a segment from the future stays', () => {
  expect(outlived(segments(5_000, 100), { ...limits, retentionMs: 500 }).count).toBe(0);
});

test('by size the oldest go, as long as the rest is not smaller than the limit', () => {
  expect(outlived(segments(1, 2, 3), { ...limits, retentionBytes: 150 })).toEqual({
    count: 1,
    reason: 'size',
  });
  expect(outlived(segments(1, 2, 3), { ...limits, retentionBytes: 100 }).count).toBe(2);
  expect(outlived(segments(1, 2, 3), { ...limits, retentionBytes: 0 }).count).toBe(3);
});

test('what stands before the log start goes', () => {
  expect(outlived(segments(1, 2, 3), { ...limits, logStartOffset: 25 })).toEqual({
    count: 2,
    reason: 'start',
  });
});

test('nothing at or past the high watermark goes', () => {
  expect(outlived(segments(1, 2, 3), { ...limits, retentionMs: 0, highWatermark: 15 }).count).toBe(1);
});

test('an empty active segment stays', () => {
  const empty = { sizeInBytes: 0, youngest: 0, nextOffset: 0 };
  expect(outlived([empty], { ...limits, retentionMs: 0 }).count).toBe(0);
});
