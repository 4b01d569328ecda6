import { expect, test } from 'vitest';
import { SoleLog } from './sole-log.ts';

const [a, b] = [{}, {}];

test('a log is alone when no other was written for a while', () => {
  const sole = new SoleLog();
  expect(sole.isWritten(0, new Set([a]))).toBe(false);
  expect(sole.isWritten(49, new Set([a]))).toBe(false);
  expect(sole.isWritten(50, new Set([a]))).toBe(true);
});

test.each([
  ['instead of it', new Set([b])],
  ['beside it', new Set([a, b])],
])('another one written %s begins the time anew', (_, others) => {
  const sole = new SoleLog();
  sole.isWritten(0, new Set([a]));
  expect(sole.isWritten(60, others)).toBe(false);
  expect(sole.isWritten(70, new Set([a]))).toBe(false);
  expect(sole.isWritten(120, new Set([a]))).toBe(true);
});
