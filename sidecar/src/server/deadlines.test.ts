import { expect, test } from 'vitest';
import { ManualClock } from '../manual-clock.ts';
import { Deadlines } from './deadlines.ts';

test('a deadline that is missed is told of once, a moment later', () => {
  const clock = new ManualClock();
  const deadlines = new Deadlines(clock);
  const told: string[] = [];
  deadlines.add(250, () => told.push('first'));
  deadlines.add(1_000, () => told.push('second'));
  clock.advance(240);
  expect(told).toEqual([]);
  clock.advance(100);
  expect(told).toEqual(['first']);
  clock.advance(5_000);
  expect(told).toEqual(['first', 'second']);
});

test('nobody is told of one that was met', () => {
  const clock = new ManualClock();
  const deadlines = new Deadlines(clock);
  const told: number[] = [];
  const open = [0, 1, 2, 3, 4].map((i) => deadlines.add(50, () => told.push(i)));
  for (const i of [0, 4, 2]) deadlines.met(open[i]!);
  deadlines.met(open[0]!);
  clock.advance(1_000);
  expect(told.sort()).toEqual([1, 3]);
  deadlines.met(open[1]!);
});

test('without deadlines no timer runs, and the next deadline starts it again', () => {
  const clock = new ManualClock();
  let looks = 0;
  const every = clock.every.bind(clock);
  clock.every = (ms, run) => every(ms, () => (looks++, run()));
  const deadlines = new Deadlines(clock);
  deadlines.met(deadlines.add(10_000, () => {}));
  clock.advance(60_000);
  expect(looks).toBe(1);
  let isTold = false;
  deadlines.add(10, () => (isTold = true));
  clock.advance(1_000);
  expect(isTold).toBe(true);
});
