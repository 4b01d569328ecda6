import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteReader } from './byte-reader.ts';
import { catalogue } from './catalogue.ts';
import {
  decodeRequestHeader,
  decodeResponseHeader,
  encodeRequest,
  FrameCutter,
  requestHeaderVersion,
  responseHeaderVersion,
  skipRequestHeaderTags,
} from './frame.ts';
import { apiVersions, metadata } from './messages/metadata.ts';

const frameOf = (body: Buffer): Buffer => {
  const size = Buffer.alloc(4);
  size.writeInt32BE(body.length);
  return Buffer.concat([size, body]);
};

/** Every frame that comes out when `stream` arrives in pieces of the sizes given, over and over. */
function cut(stream: Buffer, sizes: readonly number[]): Buffer[] {
  const cutter = new FrameCutter(1_000_000);
  const frames: Buffer[] = [];
  for (let at = 0, i = 0; at < stream.length; i++) {
    const size = sizes[i % sizes.length]!;
    cutter.push(stream.subarray(at, at + size));
    at += size;
    for (let frame = cutter.next(); frame !== null; frame = cutter.next()) frames.push(Buffer.concat(frame));
  }
  expect(cutter.held).toBe(0);
  return frames;
}

describe('cutting a stream', () => {
  test('frames come out whole however the stream was cut', () => {
    const bodies = fc.array(fc.uint8Array({ maxLength: 3000 }), { minLength: 1, maxLength: 12 });
    const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 5000 })), {
      minLength: 1,
      maxLength: 6,
    });
    fc.assert(
      fc.property(bodies, sizes, (bodies, sizes) => {
        const buffers = bodies.map((body) => Buffer.from(body));
        const frames = cut(Buffer.concat(buffers.map(frameOf)), sizes);
        expect(frames.map((frame) => frame.toString('hex'))).toEqual(
          buffers.map((body) => body.toString('hex')),
        );
      }),
    );
  });

  test('frames that were handed out stay as they were while crumbs go on arriving', () => {
    const cutter = new FrameCutter(1000);
    const stream = Buffer.concat([frameOf(Buffer.from('first')), frameOf(Buffer.from('second'))]);
    const kept: Buffer[][] = [];
    for (const byte of stream) {
      cutter.push(Buffer.from([byte]));
      const frame = cutter.next();
      if (frame !== null) kept.push(frame);
    }
    expect(kept.map((frame) => Buffer.concat(frame).toString())).toEqual(['first', 'second']);
  });

  test('a peer that sends byte by byte does not make an object of every byte', () => {
    const cutter = new FrameCutter(1_000_000);
    cutter.push(frameOf(Buffer.alloc(200_000)).subarray(0, 4));
    for (let i = 0; i < 200_000; i++) cutter.push(Buffer.alloc(1));
    expect(cutter.next()!.length).toBeLessThan(50);
  });

  test('large chunks stay where they arrived', () => {
    const cutter = new FrameCutter(1_000_000);
    const stream = frameOf(Buffer.alloc(100_000, 7));
    const chunks = [stream.subarray(0, 40_000), stream.subarray(40_000, 90_000), stream.subarray(90_000)];
    for (const chunk of chunks) cutter.push(chunk);
    const frame = cutter.next()!;
    expect(frame).toHaveLength(3);
    for (const piece of frame) expect(piece.buffer).toBe(stream.buffer);
  });

  test('a size that is negative or above the limit is refused before its bytes are waited for', () => {
    for (const size of [-1, -0x80000000, 1001, 0x7fffffff]) {
      const cutter = new FrameCutter(1000);
      const bytes = Buffer.alloc(4);
      bytes.writeInt32BE(size);
      cutter.push(bytes);
      expect(() => cutter.next()).toThrow(/RK9011/);
    }
  });
});

describe('headers', () => {
  test.each(catalogue.flatMap((api) => [[api.name, api] as const]))('%s', (name, api) => {
    for (let version = api.versions[0]; version <= api.versions[1]; version++) {
      const flexible = version >= api.flexibleFrom;
      expect(requestHeaderVersion(api, version)).toBe(flexible ? 2 : 1);
      expect(responseHeaderVersion(api, version)).toBe(flexible && name !== 'ApiVersions' ? 1 : 0);
    }
  });

  test('a request reads back, with and without a client id', () => {
    for (const clientId of ['me', '', null]) {
      for (const version of [8, 9]) {
        const spans = encodeRequest(metadata, version, { correlationId: 7, clientId }, { topics: null });
        const reader = new ByteReader(Buffer.concat(spans as Buffer[]).subarray(4));
        expect(decodeRequestHeader(reader)).toEqual({
          apiKey: 3,
          apiVersion: version,
          correlationId: 7,
          clientId,
        });
        skipRequestHeaderTags(metadata, version, reader);
        expect(reader.remaining).toBe(version === 8 ? 7 : 5);
      }
    }
  });

  test('tags in a header that nobody knows are passed over', () => {
    const header = Buffer.from([0, 0, 0, 9, 2, 0, 1, 0xaa, 5, 2, 0xbb, 0xcc, 1]);
    const reader = new ByteReader(header);
    expect(decodeResponseHeader(metadata, 9, reader)).toBe(9);
    expect(reader.remaining).toBe(1);
    const plain = new ByteReader(header);
    expect(decodeResponseHeader(apiVersions, 3, plain)).toBe(9);
    expect(plain.remaining).toBe(9);
  });
});
