import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';
import { output } from '../support/finished-process.ts';
import { kafka } from '../support/peers.ts';

// Our commands speak the protocol and nothing else, so they serve who runs a Kafka just as well.

const broker = kafka();
const launcher = fileURLToPath(new URL('../../sidecar/bin/rookery', import.meta.url));
const path = `${fileURLToPath(new URL('.', pathToFileURL(process.execPath)))}:${process.env['PATH'] ?? ''}`;

const rookery = (command: string, stdin = ''): Promise<string> =>
  output(launcher, [...command.split(' '), '--broker', broker.address], {
    environment: { PATH: path },
    stdin,
  });

const cells = (table: string): string[][] =>
  table
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/\s{2,}/));

test('make, fill, read, describe, configure and delete a topic of a Kafka', async () => {
  await rookery('topics create ours --partitions 2 --set retention.ms=86400000');
  await rookery('produce ours --key-separator :', 'same:1\nsame:2\nsame:3\n');
  expect(await rookery('consume ours --count 3')).toBe('1\n2\n3\n');
  const [, ...partitions] = cells(await rookery('topics describe ours'));
  const [empty, filled] = partitions.toSorted((a, b) => Number(a[3]) - Number(b[3]));
  // Nobody tells the segments of a Kafka.
  expect(empty!.slice(2)).toEqual(['0', '0', '0', '-', '-']);
  expect(filled!.slice(2)).toEqual([
    '0',
    '3',
    expect.stringMatching(/^[1-9]/),
    '-',
    expect.stringMatching(/s$/),
  ]);
  await rookery('configs ours --set retention.ms=3600000');
  expect((await rookery('configs ours')).split('\n')).toContain('retention.ms=3600000');
  await rookery('topics delete ours');
  expect(await rookery('topics list')).not.toContain('ours');
});
