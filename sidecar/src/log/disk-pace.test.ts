import { expect, test } from 'vitest';
import { DiskPace } from './disk-pace.ts';

test('writes stay on the loop while the disk takes them at once', () => {
  const pace = new DiskPace(100);
  pace.observe(0, 0.2);
  expect(pace.prefersPool(1, 50)).toBe(false);
});

test('a write that stalled sends those of the next second to the pool', () => {
  const pace = new DiskPace(100);
  pace.observe(10, 30);
  expect(pace.prefersPool(500, 0)).toBe(true);
  expect(pace.prefersPool(1_010, 0)).toBe(false);
});

test('much in flight to the disk is a stall that has yet to come', () => {
  expect(new DiskPace(100).prefersPool(0, 101)).toBe(true);
});
