import { afterEach, beforeEach, expect, test } from 'vitest';
import type { DeliveryReceipt, DriverConnection, OutRecord } from './driver.ts';
import { RookeryError } from './errors.ts';
import { Publisher, type PublisherOptions } from './publisher.ts';
import { topic, type Topic } from './topic.ts';

/** A driver's side: what was handed to it, and a broker that comes when it is told to. */
class Side {
  readonly produced: { partition: number; record: OutRecord; receipt: DeliveryReceipt }[] = [];
  /** Called when nobody waits for the broker any more. */
  whenGivenUp = (): void => {};
  #arrive: ((lanes: number) => void)[] = [];
  #lanes = 0;

  lanes(_: string, signal: AbortSignal): Promise<number> {
    if (this.#lanes > 0) return Promise.resolve(this.#lanes);
    return new Promise((resolve, reject) => {
      this.#arrive.push(resolve);
      signal.addEventListener('abort', () => {
        this.whenGivenUp();
        reject(signal.reason as Error);
      });
    });
  }

  lanesNow(): number {
    return this.#lanes;
  }

  arrive(lanes: number): void {
    this.#lanes = lanes;
    for (const told of this.#arrive.splice(0)) told(lanes);
  }

  place(_: string, key: Uint8Array | null, lanes: number): number {
    return (key?.[0] ?? 0) % lanes;
  }

  produce(_: string, partition: number, record: OutRecord, receipt: DeliveryReceipt): void {
    this.produced.push({ partition, record, receipt });
  }

  get values(): string[] {
    return this.produced.map(({ record }) => Buffer.from(record.value!).toString());
  }
}

let side: Side;
let publishers: Publisher[];
beforeEach(() => {
  side = new Side();
  publishers = [];
});
afterEach(() => Promise.all(publishers.map((publisher) => publisher.close(0))));

function publisherOf(options: Partial<PublisherOptions> = {}): Publisher {
  const publisher = new Publisher(side as unknown as DriverConnection, {
    unsettledMax: 100,
    unsettledBytesMax: 10_000,
    timeoutMs: 10_000,
    prepare: () => Promise.resolve(),
    ...options,
  });
  publishers.push(publisher);
  return publisher;
}

const numbers: Topic<number> = topic('numbers');
const codeOf = (error: unknown): unknown => (error as RookeryError).code;

test('messages leave in the order of their calls, those that waited for the topic before those that did not', async () => {
  const publisher = publisherOf();
  let next = 0;
  const call = (): void => void publisher.publish(numbers, next++, {}).catch(() => {});
  call();
  call();
  // From here on one more in every microtask, across the step in which the topic turns out to be there.
  side.arrive(1);
  for (let i = 0; i < 40; i++) {
    await Promise.resolve();
    call();
  }
  await expect.poll(() => side.values).toEqual(Array.from({ length: 42 }, (_, n) => String(n)));
});

test('a payload counts as it was when it was published', async () => {
  const publisher = publisherOf();
  side.arrive(1);
  publisher.publish(numbers, 0, {}).catch(() => {});
  await expect.poll(() => side.values).toEqual(['0']);
  const payload = { n: 1 };
  publisher.publish(topic<object>('numbers'), payload, {}).catch(() => {});
  const again = topic<object>('objects');
  publisher.publish(again, {}, {}).catch(() => {});
  await expect.poll(() => side.values.length).toBe(3);
  publisher.publish(again, payload, {}).catch(() => {});
  payload.n = 2;
  expect(side.values.at(-1)).toBe('{"n":1}');
});

test('each message waits for its topic for its own time, and no longer', async () => {
  const publisher = publisherOf({ timeoutMs: 1_000 });
  const settled: string[] = [];
  const publish = (name: string): Promise<void> =>
    publisher.publish(numbers, 1, {}).then(
      () => void settled.push(name),
      (error: unknown) => void settled.push(`${name} ${String(codeOf(error))}`),
    );
  let second = Promise.resolve();
  side.whenGivenUp = () => {
    side.whenGivenUp = () => {};
    second = publish('second');
  };
  await publish('first');
  expect(settled).toEqual(['first RK3001']);
  // The second one has all its time before it.
  side.arrive(1);
  await expect.poll(() => side.produced.length).toBe(1);
  side.produced[0]!.receipt.delivered(0, 0);
  await second;
  expect(settled).toEqual(['first RK3001', 'second']);
});

test('a topic that cannot be made fails those that wait for it', async () => {
  let tries = 0;
  const publisher = publisherOf({
    prepare: () => {
      tries++;
      return tries === 1 ? Promise.reject(new RookeryError('RK2003', 'numbers')) : Promise.resolve();
    },
  });
  const outcomes = await Promise.allSettled([1, 2].map((n) => publisher.publish(numbers, n, {})));
  expect(outcomes.map((outcome) => codeOf((outcome as PromiseRejectedResult).reason))).toEqual([
    'RK2003',
    'RK2003',
  ]);
  // The next one tries again.
  side.arrive(1);
  publisher.publish(numbers, 3, {}).catch(() => {});
  await expect.poll(() => side.values).toEqual(['3']);
});

test('what is unsettled is bounded, in number and in bytes, also while no broker is there', async () => {
  const publisher = publisherOf({ unsettledMax: 3, unsettledBytesMax: 1_000 });
  const outcomes: unknown[] = [];
  const publish = (payload: unknown): void =>
    void publisher.publish(topic('any'), payload, {}).catch((error: unknown) => outcomes.push(codeOf(error)));
  for (let n = 0; n < 4; n++) publish(n);
  await expect.poll(() => outcomes).toEqual(['RK3005']);

  const other = publisherOf({ unsettledBytesMax: 1_000 });
  const any = topic<string>('any');
  const kept = other.publish(any, 'x'.repeat(2_000), {});
  kept.catch(() => {});
  // Its size is known once its codec is loaded, without any broker.
  await expect
    .poll(() => other.publish(any, 'y', {}).then(() => 'taken', codeOf), { timeout: 5_000 })
    .toBe('RK3005');
});

test('closing waits for what is on its way, and fails what does not arrive in time', async () => {
  const publisher = publisherOf();
  side.arrive(1);
  const position = publisher.publish(numbers, 7, {});
  let isClosed = false;
  const closed = publisher.close(10_000).then(() => (isClosed = true));
  await expect(publisher.publish(numbers, 8, {})).rejects.toMatchObject({ code: 'RK1004' });
  await expect.poll(() => side.produced.length).toBe(1);
  expect(isClosed).toBe(false);
  side.produced[0]!.receipt.delivered(41, 5);
  await expect(position).resolves.toEqual({ topic: 'numbers', partition: 0, offset: 41, timestamp: 5 });
  await closed;

  side = new Side();
  const late = publisherOf();
  const lost = late.publish(numbers, 9, {});
  const outcome = expect(lost).rejects.toMatchObject({ code: 'RK1004' });
  await late.close(10);
  await outcome;
});

test('keys go by the lanes that there are now, and stay where they were while nobody knows', async () => {
  const publisher = publisherOf();
  const keyed = topic<number>('keyed', { key: () => '\x07' });
  const publish = (n: number): void => void publisher.publish(keyed, n, {}).catch(() => {});
  side.arrive(2);
  publish(0);
  await expect.poll(() => side.produced.length).toBe(1);
  side.arrive(4);
  publish(1);
  side.arrive(0);
  publish(2);
  expect(side.produced.map(({ partition }) => partition)).toEqual([1, 3, 3]);
});

test('a topic of which the broker knows nothing any more is looked up again', async () => {
  const publisher = publisherOf();
  side.arrive(2);
  const first = publisher.publish(numbers, 1, { partition: 1 });
  await expect.poll(() => side.produced.length).toBe(1);
  side.arrive(1);
  side.produced[0]!.receipt.failed(new RookeryError('RK2003', 'numbers'));
  await expect(first).rejects.toMatchObject({ code: 'RK2003' });
  await expect(publisher.publish(numbers, 2, { partition: 1 })).rejects.toThrow(/which has 1/);
});
