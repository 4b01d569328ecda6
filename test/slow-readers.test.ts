import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import {
  ByteReader,
  createTopics,
  decodeResponseHeader,
  decoderOf,
  deleteRecords,
  deleteTopics,
  encodeBatch,
  encodeRequest,
  ErrorCode,
  fetch,
  FrameCutter,
  produce,
  RecordBatch,
} from '@rookery/wire';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Random } from './protocol/random.ts';
import { segmentFiles } from './support/segments.ts';
import { WireConnection } from './support/wire-connection.ts';

// A reader that is slow, stops, or dies gets the bytes of the log or nothing, whatever happens to its files
// meanwhile, and leaves nothing open behind.

const seed = Number(process.env['ROOKERY_SEED'] ?? 1);
const mebibyte = 1024 * 1024;
const segmentBytes = 4 * mebibyte;
const fetchVersion = 11;

/** Asks for everything from several offsets on at once, and takes what comes only when it is told to. */
class SlowReader {
  readonly #socket: Socket;
  readonly #cutter = new FrameCutter(64 * mebibyte);
  readonly #answers: Buffer[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk) => {
      this.#cutter.push(chunk);
      for (let frame = this.#cutter.next(); frame !== null; frame = this.#cutter.next())
        this.#answers.push(recordsIn(frame));
    });
    socket.pause();
    socket.on('error', () => {});
  }

  static async open(address: string, topic: string, offsets: readonly number[]): Promise<SlowReader> {
    const [host, port] = address.split(':');
    const socket = connect(Number(port), host!);
    await new Promise((resolve) => socket.once('connect', resolve));
    const reader = new SlowReader(socket);
    for (const [correlationId, fetchOffset] of offsets.entries()) {
      const body = {
        maxWaitMs: 0,
        minBytes: 1,
        isolationLevel: 0,
        sessionId: 0,
        topics: [{ topic, partitions: [{ partition: 0, fetchOffset, partitionMaxBytes: segmentBytes }] }],
        forgottenTopicsData: [],
        rackId: '',
      };
      const frame = encodeRequest(fetch, fetchVersion, { correlationId, clientId: 'slow' }, body);
      for (const span of frame) socket.write(span as Uint8Array);
    }
    return reader;
  }

  /** Reads on, with pauses; the records of each answer, in order. */
  async readAll(count: number, random: Random): Promise<Buffer[]> {
    while (this.#answers.length < count) {
      this.#socket.resume();
      await sleep(random.below(3));
      this.#socket.pause();
      await sleep(random.below(3));
    }
    return this.#answers;
  }

  async readSome(): Promise<void> {
    this.#socket.resume();
    while (this.#answers.length === 0) await sleep(1);
    this.#socket.pause();
  }

  die(): void {
    this.#socket.resetAndDestroy();
  }
}

function recordsIn(frame: readonly Buffer[]): Buffer {
  const reader = new ByteReader(frame);
  decodeResponseHeader(fetch, fetchVersion, reader);
  const { responses } = decoderOf(fetch.response, fetchVersion)(reader);
  expect(responses[0]!.partitions[0]!.errorCode).toBe(ErrorCode.NONE);
  return Buffer.concat(responses[0]!.partitions[0]!.records ?? []);
}

const ways = {
  'by sendfile': {},
  'through buffers': { 'sendfile.enable': false, 'tail.cache.bytes': 0 },
};

describe.each(Object.entries(ways))('%s', (_, settings) => {
  let sidecar: SidecarProcess;
  let connection: WireConnection;
  let topics = 0;
  const readers: SlowReader[] = [];

  afterEach(() => {
    for (const reader of readers.splice(0)) reader.die();
  });

  beforeAll(async () => {
    sidecar = await startSidecar({ settings: { ...settings, 'flush.mode': 'os' } });
    connection = await WireConnection.open(sidecar.kafka);
  });

  afterAll(async () => {
    connection.close();
    expect(await sidecar.stop()).toBe(0);
  });

  /** A topic of several segments; the bytes of each, and where it begins. */
  async function filledTopic(): Promise<{ topic: string; segments: { offset: number; bytes: Buffer }[] }> {
    const topic = `filled-${topics++}`;
    const configs = { 'segment.bytes': String(segmentBytes), 'file.delete.delay.ms': '0' };
    await connection.ask(createTopics, 5, {
      timeoutMs: 10_000,
      validateOnly: false,
      topics: [
        {
          name: topic,
          numPartitions: 1,
          replicationFactor: 1,
          assignments: [],
          configs: Object.entries(configs).map(([name, value]) => ({ name, value })),
        },
      ],
    });
    const random = new Random(seed);
    for (let i = 0; i < 100; i++) {
      const value = Buffer.alloc(500_000, String(random.below(1e9)));
      const batch = encodeBatch([{ key: null, value, headers: [], timestamp: Date.now() }], {});
      const told = await connection.ask(produce, 7, {
        acks: -1,
        timeoutMs: 10_000,
        topicData: [{ name: topic, partitionData: [{ index: 0, records: [batch] }] }],
      });
      expect(told.responses[0]!.partitionResponses[0]!.errorCode).toBe(ErrorCode.NONE);
    }
    const segments = (await segmentFiles(sidecar.dataDir, topic)).map((path) => {
      const bytes = readFileSync(path);
      return { offset: RecordBatch.header(bytes).baseOffset, bytes };
    });
    return { topic, segments };
  }

  async function readerOf(topic: string, segments: readonly { offset: number }[]): Promise<SlowReader> {
    const offsets = segments.map(({ offset }) => offset);
    const reader = await SlowReader.open(sidecar.kafka, topic, offsets);
    readers.push(reader);
    return reader;
  }

  /** Logs that the broker has open and that have no name any more. */
  function deletedButOpen(): string[] {
    const directory = `/proc/${sidecar.pid}/fd`;
    return readdirSync(directory).flatMap((fd) => {
      try {
        const path = readlinkSync(`${directory}/${fd}`);
        return path.includes('.log') && path.endsWith(' (deleted)') ? [path] : [];
      } catch {
        return [];
      }
    });
  }

  async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
    while (!(await holds())) await sleep(20);
  }

  const deleting = {
    'its records are deleted': async (topic: string) => {
      const told = await connection.ask(deleteRecords, 1, {
        topics: [{ name: topic, partitions: [{ partitionIndex: 0, offset: -1 }] }],
        timeoutMs: 10_000,
      });
      expect(told.topics[0]!.partitions[0]!.errorCode).toBe(ErrorCode.NONE);
      // What is deleted is renamed first.
      const directory = `${sidecar.dataDir}/${topic}-0`;
      await until(() => readdirSync(directory).filter((name) => name.includes('.log')).length === 1);
    },
    'its topic is deleted': async (topic: string) => {
      await connection.ask(deleteTopics, 5, { topicNames: [topic], timeoutMs: 10_000 });
      await until(() => !readdirSync(sidecar.dataDir).some((name) => name.startsWith(topic)));
    },
  };

  for (const [what, destroy] of Object.entries(deleting)) {
    test(`a reader that stopped gets every byte although ${what} under it (seed ${seed})`, async () => {
      const { topic, segments } = await filledTopic();
      expect(segments.length).toBeGreaterThan(5);
      const reader = await readerOf(topic, segments);
      await reader.readSome();
      await destroy(topic);
      if (process.platform === 'linux') expect(deletedButOpen()).not.toEqual([]);
      const answers = await reader.readAll(segments.length, new Random(seed));
      for (const [i, { bytes }] of segments.entries())
        expect(answers[i]!.equals(bytes), `segment ${i}`).toBe(true);
      await until(() => deletedButOpen().length === 0);
    });

    test(`a reader that dies when ${what} leaves no file open`, async () => {
      const { topic, segments } = await filledTopic();
      const reader = await readerOf(topic, segments);
      await reader.readSome();
      await destroy(topic);
      reader.die();
      await until(() => deletedButOpen().length === 0);
    });
  }
});
