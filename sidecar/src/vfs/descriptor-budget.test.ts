import { describe, expect, test } from 'vitest';
import { DescriptorBudget, type Holder } from './descriptor-budget.ts';

function budgetOf(max: number): DescriptorBudget {
  return new DescriptorBudget(() => ({ max, leftForOthers: max }));
}

/** A file that opens and closes by the budget's rules alone. */
class Opened implements Holder {
  readonly #budget: DescriptorBudget;
  isOpen = false;

  constructor(budget: DescriptorBudget) {
    this.#budget = budget;
  }

  use(): void {
    this.begin();
    this.#budget.rest(this);
  }

  /** What it does takes its time. */
  begin(): void {
    if (!this.isOpen) {
      this.#budget.makeRoom();
      this.#budget.opened();
      this.isOpen = true;
    }
    this.#budget.pin(this);
  }

  close(): void {
    this.isOpen = false;
    this.#budget.closed(this);
  }

  settle(): void {
    this.#budget.rest(this);
  }

  settleNow(): void {
    this.#budget.rest(this);
  }
}

const some = (budget: DescriptorBudget, count: number): Opened[] =>
  Array.from({ length: count }, () => new Opened(budget));

const openOf = (files: readonly Opened[]): number[] =>
  files.flatMap(({ isOpen }, index) => (isOpen ? [index] : []));

describe('a budget of descriptors', () => {
  test('is kept by closing what was used longest ago', () => {
    const budget = budgetOf(3);
    const files = some(budget, 5);
    for (const file of files) file.use();
    expect(openOf(files)).toEqual([2, 3, 4]);
    files[2]!.use();
    files[0]!.use();
    expect(openOf(files)).toEqual([0, 2, 4]);
    expect([budget.open, budget.evictions]).toEqual([3, 3]);
  });

  test('is exceeded where nothing may be closed, and kept again when something may', () => {
    const budget = budgetOf(2);
    const files = some(budget, 4);
    for (const file of files.slice(0, 3)) file.begin();
    expect(openOf(files)).toEqual([0, 1, 2]);
    expect(budget.isSpent).toBe(true);
    budget.rest(files[1]!);
    expect(openOf(files)).toEqual([0, 2]);
    expect(budget.isSpent).toBe(true);
    budget.rest(files[0]!);
    expect(openOf(files)).toEqual([0, 2]);
    expect(budget.isSpent).toBe(false);
    files[3]!.use();
    expect(openOf(files)).toEqual([2, 3]);
  });

  test('lets unsynced files be synced, the one written first before the others', () => {
    const budget = budgetOf(2);
    const files = some(budget, 3);
    for (const file of files) {
      file.begin();
      budget.owe(file);
    }
    expect(budget.closeOldest()).toBe(false);
    expect(budget.settleOldest()).toBe(true);
    expect(openOf(files)).toEqual([1, 2]);
    expect(budget.settleOldestNow()).toBe(true);
    expect(budget.closeOldest()).toBe(true);
    expect(openOf(files)).toEqual([2]);
    budget.pin(files[2]!);
    expect(budget.settleOldest() || budget.settleOldestNow()).toBe(false);
  });

  test('does not forget a file that is used twice in a row and pinned between', () => {
    const budget = budgetOf(1);
    const [file, other] = some(budget, 2) as [Opened, Opened];
    file.use();
    file.use();
    budget.pin(file);
    budget.rest(file);
    other.use();
    expect(openOf([file, other])).toEqual([1]);
  });

  test('calls those who wait, one for each descriptor, and all when nothing more will come', async () => {
    const budget = budgetOf(1);
    const [file] = some(budget, 1) as [Opened];
    file.begin();
    budget.began();
    expect(budget.mayBecomeFree).toBe(true);
    const called: number[] = [];
    const waiters = [1, 2, 3].map((n) => budget.whenFree().then(() => called.push(n)));
    budget.rest(file);
    await waiters[0];
    await Promise.resolve();
    expect(called).toEqual([1]);
    budget.ended();
    await Promise.all(waiters);
    expect(called).toEqual([1, 2, 3]);
    expect(budget.mayBecomeFree).toBe(false);
  });
});
