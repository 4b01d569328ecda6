import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { assignRanges, type GroupMember, type TopicPartitions } from './assignor.ts';

const member = (id: string, topics: readonly string[], instanceId: string | null = null): GroupMember => ({
  id,
  instanceId,
  topics,
});

const shown = (assigned: ReadonlyMap<string, readonly TopicPartitions[]>): Record<string, string> =>
  Object.fromEntries(
    [...assigned].map(([id, topics]) => [
      id,
      topics.map(({ topic, partitions }) => `${topic}:${partitions.join('')}`).join(' '),
    ]),
  );

describe('ranges', () => {
  test('the first members get one more where it does not come out even', () => {
    const members = [member('c', ['t']), member('a', ['t']), member('b', ['t'])];
    expect(shown(assignRanges(members, new Map([['t', 8]])))).toEqual({ a: 't:012', b: 't:345', c: 't:67' });
  });

  test('each topic is divided among those that read it', () => {
    const members = [member('a', ['t', 'u']), member('b', ['u', 'gone']), member('c', ['t'])];
    const counts = new Map([
      ['t', 3],
      ['u', 2],
    ]);
    expect(shown(assignRanges(members, counts))).toEqual({ a: 't:01 u:0', b: 'u:1', c: 't:2' });
  });

  test('who has an instance id stands before the others, whatever member id it was given', () => {
    const members = [member('a', ['t']), member('z', ['t'], 'i2'), member('y', ['t'], 'i1')];
    expect(shown(assignRanges(members, new Map([['t', 3]])))).toEqual({ y: 't:0', z: 't:1', a: 't:2' });
  });

  test('more members than partitions leave the last ones without', () => {
    const members = [member('a', ['t']), member('b', ['t'])];
    expect(shown(assignRanges(members, new Map([['t', 1]])))).toEqual({ a: 't:0', b: '' });
  });

  test('every partition goes to exactly one member that reads its topic, and none gets two more than another', () => {
    const topics = ['t', 'u', 'v'];
    const some = fc.subarray(topics);
    const counts = fc.record({ t: fc.nat(20), u: fc.nat(20), v: fc.nat(20) });
    fc.assert(
      fc.property(fc.array(some, { minLength: 1, maxLength: 12 }), counts, (subscriptions, numbers) => {
        const members = subscriptions.map((subscribed, i) => member(`m${i}`, subscribed));
        const assigned = assignRanges(members, new Map(Object.entries(numbers)));
        for (const topic of topics) {
          const readers = members.filter((each) => each.topics.includes(topic));
          const given = members.map(({ id }) =>
            assigned
              .get(id)!
              .filter((each) => each.topic === topic)
              .flatMap(({ partitions }) => partitions),
          );
          const all = given.flat().toSorted((a, b) => a - b);
          const count = readers.length === 0 ? 0 : numbers[topic as 't' | 'u' | 'v'];
          expect(all).toEqual(Array.from({ length: count }, (_, i) => i));
          const sizes = readers.map((reader) => given[members.indexOf(reader)]!.length);
          if (sizes.length > 0) expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
        }
      }),
    );
  });
});
