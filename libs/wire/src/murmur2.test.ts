import { describe, expect, test } from 'vitest';
import { murmur2, partitionFor } from './murmur2.ts';

// Answers of `Utils.murmur2` and of its positive remainder by 7, from Kafka 4.3.1's Java client.

describe('keys are hashed as the Java client hashes them', () => {
  test.each([
    ['', 275646681, 2],
    [' ', -987232127, 2],
    ['a', -1563381124, 5],
    ['ab', 316155434, 0],
    ['abc', 479470107, 4],
    ['abcd', -1323649548, 5],
    ['abcde', 461995741, 4],
    ['grüße', 1943707148, 5],
    ['漢字', 1024270057, 6],
    ['🐦', 1876384705, 6],
    ['order-1', 1221710326, 4],
    ['order-42', 501153024, 1],
    ['00000000-0000-0000-0000-000000000000', 713427837, 3],
  ])('%j', (key, hash, partition) => {
    expect(murmur2(Buffer.from(key))).toBe(hash);
    expect(partitionFor(Buffer.from(key), 7)).toBe(partition);
  });

  test.each([
    ['00', 375494588],
    ['ff', -311467685],
    ['ffffff', 1548199422],
    ['807f00ff05', -314396450],
    ['00000000', 850957120],
    ['fffefdfcfbfaf9', -166236347],
    [Buffer.from(Array.from({ length: 256 }, (_, i) => i)).toString('hex'), -1948347274],
  ])('bytes %s', (hex, hash) => {
    expect(murmur2(Buffer.from(hex, 'hex'))).toBe(hash);
  });
});

test('a view into a larger buffer is hashed by its own bytes', () => {
  expect(murmur2(Buffer.from('xabcdx').subarray(1, 5))).toBe(-1323649548);
});
