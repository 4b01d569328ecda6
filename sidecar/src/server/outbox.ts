import type { Socket } from 'node:net';
import type { ByteSpan } from '@rookery/wire';
import { releaseSpans, type FileRegion } from '../vfs/file-region.ts';
import type { BufferPool } from './buffer-pool.ts';

export interface OutboxDeps {
  readonly pool: BufferPool;
  /** Bytes of answers a peer may leave unread before it is no longer served. */
  readonly unreadBytesMax: number;
  readonly traffic: { bytesOut: number };
  /** The peer has taken bytes. */
  moved(): void;
  /** Nothing stands in the way of more answers. */
  ready(): void;
  /** A file could not be read: the answer cannot be completed. */
  failed(error: unknown): void;
}

/** Regions up to this size are read on the loop: a pool hop costs more than reading what was just written. */
const readOnLoopMax = 64 * 1024;

/** What waits to be sent on one connection: buffers and file regions, in order. */
export class Outbox {
  readonly #socket: Socket;
  readonly #deps: OutboxDeps;
  readonly #spans: ByteSpan[] = [];
  #readsRegion = false;
  #isClosed = false;

  constructor(socket: Socket, deps: OutboxDeps) {
    this.#socket = socket;
    this.#deps = deps;
    socket.on('drain', () => {
      deps.moved();
      this.flush();
    });
  }

  /** Everything has been given to the socket. */
  get isEmpty(): boolean {
    return this.#spans.length === 0;
  }

  /** Puts an answer at the end; `flush` sends it. */
  add(spans: readonly ByteSpan[]): void {
    if (this.#isClosed) releaseSpans(spans);
    else for (const span of spans) this.#spans.push(span);
  }

  /** Writes what may leave: buffers at once, file regions piece by piece through pooled buffers. */
  flush(): void {
    if (this.#readsRegion || this.#isClosed) return;
    this.#socket.cork();
    let sent = 0;
    while (sent < this.#spans.length && this.#socket.writableLength < this.#deps.unreadBytesMax) {
      const span = this.#spans[sent]!;
      if (span instanceof Uint8Array) {
        this.#write(span);
        sent++;
        continue;
      }
      const region = span as FileRegion;
      if (region.byteLength > readOnLoopMax) {
        this.#spans.splice(0, sent);
        this.#socket.uncork();
        void this.#sendRegion(region);
        return;
      }
      try {
        this.#write(region.readNow());
      } catch (error) {
        this.#socket.uncork();
        return this.#deps.failed(error);
      }
      region.release();
      sent++;
    }
    this.#spans.splice(0, sent);
    this.#socket.uncork();
    this.#deps.ready();
  }

  /** The socket has closed: lets go of what was not sent. */
  close(): void {
    this.#isClosed = true;
    releaseSpans(this.#spans.splice(0));
  }

  /** Sends the region at the head of the queue, one pooled buffer at a time, no faster than the peer reads. */
  async #sendRegion(region: FileRegion): Promise<void> {
    this.#readsRegion = true;
    try {
      for (let at = 0; at < region.byteLength && !this.#isClosed;) {
        const buffer = this.#deps.pool.take();
        let piece: Buffer;
        try {
          piece = await region.read(buffer, at);
        } catch (error) {
          this.#deps.pool.give(buffer);
          throw error;
        }
        at += piece.length;
        await this.#sendPooled(piece, buffer);
      }
    } catch (error) {
      this.#readsRegion = false;
      return this.#deps.failed(error);
    }
    this.#readsRegion = false;
    if (this.#isClosed) return;
    this.#spans.shift();
    region.release();
    this.flush();
  }

  /** Resolves when the socket has taken the bytes, which is when the buffer may be used again. */
  #sendPooled(piece: Buffer, buffer: Buffer): Promise<void> {
    this.#deps.moved();
    this.#deps.traffic.bytesOut += piece.length;
    return new Promise((resolve) => {
      this.#socket.write(piece, () => {
        this.#deps.pool.give(buffer);
        resolve();
      });
    });
  }

  #write(bytes: Uint8Array): void {
    this.#deps.traffic.bytesOut += bytes.length;
    this.#socket.write(bytes);
  }
}
