import type { Socket } from 'node:net';
import type { ByteSpan } from '@rookery/wire';
import { assert } from '../invariant.ts';
import { releaseSpans, type FileRegion } from '../vfs/file-region.ts';
import type { PageCache } from '../vfs/file-system.ts';
import type { BufferPool } from './buffer-pool.ts';
import { gather } from './gather.ts';
import type { TurnBudget } from './turn-budget.ts';

/** Bytes of records that were sent, by the way they took. */
export interface SentByPath {
  /** Never left memory since they arrived. */
  memory: number;
  /** From the page cache to the socket inside the kernel. */
  sendfile: number;
  /** Read into a buffer and written. */
  copy: number;
}

/** What the outboxes of all connections share. */
export interface Sending {
  readonly pool: BufferPool;
  readonly turns: TurnBudget;
  /** `sendfile.enable`. */
  readonly sendfile: boolean;
  readonly sent: SentByPath;
}

export interface OutboxDeps extends Sending {
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

/** How much of a region leaves before another connection has its turn. */
const pieceBytes = 256 * 1024;
/** A region below this size costs less read and written with its neighbours than sent on its own. */
const sendfileMin = 32 * 1024;
/** From this size on, sending from the page cache costs less than copying out of our own memory. */
const inMemoryMax = 128 * 1024;
/** Up to this size reading on the loop is cheaper than a hop to the pool, if the bytes are in the page cache. */
const readOnLoopMax = 64 * 1024;
/** How much goes through `socket.write` when the socket is full, so that its callback tells when it is not. */
const fullSocketBytes = 64 * 1024;
/** How much is looked for in the page cache, or brought there, at once. */
const warmBytes = 1024 * 1024;
/** A reader's next buffer is filled while so much of the last ones is on its way. */
const copiedAheadMax = 256 * 1024;

/**
 * What waits to be sent on one connection: buffers and file regions, in order. Every region goes the cheapest
 * way that is open to it:
 *
 *   its bytes are in memory    with the buffers around it, in one gathered write
 *   plaintext socket on Linux  sendfile, piece by piece, in turns with the other connections
 *   otherwise                  through a buffer, filled on the pool, in one write with the buffers before it
 *
 * sendfile beside a `net.Socket` has its rules, each of them learned from bytes that went astray:
 *
 *   · Only while the socket's own queue is empty, or what is sent overtakes what waits there.
 *   · Only on the loop, on a socket seen alive in the same breath: the descriptor of one that has closed is the
 *     next client's.
 *   · A full socket cannot be waited for: its handle alone may poll it. So the next bytes go through
 *     `socket.write`, whose callback comes when there is room.
 *   · Pages that are not in memory are brought there by the pool first, for the loop must not wait for a disk.
 *     The pool in turn never waits for a peer.
 */
export class Outbox {
  readonly #socket: Socket;
  readonly #deps: OutboxDeps;
  #spans: ByteSpan[] = [];
  /** Where in `#spans` the first is that has not left. */
  #head = 0;
  /** Bytes of that one, a region, that have left. */
  #headSent = 0;
  /** Up to here it was just found in the page cache, or brought there, so it is not probed again. */
  #headWarm = 0;
  /** Before it in `#spans`, no region has its bytes in memory. */
  #outOfMemory = 0;
  /** Taken from `#spans`, to be written together. */
  #gathered: Uint8Array[] = [];
  #gatheredBytes = 0;
  /** Bytes of buffers in `#spans`. */
  #heldBytes = 0;
  /** Waits for its turn or for the disk, and goes on by itself. */
  #isParked = false;
  #isFlushing = false;
  #isFlushDue = false;
  #isClosed = false;
  readonly #written = (): void => {
    this.#deps.moved();
    this.#flush();
  };

  constructor(socket: Socket, deps: OutboxDeps) {
    this.#socket = socket;
    this.#deps = deps;
  }

  /** Everything has been given to the socket. */
  get isEmpty(): boolean {
    return this.#head === this.#spans.length && this.#gathered.length === 0;
  }

  /** Bytes in memory that the peer has yet to take. */
  get unreadBytes(): number {
    return this.#heldBytes + this.#gatheredBytes + this.#socket.writableLength;
  }

  /** Puts an answer at the end. It leaves together with the others that are added before control goes back. */
  add(spans: readonly ByteSpan[]): void {
    if (this.#isClosed) return releaseSpans(spans);
    for (const span of spans) {
      this.#spans.push(span);
      if (span instanceof Uint8Array) this.#heldBytes += span.length;
    }
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    queueMicrotask(() => {
      this.#isFlushDue = false;
      this.#flush();
    });
  }

  /** The socket has closed: lets go of what was not sent. */
  close(): void {
    this.#isClosed = true;
    releaseSpans(this.#spans.slice(this.#head));
    this.#spans = [];
    this.#head = 0;
    this.#gathered = [];
  }

  get #isAlive(): boolean {
    return !this.#isClosed && !this.#socket.destroyed;
  }

  /** Sends what may leave now. */
  #flush(): void {
    if (this.#isParked || this.#isFlushing || !this.#isAlive) return;
    this.#isFlushing = true;
    try {
      while (this.#step());
    } catch (error) {
      this.#deps.failed(error);
    }
    this.#isFlushing = false;
    if (!this.#isAlive) return;
    this.#leaveMemory();
    this.#deps.ready();
  }

  /** One step of sending; false when there is nothing to send, or something to wait for. */
  #step(): boolean {
    this.#gather();
    const region = this.#spans[this.#head];
    if (region === undefined || region instanceof Uint8Array || this.#isFull) return this.#write();
    return this.#sendRegion(region as FileRegion);
  }

  /** The socket should be given no more before the peer takes what it has. */
  get #isFull(): boolean {
    return this.#gatheredBytes + this.#socket.writableLength >= this.#deps.unreadBytesMax;
  }

  /** Collects from the head what needs no file, as much as the socket may be given. */
  #gather(): void {
    while (this.#head < this.#spans.length && !this.#isFull) {
      const span = this.#spans[this.#head]!;
      if (span instanceof Uint8Array) {
        this.#heldBytes -= span.length;
        this.#collect(span);
        this.#shift();
        continue;
      }
      const region = span as FileRegion;
      const { inMemory, byteLength } = region;
      const isCheapest = byteLength <= inMemoryMax || this.#pageCacheFor(region) === null;
      if (inMemory === null || !isCheapest || this.#socket.writableLength > 0) return;
      for (const piece of inMemory) this.#collect(piece);
      this.#deps.sent.memory += byteLength;
      region.release();
      this.#shift();
    }
  }

  #collect(piece: Uint8Array): void {
    this.#gathered.push(piece);
    this.#gatheredBytes += piece.length;
  }

  #shift(): void {
    this.#head++;
    this.#headSent = 0;
    this.#headWarm = 0;
    if (this.#head < this.#spans.length && this.#head < 1024) return;
    this.#spans = this.#spans.slice(this.#head);
    this.#outOfMemory = Math.max(0, this.#outOfMemory - this.#head);
    this.#head = 0;
  }

  /** Writes what was gathered, in one call. */
  #write(whenWritten = this.#written): boolean {
    if (this.#gathered.length === 0) return false;
    const pieces = gather(this.#gathered);
    this.#deps.traffic.bytesOut += this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    const last = pieces.length - 1;
    if (last > 0) this.#socket.cork();
    for (let i = 0; i < last; i++) this.#socket.write(pieces[i]!);
    this.#socket.write(pieces[last]!, whenWritten);
    if (last > 0) this.#socket.uncork();
    return true;
  }

  #sendRegion(region: FileRegion): boolean {
    region.leaveMemory();
    const left = region.byteLength - this.#headSent;
    const pages = left < sendfileMin ? null : this.#pageCacheFor(region);
    if (pages === null) return this.#copy(region, left);
    if (this.#write()) return true;
    if (this.#socket.writableLength > 0) return false;
    if (!this.#isWarm(region, pages)) {
      this.#warm(region, pages);
      return false;
    }
    this.#isParked = true;
    this.#deps.turns.ask(() => this.#sendPiece(region, pages));
    return !this.#isParked;
  }

  /** Null when the region cannot go by sendfile. */
  #pageCacheFor({ file }: FileRegion): PageCache | null {
    return this.#deps.sendfile && descriptorOf(this.#socket) >= 0 ? file.pageCache : null;
  }

  /** Whether the next piece is in the page cache; some pieces are probed at once. */
  #isWarm(region: FileRegion, pages: PageCache): boolean {
    const left = region.byteLength - this.#headSent;
    if (this.#headSent + Math.min(left, pieceBytes) <= this.#headWarm) return true;
    const size = Math.min(left, warmBytes);
    if (!pages.isWarm(region.position + this.#headSent, size)) return false;
    this.#headWarm = this.#headSent + size;
    return true;
  }

  #warm(region: FileRegion, pages: PageCache): void {
    const size = Math.min(warmBytes, region.byteLength - this.#headSent);
    this.#isParked = true;
    void pages.warm(region.position + this.#headSent, size).then(() => {
      this.#isParked = false;
      this.#headWarm = this.#headSent + size;
      this.#flush();
    });
  }

  /** @returns bytes that the turn has cost */
  #sendPiece(region: FileRegion, pages: PageCache): number {
    this.#isParked = false;
    if (!this.#isAlive) return 0;
    const size = Math.min(pieceBytes, region.byteLength - this.#headSent);
    try {
      this.#sendDirectly(region, pages, size);
    } catch (error) {
      this.#deps.failed(error);
    }
    this.#flush();
    return size;
  }

  #sendDirectly(region: FileRegion, pages: PageCache, size: number): void {
    const socket = descriptorOf(this.#socket);
    if (socket < 0) return;
    assert(this.#socket.writableLength === 0, 'what is sent directly overtakes nothing');
    const sent = pages.send(socket, region.position + this.#headSent, size);
    if (sent > 0) this.#deps.moved();
    this.#deps.sent.sendfile += sent;
    this.#deps.traffic.bytesOut += sent;
    this.#advance(region, sent);
    // Also when it is not the socket that is full but something is broken: reading and writing tell what.
    if (sent < size) this.#readOnLoop(region, Math.min(size - sent, fullSocketBytes));
  }

  /** The way through a buffer of ours. */
  #copy(region: FileRegion, left: number): boolean {
    if (this.#socket.writableLength > copiedAheadMax) return this.#write();
    const { pageCache } = region.file;
    if (left <= readOnLoopMax && (pageCache === null || this.#isWarm(region, pageCache))) {
      this.#readOnLoop(region, left);
      return true;
    }
    this.#readOnPool(region);
    return false;
  }

  #readOnLoop(region: FileRegion, size: number): void {
    this.#collect(region.readNow(Buffer.allocUnsafe(size), this.#headSent));
    this.#copied(region, size);
  }

  #readOnPool(region: FileRegion): void {
    const { pool } = this.#deps;
    const buffer = pool.take();
    const giveBack = (): void => pool.give(buffer);
    this.#isParked = true;
    region.read(buffer, this.#headSent).then(
      (piece) => {
        this.#isParked = false;
        if (!this.#isAlive) return giveBack();
        this.#collect(piece);
        this.#copied(region, piece.length);
        this.#write(() => {
          giveBack();
          this.#written();
        });
        this.#flush();
      },
      (error: unknown) => {
        this.#isParked = false;
        giveBack();
        if (this.#isAlive) this.#deps.failed(error);
      },
    );
  }

  #copied(region: FileRegion, size: number): void {
    this.#deps.sent.copy += size;
    this.#advance(region, size);
  }

  #advance(region: FileRegion, size: number): void {
    this.#headSent += size;
    if (this.#headSent < region.byteLength) return;
    region.release();
    this.#shift();
  }

  /** What the peer did not take at once is read from the file when it does: it must not pin memory that others share. */
  #leaveMemory(): void {
    for (; this.#outOfMemory < this.#spans.length; this.#outOfMemory++) {
      const span = this.#spans[this.#outOfMemory]!;
      if (this.#outOfMemory >= this.#head && !(span instanceof Uint8Array))
        (span as FileRegion).leaveMemory();
    }
  }
}

/**
 * The number by which the kernel knows the socket; −1 when bytes may not be put there behind Node's back: the
 * socket is closed, or closing, or encrypts what it is given. Node keeps it on the handle, as nothing public.
 */
function descriptorOf(socket: Socket): number {
  if (!socket.writable || 'encrypted' in socket) return -1;
  const { _handle } = socket as { _handle?: { readonly fd?: number } | null };
  return _handle?.fd ?? -1;
}
