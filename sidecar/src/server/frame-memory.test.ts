import { describe, expect, test } from 'vitest';
import { FrameMemory } from './frame-memory.ts';

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;

test('a piece that was given back is taken again by the next frame of its class', () => {
  const memory = new FrameMemory();
  const piece = memory.take(100 * kibibyte);
  expect(piece.length).toBe(128 * kibibyte);
  memory.give(piece);
  expect(memory.take(10 * kibibyte)).not.toBe(piece);
  expect(memory.take(65 * kibibyte)).toBe(piece);
  expect(memory.take(65 * kibibyte)).not.toBe(piece);
});

describe('sizes', () => {
  test.each([
    [1, 32 * kibibyte],
    [32 * kibibyte, 32 * kibibyte],
    [32 * kibibyte + 1, 64 * kibibyte],
    [mebibyte - 1, mebibyte],
    [mebibyte, mebibyte],
    [100 * mebibyte, mebibyte],
  ])('for %i bytes there is a piece of %i', (size, piece) => {
    expect(new FrameMemory().take(size).length).toBe(piece);
  });
});

test('what lies unused is bounded', () => {
  const memory = new FrameMemory();
  const pieces = Array.from({ length: 40 }, () => memory.take(mebibyte));
  for (const piece of pieces) memory.give(piece);
  expect(memory.freeBytes).toBe(16 * mebibyte);
});
