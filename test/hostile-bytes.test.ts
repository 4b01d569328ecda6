import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { Client } from '@rookery/client';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { catalogue, encodeRequest, legacyProduce, type Api } from '@rookery/wire';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { arbitraryMessage } from './protocol/arbitrary-message.ts';
import { Random } from './protocol/random.ts';

// Whatever bytes a stranger sends, the broker answers, or closes that connection, and goes on serving others.

const seed = Number(process.env['ROOKERY_SEED'] ?? 20_260);
const rounds = 6;
const atOnce = 16;

let sidecar: SidecarProcess;
let host: string;
let port: number;

beforeAll(async () => {
  sidecar = await startSidecar({ settings: { 'flush.mode': 'os', 'offsets.topic.num.partitions': 3 } });
  [host, port] = [sidecar.kafka.split(':')[0]!, Number(sidecar.kafka.split(':')[1])];
});

afterAll(async () => {
  expect(await sidecar.stop()).toBe(0);
});

/** Sends the bytes in pieces, then nothing more; resolves when the other side has closed. */
function throwAt(bytes: Buffer, random: Random): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.resume();
    const cut = random.below(bytes.length + 1);
    socket.write(bytes.subarray(0, cut));
    socket.end(bytes.subarray(cut));
  });
}

async function throwAll(frames: Iterable<Buffer>, random: Random): Promise<void> {
  const left = frames[Symbol.iterator]();
  const lane = async (): Promise<void> => {
    for (let next = left.next(); next.done !== true; next = left.next()) await throwAt(next.value, random);
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
}

/** It still makes topics, has not grown, and met nothing that it did not expect. */
async function expectToServe(): Promise<void> {
  const client = new Client({ brokers: [sidecar.kafka] });
  try {
    const topic = `check-${process.hrtime.bigint()}`;
    const [made] = await client.admin().createTopics([{ name: topic }]);
    expect(made!.error).toBe('NONE');
    expect((await client.admin().describeCluster()).brokers.length).toBe(1);
  } finally {
    await client.close();
  }
  const status = readFileSync(`/proc/${sidecar.pid}/status`, 'utf8');
  const residentMiB = Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
  expect(residentMiB).toBeLessThan(400);
  expect(sidecar.log()).not.toContain('a handler failed');
}

const requestOf = (api: Api, version: number, random: Random): Buffer =>
  Buffer.concat(
    encodeRequest(
      api,
      version,
      { correlationId: random.below(2 ** 31), clientId: random.pick([null, '', 'client', 'ü'.repeat(500)]) },
      arbitraryMessage(api.request, version, random) as never,
    ) as Buffer[],
  );

/** What goes wrong with a frame: bits, lengths, ends, two in one. */
function mutated(frame: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(frame);
  switch (random.below(6)) {
    case 0:
      for (let i = random.below(8); i >= 0; i--) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      return bytes;
    case 1: {
      const at = 4 + random.below(Math.max(1, bytes.length - 8));
      bytes.writeInt32BE(
        random.pick([-2, -1, 0, 1, 0x7fffffff, bytes.length, 0x00ffffff]),
        Math.min(at, bytes.length - 4),
      );
      return bytes;
    }
    case 2:
      // Cut, with a size that says so: the body ends too soon.
      return sized(bytes.subarray(0, 4 + random.below(bytes.length - 4)));
    case 3:
      return sized(Buffer.concat([bytes, Buffer.from([random.below(256)])]));
    case 4:
      // 0xff… are lengths without end in the compact encodings.
      bytes.fill(0xff, 8 + random.below(Math.max(1, bytes.length - 8)));
      return bytes;
    default:
      return Buffer.concat([bytes, bytes.subarray(random.below(bytes.length)), bytes]);
  }
}

function sized(bytes: Buffer): Buffer {
  const frame = Buffer.from(bytes);
  frame.writeInt32BE(frame.length - 4, 0);
  return frame;
}

describe(`the broker survives (seed ${seed})`, () => {
  test('requests of every API and version, with any values in them', async () => {
    const random = new Random(seed);
    function* frames(): Generator<Buffer> {
      for (const api of [...catalogue, legacyProduce])
        for (let version = api.versions[0]; version <= api.versions[1]; version++)
          for (let round = 0; round < rounds; round++) yield requestOf(api, version, random);
    }
    await throwAll(frames(), random);
    await expectToServe();
  });

  test('the same with something wrong in them', async () => {
    const random = new Random(seed + 1);
    function* frames(): Generator<Buffer> {
      for (const api of [...catalogue, legacyProduce])
        for (let version = api.versions[0]; version <= api.versions[1]; version++)
          for (let round = 0; round < rounds; round++) yield mutated(requestOf(api, version, random), random);
    }
    await throwAll(frames(), random);
    await expectToServe();
  });

  test('every array of every request empty, or null where it may be', async () => {
    const random = new Random(seed + 2);
    // Nothing but defaults: that is what empty is.
    const sparse = {
      next: () => 0,
      below: () => 0,
      pick: <T>(from: readonly T[]): T => from[0]!,
    } as unknown as Random;
    function* frames(): Generator<Buffer> {
      for (const api of catalogue)
        for (let version = api.versions[0]; version <= api.versions[1]; version++)
          yield requestOf(api, version, sparse);
    }
    await throwAll(frames(), random);
    await expectToServe();
  });

  test('API keys and versions of all sizes', async () => {
    const random = new Random(seed + 3);
    function* frames(): Generator<Buffer> {
      for (let key = -2; key < 100; key++)
        for (const version of [-1, 0, 1, 99, 32_767]) {
          const frame = Buffer.alloc(4 + 10 + random.below(30));
          frame.writeInt16BE(key, 4);
          frame.writeInt16BE(version, 6);
          yield sized(frame);
        }
    }
    await throwAll(frames(), random);
    await expectToServe();
  });

  test('bytes that mean nothing', async () => {
    const random = new Random(seed + 4);
    function* frames(): Generator<Buffer> {
      for (let i = 0; i < 300; i++) {
        const bytes = Buffer.from(Array.from({ length: random.below(2_000) }, () => random.below(256)));
        yield i % 2 === 0 || bytes.length < 4 ? bytes : sized(bytes);
      }
    }
    await throwAll(frames(), random);
    await expectToServe();
  });

  test('counts of tagged fields and array elements that no frame could hold', async () => {
    const random = new Random(seed + 5);
    function* frames(): Generator<Buffer> {
      for (const count of [2 ** 20, 2 ** 28, 2 ** 31, 2 ** 32 - 1])
        for (const size of [64, 1024 * 1024]) {
          // Metadata v12: a flexible header, whose tag buffer claims so many fields, then the rest of the frame.
          const frame = Buffer.alloc(size);
          frame.writeInt16BE(3, 4);
          frame.writeInt16BE(12, 6);
          frame.writeInt16BE(-1, 12);
          yield sized(frame.fill(uvarint(count), 14, 14 + uvarint(count).length));
          const array = Buffer.alloc(size);
          frame.copy(array, 0, 0, 14);
          yield sized(array.fill(uvarint(count), 15, 15 + uvarint(count).length));
        }
    }
    await throwAll(frames(), random);
    await expectToServe();
  });
});

function uvarint(value: number): Buffer {
  const bytes: number[] = [];
  let left = value;
  for (; left >= 128; left = Math.floor(left / 128)) bytes.push((left % 128) | 128);
  return Buffer.from([...bytes, left]);
}
