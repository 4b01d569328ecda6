import fc from 'fast-check';
import { expect, test } from 'vitest';
import { OffsetOrder, type Misplaced, type OrderOptions } from './offset-order.ts';

interface Span {
  readonly baseOffset: number;
  readonly nextOffset: number;
}

/** The first complaint about batches that stand 100 bytes apart, and about which of them. */
function complaint(batches: readonly Span[], options: OrderOptions): Misplaced | null {
  const order = new OffsetOrder(options);
  for (const [i, batch] of batches.entries()) {
    const misplaced = order.take(batch, i * 100);
    if (misplaced !== null) return misplaced;
  }
  return null;
}

/** Batches with some of them compacted away. */
const compacted = fc
  .array(fc.record({ size: fc.integer({ min: 1, max: 9 }), isKept: fc.boolean() }), { minLength: 2 })
  .map((batches) => {
    let next = 0;
    return batches.flatMap(({ size, isKept }): Span[] => {
      const span = { baseOffset: next, nextOffset: (next += size) };
      return isKept ? [span] : [];
    });
  });
const dense = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }).map((sizes) => {
  let next = 0;
  return sizes.map((size): Span => ({ baseOffset: next, nextOffset: (next += size) }));
});
const moved = ({ baseOffset, nextOffset }: Span, by: number): Span => ({
  baseOffset: baseOffset + by,
  nextOffset: nextOffset + by,
});

test('what was compacted is in order', () => {
  fc.assert(
    fc.property(compacted, (batches) => {
      const limit = batches.at(-1)?.nextOffset;
      expect(complaint(batches, { expected: 0, holesUpTo: Infinity, limit })).toBeNull();
    }),
  );
});

test.each([
  ['was never compacted', 0],
  ['may have been compacted', Infinity],
])(
  'one batch of a log that %s and has no holes is found under any other offset, and no other is blamed',
  (_, holesUpTo) => {
    const by = fc.integer({ min: -9, max: 2 ** 40 }).filter((n) => n !== 0);
    fc.assert(
      fc.property(dense, fc.nat(), by, (batches, pick, shift) => {
        const at = pick % batches.length;
        const limit = batches.at(-1)!.nextOffset;
        const changed = batches.with(at, moved(batches[at]!, Math.max(shift, -batches[at]!.baseOffset)));
        if (changed[at]!.baseOffset === batches[at]!.baseOffset) return;
        expect(complaint(changed, { expected: 0, holesUpTo, limit })).toMatchObject({
          position: at * 100,
          offset: batches[at]!.baseOffset,
        });
      }),
    );
  },
);

test('what reaches into the next segment is not believed', () => {
  const batches = [
    { baseOffset: 0, nextOffset: 3 },
    { baseOffset: 3, nextOffset: 8 },
  ];
  expect(complaint(batches, { expected: 0, holesUpTo: 0, limit: 8 })).toBeNull();
  expect(complaint(batches, { expected: 0, holesUpTo: 0, limit: 7 })).toMatchObject({
    position: 100,
    offset: 3,
  });
});
