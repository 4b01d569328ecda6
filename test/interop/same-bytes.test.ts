import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { CompressionTypes, Kafka, logLevel, Partitioners } from 'kafkajs';
import { expect, test } from 'vitest';
import { startKafka } from '../support/kafka-process.ts';
import { requirePeer } from '../support/peers.ts';
import { segmentFiles } from '../support/segments.ts';

requirePeer('kafka', 'kcat');

const settings = {
  'log.segment.bytes': 1_048_576,
  'log.message.timestamp.before.max.ms': '9223372036854775807',
};

/** The same requests, to the byte: times are given, and so no clock is in them. */
async function produceTheSame(broker: string): Promise<number[]> {
  const kafka = new Kafka({ clientId: 'same', brokers: [broker], logLevel: logLevel.NOTHING });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  const admin = kafka.admin();
  await Promise.all([producer.connect(), admin.connect()]);
  await admin.createTopics({ topics: [{ topic: 'same', numPartitions: 1 }] });
  const start = Date.UTC(2026, 0, 1);
  // Times that go up, stand still and go back; sizes on both sides of the index interval.
  for (let batch = 0; batch < 400; batch++) {
    const messages = Array.from({ length: 1 + (batch % 7) }, (_, i) => ({
      key: `${batch % 13}`,
      value: `${batch}-${i} `.padEnd(100 + ((batch * 37) % 3_000), 'x'),
      timestamp: String(start + 1_000 * ((batch * 7) % 50) + 10 * batch + (i % 3)),
    }));
    const compression = batch % 5 === 4 ? CompressionTypes.GZIP : CompressionTypes.None;
    await producer.send({ topic: 'same', messages, compression });
  }
  const found: number[] = [];
  for (let time = start - 5_000; time < start + 60_000; time += 997) {
    const [answer] = await admin.fetchTopicOffsetsByTimestamp('same', time);
    found.push(Number(answer!.offset));
  }
  await Promise.all([producer.disconnect(), admin.disconnect()]);
  return found;
}

test('the same requests leave the same files as in Kafka, and times are found at the same offsets', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'rookery-same-'));
  try {
    const kafka = await startKafka({ dir: join(dir, 'kafka'), settings });
    const theirs = await produceTheSame(kafka.address);
    await kafka.stop();
    const sidecar = await startSidecar({ dataDir: join(dir, 'rookery'), settings });
    const ours = await produceTheSame(sidecar.kafka);
    await sidecar.stop();
    expect(ours).toEqual(theirs);

    const kafkaLogs = await segmentFiles(kafka.dataDir, 'same');
    const ourLogs = await segmentFiles(sidecar.dataDir, 'same');
    expect(ourLogs.map((log) => basename(log))).toEqual(kafkaLogs.map((log) => basename(log)));
    expect(ourLogs.length).toBeGreaterThan(1);
    for (const [i, theirs] of kafkaLogs.entries()) {
      for (const kind of ['log', 'index', 'timeindex']) {
        const [mine, kafkas] = await Promise.all(
          [ourLogs[i]!, theirs].map((log) => readFile(log.replace(/log$/, kind))),
        );
        expect(kafkas!.length).toBeGreaterThan(0);
        expect(mine!.equals(kafkas!), `${basename(theirs)} ${kind}`).toBe(true);
      }
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
