import {
  createTopics,
  decodeResponseHeader,
  decoderOf,
  ByteReader,
  encodeBatch,
  encodeRequest,
  fetch,
  FrameCutter,
  decodeRecords,
  listOffsets,
  produce,
  RecordBatch,
  type Api,
  type CompressionCodec,
  type Encodable,
  type NewRecord,
  type Response,
} from '@rookery/wire';
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { kafkaTool } from '../support/kafka-process.ts';
import { kafka } from '../support/peers.ts';

// Kafka opens every batch that it is given, checks its records, and refuses what is not right to the bit.

const real = kafka();
const codecs: CompressionCodec[] = ['none', 'gzip', 'snappy', 'lz4', 'zstd'];

/** More than one xerial block and more than one LZ4 block's worth of 64 KiB. */
const records: NewRecord[] = Array.from({ length: 3000 }, (_, i) => ({
  key: i % 3 === 0 ? null : Buffer.from(`key-${i}`),
  value: i % 5 === 0 ? null : Buffer.from(`value ${i};`.repeat(5)),
  timestamp: Date.now() + i,
  headers:
    i % 7 === 0
      ? [
          { key: 'größe', value: Buffer.from(String(i)) },
          { key: 'none', value: null },
        ]
      : [],
}));

test(
  'Kafka takes our batches in every codec, gives them back, and its own reader prints them',
  { timeout: 60_000 },
  async () => {
    const socket = await connected(real.address);
    try {
      const created = await ask(socket, createTopics, 5, {
        topics: [{ name: 'ours', numPartitions: 1, replicationFactor: 1, assignments: [], configs: [] }],
        validateOnly: false,
      });
      expect(created.topics[0]).toMatchObject({ errorCode: 0 });
      await ledBySomebody(socket);
      for (const [index, codec] of codecs.entries()) {
        const answer = await ask(socket, produce, 9, {
          acks: -1,
          timeoutMs: 10_000,
          topicData: [
            { name: 'ours', partitionData: [{ index: 0, records: [encodeBatch(records, { codec })] }] },
          ],
        });
        expect([codec, answer.responses[0]!.partitionResponses[0]]).toMatchObject([
          codec,
          { errorCode: 0, errorMessage: null, baseOffset: index * records.length },
        ]);
      }
      const batches = await readAll(socket, codecs.length * records.length);
      expect(batches.map(({ codec }) => codec)).toEqual(codecs);
      for (const batch of batches) {
        expect(batch.checkCrc()).toBe(true);
        expect(decodeRecords(batch)).toEqual(
          records.map((record, i) => ({ ...record, offset: batch.baseOffset + i })),
        );
      }
    } finally {
      socket.destroy();
    }
    const printed = await kafkaTool('org.apache.kafka.tools.consumer.ConsoleConsumer', [
      ...['--bootstrap-server', real.address, '--topic', 'ours', '--from-beginning'],
      ...['--max-messages', String(codecs.length * records.length), '--formatter-property', 'print.key=true'],
    ]);
    const text = (bytes: Uint8Array | null | undefined): string =>
      bytes == null ? 'null' : Buffer.from(bytes).toString();
    const lines = records.map(({ key, value }) => `${text(key)}\t${text(value)}\n`).join('');
    expect(printed).toBe(lines.repeat(codecs.length));
  },
);

async function readAll(socket: Socket, count: number): Promise<RecordBatch[]> {
  const batches: RecordBatch[] = [];
  for (let offset = 0; offset < count; offset = batches.at(-1)!.nextOffset) {
    const answer = await ask(socket, fetch, 12, {
      maxWaitMs: 1000,
      minBytes: 1,
      topics: [
        {
          topic: 'ours',
          partitions: [{ partition: 0, fetchOffset: offset, partitionMaxBytes: 100_000_000 }],
        },
      ],
      forgottenTopicsData: [],
      isolationLevel: 0,
    });
    const [partition] = answer.responses[0]!.partitions;
    expect(partition).toMatchObject({ errorCode: 0 });
    batches.push(...RecordBatch.split(partition!.records!));
  }
  return batches;
}

/** A topic that was just created has no leader for a moment. */
/** Metadata names a leader before the leader itself knows: it is asked, not talked about. */
async function ledBySomebody(socket: Socket): Promise<void> {
  for (;;) {
    const { topics } = await ask(socket, listOffsets, 1, {
      replicaId: -1,
      topics: [{ name: 'ours', partitions: [{ partitionIndex: 0, timestamp: -1 }] }],
    });
    if (topics[0]!.partitions[0]!.errorCode === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function ask<A extends Api>(
  socket: Socket,
  api: A,
  version: number,
  body: Encodable<A['request']>,
): Promise<Response<A>> {
  const cutter = new FrameCutter(100_000_000);
  socket.write(
    Buffer.concat(encodeRequest(api, version, { correlationId: 1, clientId: 'test' }, body) as Buffer[]),
  );
  const frame = await new Promise<Buffer[]>((resolve, reject) => {
    const take = (chunk: Buffer): void => {
      cutter.push(chunk);
      const whole = cutter.next();
      if (whole === null) return;
      socket.off('data', take).off('close', closed);
      resolve(whole);
    };
    const closed = (): void => reject(new Error('the connection closed without an answer'));
    socket.on('data', take).once('close', closed);
  });
  const reader = new ByteReader(frame);
  decodeResponseHeader(api, version, reader);
  const answer = decoderOf(api.response, version)(reader);
  reader.end();
  return answer as Response<A>;
}

const connected = (address: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const [host, port] = address.split(':');
    const socket = connect(Number(port), host);
    socket.once('connect', () => resolve(socket)).once('error', reject);
  });
