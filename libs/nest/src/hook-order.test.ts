import type { Logger, Type } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import { expect, test } from 'vitest';
import { bootLast } from './hook-order.ts';

class Ours {}
class Other {}

function order(modules: object[]): string[] {
  const lines: string[] = [];
  const logger = { error: (line: string) => void lines.push(line) } as unknown as Logger;
  const container = new Map(modules.map((module, index) => [String(index), module]));
  bootLast(container as unknown as ModulesContainer, Ours as Type, logger);
  return lines;
}

test('the module goes behind all others, which stay where they are', () => {
  const [other, ours] = [
    { metatype: Other, distance: 2 },
    { metatype: Ours, distance: 1 },
  ];
  expect(order([other, ours])).toEqual([]);
  expect([other.distance, ours.distance]).toEqual([2, -1]);
});

test.each([
  ['refuses it', Object.freeze({ metatype: Ours, distance: 1 })],
  [
    'ignores it',
    {
      metatype: Ours,
      get distance() {
        return 1;
      },
      set distance(_: number) {},
    },
  ],
])('a Nest that %s is complained about', (_, module) => {
  expect(order([module])).toEqual([
    expect.stringMatching(/handlers may run before other modules have booted/),
  ]);
});
