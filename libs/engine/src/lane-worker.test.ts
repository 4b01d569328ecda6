import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { backoff } from './backoff.ts';
import type { RookeryContext } from './context.ts';
import type { DriverSubscription, InRecord, Lane } from './driver.ts';
import { RookeryError } from './errors.ts';
import { LaneWorker, type LaneHandler } from './lane-worker.ts';

const lane: Lane = { topic: 'orders', partition: 3 };
const record = (offset: number, value: string | null = String(offset)): InRecord => ({
  offset,
  timestamp: 0,
  key: null,
  value: value === null ? null : Buffer.from(value),
  headers: [],
});

/** A driver's side of one lane: what was asked of it. */
class Side implements DriverSubscription {
  requested = 0;
  acked: number[] = [];
  ackFails: Error | null = null;
  /** Acknowledgements hang while this is pending. */
  held: Promise<void> = Promise.resolve();
  request(_: Lane, count: number): void {
    this.requested += count;
  }
  async ack(_: Lane, next: number): Promise<void> {
    await this.held;
    if (this.ackFails !== null) throw this.ackFails;
    this.acked.push(next);
  }
  stop(): void {}
  async close(): Promise<void> {}
}

let side: Side;
let lines: string[];
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  side = new Side();
  lines = [];
});
afterEach(() => void vi.useRealTimers());

function workerOf(
  handle: LaneHandler['handle'],
  retry = backoff({ attempts: 3, initial: 50, jitter: 'none' }),
) {
  const keep = (message: string): void => void lines.push(message);
  const worker = new LaneWorker(
    lane,
    {
      name: 'Orders.take',
      codec: { encode: () => Buffer.alloc(0), decode: (bytes) => bytes.toString() },
      retry,
      handle,
    },
    {
      subscription: () => side,
      group: 'g',
      connection: 'default',
      logger: { info: keep, warn: keep, error: keep },
    },
  );
  worker.start();
  return worker;
}

/** Lets everything happen that waits for no timer; a lane on a busy machine gives way in between. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

async function advance(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
  await settle();
}

function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}

test('records are handled in order, and the last one that is done is acknowledged for all', async () => {
  const seen: unknown[] = [];
  const worker = workerOf(async (payload) => {
    await Promise.resolve();
    seen.push(payload);
  });
  worker.take([record(5), record(6)]);
  worker.take([record(9)]);
  await settle();
  expect(seen).toEqual(['5', '6', '9']);
  expect(side.acked).toEqual([]);
  await advance(100);
  expect(side.acked).toEqual([10]);
});

test('records that come in the very step in which a lane falls idle are handled', async () => {
  const seen: unknown[] = [];
  let worker: LaneWorker | null = null;
  let next = 1;
  // Handed over one microtask later each time, from before the end of the loop to after it.
  const handle = (payload: unknown): void => {
    seen.push(payload);
    if (next > 10) return;
    let chain = Promise.resolve();
    for (let i = 1; i < next; i++) chain = chain.then(() => {});
    void chain.then(() => worker!.take([record(next++)]));
  };
  worker = workerOf(handle);
  worker.take([record(0)]);
  await settle();
  expect(seen).toEqual(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10']);
});

test('a failing record holds up those behind it, is tried again after growing pauses, then skipped', async () => {
  const attempts: string[] = [];
  const worker = workerOf((payload, { attempt }: RookeryContext) => {
    attempts.push(`${String(payload)}#${attempt}`);
    if (payload === '1') throw new Error('no');
  });
  worker.take([record(0), record(1), record(2)]);
  await settle();
  expect(attempts).toEqual(['0#1', '1#1']);
  await advance(50);
  expect(attempts).toEqual(['0#1', '1#1', '1#2']);
  // Only what is done has been acknowledged meanwhile.
  await advance(199);
  expect(attempts).toHaveLength(3);
  expect(side.acked).toEqual([1]);
  await advance(1);
  expect(attempts).toEqual(['0#1', '1#1', '1#2', '1#3', '2#1']);
  await advance(100);
  expect(side.acked).toEqual([1, 3]);
  expect(lines.at(-1)).toBe('Orders.take skipped orders/3@1 after 3 attempts');
});

describe('what can never succeed is skipped at once:', () => {
  const status = (code: number): Error => Object.assign(new Error(), { getStatus: () => code });
  test.each([
    [status(400), 1],
    [status(403), 1],
    [status(429), 3],
    [status(503), 3],
    [new RookeryError('RK4002', 'x'), 1],
    [new RookeryError('RK3001', 'x'), 3],
    [new Error(), 3],
    ['a string', 3],
  ])('%o is tried %i times', async (error, times) => {
    let attempts = 0;
    const worker = workerOf(
      () => {
        attempts++;
        throw error;
      },
      backoff({ attempts: 3, initial: 0 }),
    );
    worker.take([record(0)]);
    await advance(300);
    expect(attempts).toBe(times);
    expect(side.acked).toEqual([1]);
  });
});

describe('a lane that is drained', () => {
  test('finishes the record in hand, acknowledges it, and handles no more', async () => {
    const seen: unknown[] = [];
    const { opened, open } = gate();
    const worker = workerOf(async (payload) => {
      await opened;
      seen.push(payload);
    });
    worker.take([record(0), record(1)]);
    await settle();
    const drained = worker.drain(1_000);
    expect(worker.drain(1_000)).toBe(drained);
    open();
    await drained;
    expect(seen).toEqual(['0']);
    expect(side.acked).toEqual([1]);
    worker.take([record(2)]);
    await settle();
    expect(seen).toEqual(['0']);
  });

  test('does not wait for another attempt', async () => {
    let attempts = 0;
    const worker = workerOf(() => {
      attempts++;
      throw new Error('no');
    });
    worker.take([record(0)]);
    await settle();
    await worker.drain(1_000);
    expect(attempts).toBe(1);
    expect(side.acked).toEqual([]);
  });

  test('gives up a handler that never ends, tells it so, and counts nothing that it does later', async () => {
    const { opened, open } = gate();
    let signal: AbortSignal | null = null;
    const worker = workerOf((payload, context: RookeryContext) => {
      signal = context.signal;
      return payload === '1' ? opened : null;
    });
    worker.take([record(0), record(1), record(2)]);
    await settle();
    const drained = worker.drain(1_000);
    await advance(1_000);
    await drained;
    expect(signal!.reason).toMatchObject({ code: 'RK5005' });
    expect(lines).toEqual(['orders/3@1: Orders.take was not done in 1000 ms and is given up']);
    open();
    await advance(10_000);
    expect(side.acked).toEqual([1]);
  });

  test('does not wait for a broker that does not answer', async () => {
    side.held = new Promise(() => {});
    const worker = workerOf(() => {});
    worker.take([record(0)]);
    await settle();
    const drained = worker.drain(1_000);
    await advance(2_000);
    await drained;
    expect(lines).toEqual(['orders/3@1: the position was not kept in time']);
  });
});

test('a lane that is lost acknowledges nothing, also not what its handler still finishes', async () => {
  const { opened, open } = gate();
  const worker = workerOf((payload) => (payload === '1' ? opened : null));
  worker.take([record(0), record(1), record(2)]);
  await settle();
  worker.lose();
  open();
  await advance(10_000);
  expect(side.acked).toEqual([]);
  expect(lines).toEqual([]);
});

test('a position that could not be kept is kept later', async () => {
  const worker = workerOf(() => {});
  side.ackFails = new Error('coordinator moves');
  worker.take([record(0)]);
  await advance(100);
  expect(lines).toEqual(['orders/3@1: the position could not be kept']);
  side.ackFails = null;
  await advance(1_000);
  expect(side.acked).toEqual([1]);
});

test('one acknowledgement is under way at a time, and the next one covers everything since', async () => {
  const { opened, open } = gate();
  side.held = opened;
  const worker = workerOf(() => {});
  for (let offset = 0; offset < 5; offset++) {
    worker.take([record(offset)]);
    await advance(100);
  }
  open();
  await settle();
  expect(side.acked).toEqual([1, 5]);
});

describe('what lies ahead of a handler is bounded', () => {
  test('in records', async () => {
    const { opened, open } = gate();
    const worker = workerOf(() => opened);
    expect(side.requested).toBe(2_000);
    worker.take(Array.from({ length: 2_000 }, (_, offset) => record(offset)));
    await settle();
    expect(side.requested).toBe(2_000);
    open();
    // All are handled, and as many may come again.
    while (side.requested < 4_000) await settle();
    expect(side.requested).toBe(4_000);
  });

  test('in bytes: what was asked for and has not come is taken back', async () => {
    const { opened, open } = gate();
    const worker = workerOf(() => opened);
    const big = 'x'.repeat(400_000);
    for (let offset = 0; offset < 3; offset++) worker.take([record(offset, big)]);
    await settle();
    // Three have come, and no more may.
    expect(side.requested).toBe(3);
    open();
    await settle();
    expect(side.requested).toBe(2_002);
  });
});

test('a handler that never waits lets others have their turn', async () => {
  let others = 0;
  let handled = 0;
  const worker = workerOf(() => {
    const until = performance.now() + 2;
    while (performance.now() < until);
    handled++;
  });
  worker.take(Array.from({ length: 50 }, (_, offset) => record(offset)));
  while (handled < 50) {
    await new Promise((resolve) => setImmediate(resolve));
    others++;
  }
  expect(others).toBeGreaterThan(1);
});
