import { RecordBatch } from '@rookery/wire';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { kafkaTool } from '../support/kafka-process.ts';
import { kcat } from '../support/kcat.ts';
import { kafka } from '../support/peers.ts';

// The ground the other comparisons stand on: the Kafka they compare with really is one.

const real = kafka();

test('a real Kafka takes records, and our own reader understands its segments', async () => {
  // librdkafka sends what compression does not make smaller as it is.
  const lines = ['one', 'two', 'three'].map((word) => `${word} `.repeat(200)).join('\n') + '\n';
  await kcat(['-P', '-b', real.address, '-t', 'ground', '-z', 'zstd'], lines);
  expect(await kcat(['-C', '-b', real.address, '-t', 'ground', '-e', '-q'])).toBe(lines);

  const segment = join(real.process.dataDir, 'ground-0', '00000000000000000000.log');
  const batches = RecordBatch.split([await readFile(segment)]);
  expect(new Set(batches.map((batch) => batch.codec))).toEqual(new Set(['zstd']));
  expect(batches.reduce((sum, batch) => sum + batch.recordCount, 0)).toBe(3);

  const dump = await kafkaTool('org.apache.kafka.tools.DumpLogSegments', ['--files', segment]);
  expect(dump).toContain(`lastOffset: 2`);
  expect(dump).toContain(`compresscodec: zstd`);
});
