import { expect, test } from 'vitest';
import { BusyPoll } from './busy-poll.ts';

const ms = 0.25;

/** A loop of which every turn takes a hundredth of a millisecond. */
function loop() {
  let now = 0;
  let next: (() => void) | null = null;
  const poll = new BusyPoll(ms, { monotonic: () => now, nextTurn: (run) => void (next = run) });
  return {
    poll,
    pass: (passed: number) => void (now += passed),
    /** Turns until the loop may sleep. */
    turns(): number {
      let turns = 0;
      while (next !== null) {
        const run = next;
        next = null;
        now += 0.01;
        turns++;
        run();
      }
      return turns;
    },
  };
}

const sender = {};

test('a request that soon follows another of the same connection keeps the loop awake for a while', () => {
  const { poll, pass, turns } = loop();
  poll.came(sender);
  expect(turns()).toBe(0);
  pass(0.1);
  poll.came(sender);
  expect(turns()).toBeGreaterThanOrEqual(25);
});

test('a request that comes late lets the loop sleep', () => {
  const { poll, pass, turns } = loop();
  for (let i = 0; i < 10; i++) {
    poll.came(sender);
    pass(1);
    expect(turns()).toBe(0);
  }
});

test('requests that alternate between connections let the loop sleep', () => {
  const { poll, pass, turns } = loop();
  const other = {};
  for (let i = 0; i < 10; i++) {
    poll.came(i % 2 === 0 ? sender : other);
    pass(0.05);
    expect(turns()).toBe(0);
  }
});

test('a second connection ends the wakefulness that a first one began', () => {
  const { poll, turns } = loop();
  poll.came(sender);
  poll.came(sender);
  poll.came({});
  expect(turns()).toBe(1);
});

test('a connection that was closed counts as unknown', () => {
  const { poll, turns } = loop();
  poll.came(sender);
  poll.forget(sender);
  poll.came(sender);
  expect(turns()).toBe(0);
});
