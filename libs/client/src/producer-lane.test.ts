import { decodeRecords, RecordBatch, type ErrorName } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import type { Connection } from './connection.ts';
import { BrokerError, ClientError } from './errors.ts';
import { ProducerLane, type Batch } from './producer-lane.ts';

/** A partition's leader as far as sequences go: Kafka's rules, over a log of values. */
class Leader {
  readonly log: string[] = [];
  readonly #countMax: number;
  #epoch = -1;
  /** The newest five of the current epoch. */
  #batches: { first: number; last: number; offset: number }[] = [];

  constructor(countMax = Infinity) {
    this.#countMax = countMax;
  }

  /** @returns the base offset, or why not */
  append(bytes: Buffer): number | ErrorName {
    const batch = RecordBatch.read(bytes, 0)!;
    if (!batch.checkCrc()) return 'CORRUPT_MESSAGE';
    const { producerEpoch, baseSequence, recordCount } = batch;
    if (recordCount > this.#countMax) return 'MESSAGE_TOO_LARGE';
    if (producerEpoch < this.#epoch) return 'INVALID_PRODUCER_EPOCH';
    const last = (baseSequence + recordCount - 1) % 0x80000000;
    if (producerEpoch > this.#epoch) {
      if (baseSequence !== 0) return 'OUT_OF_ORDER_SEQUENCE_NUMBER';
      this.#batches = [];
    } else {
      const known = this.#batches.find((each) => each.first === baseSequence && each.last === last);
      if (known !== undefined) return known.offset;
      const next = this.#batches.length === 0 ? 0 : (this.#batches.at(-1)!.last + 1) % 0x80000000;
      if (baseSequence !== next) return 'OUT_OF_ORDER_SEQUENCE_NUMBER';
    }
    this.#epoch = producerEpoch;
    const offset = this.log.length;
    this.#batches = [...this.#batches, { first: baseSequence, last, offset }].slice(-5);
    for (const { value } of decodeRecords(batch)) this.log.push(value!.toString());
    return offset;
  }

  get epoch(): number {
    return this.#epoch;
  }
}

interface Sent {
  readonly batch: Batch;
  /** The bytes as they left: a batch that is numbered anew does not change what is under way. */
  readonly bytes: Buffer;
  answer: number | ErrorName | null;
}

interface Told {
  offset: number | null;
  error: ClientError | null;
  times: number;
}

/** One lane and its leader, with everything between them in the hands of chance. */
class Course {
  readonly lane: ProducerLane;
  readonly leader: Leader;
  readonly told: Told[] = [];
  readonly #random: () => number;
  #connection = {} as Connection;
  #under: Sent[] = [];
  /** Requests of connections that are broken, which the leader may still read, each connection in its order. */
  #ghosts: Sent[][] = [];
  waitingBytes = 0;
  now = 0;

  constructor(seed: number, options: { outMax: number; countMax?: number; deliveryTimeoutMs?: number }) {
    this.#random = mulberry(seed);
    this.leader = new Leader(options.countMax);
    this.lane = new ProducerLane('topic', 0, {
      codec: 'none',
      batchBytesMax: 200,
      deliveryTimeoutMs: options.deliveryTimeoutMs ?? Infinity,
      outMax: options.outMax,
      isIdempotent: true,
      released: (size) => (this.waitingBytes -= size),
    });
    this.lane.identify({ producerId: 7, epoch: 0 });
  }

  step(faults: { breaks: number; refusals: number }): void {
    const chance = this.#random();
    if (chance < 0.3) this.#hand();
    else if (chance < 0.55) this.#send();
    else if (chance < 0.75) this.#read(faults.refusals);
    else if (chance < 0.95) this.#answer();
    else if (this.#random() < faults.breaks) this.#break();
    else this.#haunt();
    this.now++;
  }

  /** No faults any more: everything is told its outcome. */
  finish(): void {
    for (let i = 0; i < 100_000 && !this.lane.isEmpty; i++) this.step({ breaks: 0, refusals: 0 });
    while (this.#ghosts.length > 0) this.#haunt();
  }

  #hand(): void {
    if (this.told.length >= 400) return;
    const told: Told = { offset: null, error: null, times: 0 };
    const value = String(this.told.length);
    this.told.push(told);
    this.waitingBytes += 40;
    this.lane.append(
      { value: Buffer.from(value), timestamp: 1 },
      {
        delivered(offset) {
          told.offset = offset;
          told.times++;
        },
        failed(error) {
          told.error = error;
          told.times++;
        },
      },
      40,
      this.now,
    );
  }

  #send(): void {
    const batch = this.lane.next(this.#connection);
    if (batch !== null) this.#under.push({ batch, bytes: Buffer.from(batch.bytes), answer: null });
  }

  #read(refusals: number): void {
    const next = this.#under.find(({ answer }) => answer === null);
    if (next === undefined) return;
    next.answer = this.#random() < refusals ? 'NOT_LEADER_OR_FOLLOWER' : this.leader.append(next.bytes);
  }

  #answer(): void {
    if (this.#under[0] === undefined || this.#under[0].answer === null) return;
    const { batch, answer } = this.#under.shift()!;
    if (typeof answer === 'number') this.lane.delivered(batch, answer, -1);
    else this.lane.refused(batch, new BrokerError(answer!, 'told by the leader'), this.now);
  }

  #break(): void {
    const under = this.#under;
    this.#under = [];
    this.#connection = {} as Connection;
    const unread = under.filter(({ answer }) => answer === null);
    this.#ghosts.push(unread.slice(0, Math.floor(this.#random() * (unread.length + 1))));
    const error = new ClientError('RK9202', 'broken', { outcomeUnknown: true });
    for (const { batch } of under) this.lane.refused(batch, error, this.now);
  }

  #haunt(): void {
    const ghost = this.#ghosts[Math.floor(this.#random() * this.#ghosts.length)];
    if (ghost === undefined) return;
    const sent = ghost.shift();
    if (sent !== undefined) this.leader.append(sent.bytes);
    this.#ghosts = this.#ghosts.filter(({ length }) => length > 0);
  }
}

function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const seeds = Array.from({ length: 40 }, (_, i) => i + 1);

describe.each([1, 5])('with %i batches out', (outMax) => {
  test.each(seeds)('whatever breaks, each record is in the log once and in order (seed %i)', (seed) => {
    const course = new Course(seed, { outMax });
    for (let i = 0; i < 3_000; i++) course.step({ breaks: 0.5, refusals: 0.2 });
    course.finish();
    expect(course.leader.log).toEqual(course.told.map((_, i) => String(i)));
    expect(course.told.map(({ offset }) => offset)).toEqual(course.told.map((_, i) => i));
    expect(course.told.every(({ times }) => times === 1)).toBe(true);
    expect(course.waitingBytes).toBe(0);
    expect(course.leader.epoch).toBe(0);
  });

  test.each(seeds)('batches that are too large are split on the way (seed %i)', (seed) => {
    const course = new Course(seed, { outMax, countMax: 2 });
    for (let i = 0; i < 3_000; i++) course.step({ breaks: 0.2, refusals: 0.1 });
    course.finish();
    expect(course.leader.log).toEqual(course.told.map((_, i) => String(i)));
    expect(course.told.every(({ times }) => times === 1)).toBe(true);
    expect(course.waitingBytes).toBe(0);
  });

  test.each(seeds)('what expires is told so, and the lane goes on behind it in order (seed %i)', (seed) => {
    const course = new Course(seed, { outMax, deliveryTimeoutMs: 60 });
    for (let i = 0; i < 3_000; i++) {
      course.step({ breaks: 0.5, refusals: 0.5 });
      if (i % 5 === 0) course.lane.expire(course.now);
    }
    course.finish();
    const { log } = course.leader;
    expect(course.told.every(({ times }) => times === 1)).toBe(true);
    let before = -1;
    for (const [i, { offset, error }] of course.told.entries()) {
      if (error !== null) {
        expect(error.code).toBe('RK9209');
        if (!error.outcomeUnknown) expect(log).not.toContain(String(i));
        continue;
      }
      expect(log[offset!]).toBe(String(i));
      expect(offset!).toBeGreaterThan(before);
      before = offset!;
    }
    expect(course.waitingBytes).toBe(0);
  });
});

describe('numbers', () => {
  const lane = (epoch = 0): ProducerLane => {
    const made = new ProducerLane('topic', 0, {
      codec: 'none',
      batchBytesMax: 1,
      deliveryTimeoutMs: Infinity,
      outMax: 5,
      isIdempotent: true,
      released: () => {},
    });
    made.identify({ producerId: 7, epoch });
    return made;
  };
  const append = (to: ProducerLane, outcomes: unknown[] = []): void =>
    to.append(
      { value: Buffer.from('v'), timestamp: 1 },
      { delivered: (offset) => outcomes.push(offset), failed: (error) => outcomes.push(error) },
      1,
      0,
    );
  const connection = {} as Connection;
  const numberOf = ({ bytes }: Batch): string => {
    const batch = RecordBatch.read(bytes, 0)!;
    expect(batch.checkCrc()).toBe(true);
    return `${batch.producerId}/${batch.producerEpoch}/${batch.baseSequence}`;
  };

  test('a batch that the broker has had before counts as delivered, at an offset nobody knows', () => {
    const outcomes: unknown[] = [];
    const one = lane();
    append(one, outcomes);
    one.refused(one.next(connection)!, new BrokerError('DUPLICATE_SEQUENCE_NUMBER', ''), 0);
    expect(outcomes).toEqual([-1]);
  });

  test.each(['OUT_OF_ORDER_SEQUENCE_NUMBER', 'UNKNOWN_PRODUCER_ID'] as const)(
    '%s to the first batch: everything is numbered anew in the next epoch, once nothing is out',
    (error) => {
      const one = lane();
      for (let i = 0; i < 3; i++) append(one);
      const [a, b] = [one.next(connection)!, one.next(connection)!];
      one.refused(a, new BrokerError(error, ''), 0);
      expect(one.next(connection)).toBeNull();
      one.refused(b, new BrokerError('OUT_OF_ORDER_SEQUENCE_NUMBER', ''), 0);
      expect(numberOf(one.next(connection)!)).toBe('7/1/0');
      one.delivered(a, 0, -1);
      expect(numberOf(one.next(connection)!)).toBe('7/1/1');
      one.delivered(b, 1, -1);
      expect(numberOf(one.next(connection)!)).toBe('7/1/2');
    },
  );

  test('a batch of another epoch fails, and the next epoch begins behind it', () => {
    const outcomes: unknown[] = [];
    const one = lane();
    append(one, outcomes);
    append(one);
    one.refused(one.next(connection)!, new BrokerError('INVALID_PRODUCER_EPOCH', ''), 0);
    expect(outcomes).toMatchObject([{ error: 'INVALID_PRODUCER_EPOCH' }]);
    expect(numberOf(one.next(connection)!)).toBe('7/1/0');
  });

  test('after the last epoch another identity is asked for', () => {
    const one = lane(0x7fff);
    append(one);
    one.refused(one.next(connection)!, new BrokerError('UNKNOWN_PRODUCER_ID', ''), 0);
    expect(one.next(connection)).toBeNull();
    expect(one.needsIdentity).toBe(true);
    one.identify({ producerId: 8, epoch: 0 });
    expect(numberOf(one.next(connection)!)).toBe('8/0/0');
  });

  test('what is out on one connection keeps what follows from another', () => {
    const one = lane();
    append(one);
    append(one);
    const first = one.next(connection)!;
    expect(one.next({} as Connection)).toBeNull();
    one.delivered(first, 0, -1);
    expect(one.next({} as Connection)).not.toBeNull();
  });
});
