import { ErrorCode, errorName, errorRows, isRetriable, type ErrorName } from '@rookery/wire';
import { describe, expect, test } from 'vitest';
import { kafkaTool } from '../support/kafka-process.ts';
import { requirePeer } from '../support/peers.ts';

const rows = Object.entries(errorRows);

describe("Kafka's own table", () => {
  requirePeer('kafka');

  test('has the same names, codes and retriable errors as ours', async () => {
    // Kafka's enumeration of errors prints itself as the table of its documentation.
    const page = await kafkaTool('org.apache.kafka.common.protocol.Errors', []);
    const cells = page.matchAll(/<tr><td>(\w+)<\/td><td>(-?\d+)<\/td><td>(True|False)<\/td>/g);
    const theirs = Array.from(
      cells,
      ([, name, code, retriable]) => `${name} ${code} ${retriable === 'True'}`,
    );
    expect(theirs.length).toBeGreaterThan(100);
    expect(rows.map(([name, { code, retriable }]) => `${name} ${code} ${retriable}`)).toEqual(theirs);
  });
});

test('codes run from -1 without a gap, in order', () => {
  expect(rows.map(([, { code }]) => code)).toEqual(rows.map((_, index) => index - 1));
});

test('every error says in a sentence of its own what is wrong', () => {
  const sentences = rows.map(([, { message }]) => message);
  expect(new Set(sentences).size).toBe(sentences.length);
  for (const sentence of sentences) expect(sentence).toMatch(/^[a-z].{5,}[^.]$/);
});

test('names, codes and rows lead to each other; an unknown code is an unknown error', () => {
  for (const [name, { code, retriable }] of rows) {
    expect(ErrorCode[name as ErrorName]).toBe(code);
    expect(errorName(code)).toBe(name);
    expect(isRetriable(name as ErrorName)).toBe(retriable);
  }
  expect(errorName(9999)).toBe('UNKNOWN_SERVER_ERROR');
});
