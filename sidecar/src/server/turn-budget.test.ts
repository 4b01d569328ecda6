import { expect, test } from 'vitest';
import { ManualClock } from '../manual-clock.ts';
import { TurnBudget } from './turn-budget.ts';

/** Readers that ask again as soon as they were served, and a log of who was served in which turn. */
function readers(bytes: number, pieces: Readonly<Record<string, { count: number; size: number }>>) {
  const clock = new ManualClock();
  const turns: string[][] = [[]];
  let due: (() => void) | null = null;
  clock.nextTurn = (run) => (due = run);
  const budget = new TurnBudget(clock, bytes);
  for (const [name, { count, size }] of Object.entries(pieces)) {
    let left = count;
    const send = (): number => {
      turns.at(-1)!.push(name);
      if (--left > 0) budget.ask(send);
      return size;
    };
    budget.ask(send);
  }
  return {
    turns,
    /** Ends one turn of the loop; false when nobody waits for that. */
    turn(): boolean {
      const run = due;
      if (run === null) return false;
      due = null;
      turns.push([]);
      run();
      return true;
    },
  };
}

test('who asks first is served at once, and alone may use the whole turn', () => {
  const { turns } = readers(100, { fast: { count: 10, size: 25 } });
  expect(turns).toEqual([['fast', 'fast', 'fast', 'fast']]);
});

test('readers are served in turns, a piece each, however many pieces one of them wants', () => {
  const { turns, turn } = readers(40, {
    fast: { count: 7, size: 10 },
    second: { count: 2, size: 10 },
    third: { count: 1, size: 10 },
  });
  while (turn());
  expect(turns).toEqual([
    ['fast', 'fast', 'fast', 'fast'],
    ['fast', 'second', 'third', 'fast'],
    ['second', 'fast'],
    [],
  ]);
});

test('a piece may overdraw what is left of a turn, and then nobody else is served in it', () => {
  const { turns, turn } = readers(10, { large: { count: 2, size: 50 }, small: { count: 1, size: 1 } });
  turn();
  turn();
  expect(turns).toEqual([['large'], ['large'], ['small']]);
});

test('an idle budget leaves no turn waiting', () => {
  const { turn } = readers(10, { once: { count: 1, size: 1 } });
  expect(turn()).toBe(true);
  expect(turn()).toBe(false);
});
