import { expect, test } from 'vitest';
import { gather } from './gather.ts';

const piece = (size: number, fill: number): Buffer => Buffer.alloc(size, fill);

test('small neighbours become one buffer, large ones stay what they are', () => {
  const large = piece(64 * 1024, 9);
  const gathered = gather([piece(10, 1), piece(20, 2), large, piece(5, 3), piece(6, 4)]);
  expect(gathered.map(({ length }) => length)).toEqual([30, 64 * 1024, 11]);
  expect(gathered[1]).toBe(large);
});

test('a small piece between large ones is not copied', () => {
  const small = piece(10, 1);
  const pieces = [piece(8192, 2), small, piece(8192, 3)];
  expect(gather(pieces)).toEqual(pieces);
  expect(gather(pieces)[1]).toBe(small);
});

test('the bytes and their order stay the same, whatever the sizes', () => {
  const sizes = [0, 1, 4096, 4097, 100_000];
  for (let mix = 0; mix < sizes.length ** 4; mix++) {
    const pieces = [0, 1, 2, 3].map((i) =>
      piece(sizes[Math.floor(mix / sizes.length ** i) % sizes.length]!, i),
    );
    expect(Buffer.concat(gather(pieces)).equals(Buffer.concat(pieces)), `mix ${mix}`).toBe(true);
  }
});

test('nothing stays nothing', () => {
  expect(gather([])).toEqual([]);
});
