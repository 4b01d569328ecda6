import { Socket, type OnReadOpts } from 'node:net';
import type { FrameMemory } from './frame-memory.ts';

export interface ReceiverDeps {
  readonly memory: FrameMemory;
  /** Bytes still to come of a large frame that may be received; 0 when there is none. */
  missing(): number;
  /** So many bytes have come. */
  came(bytes: number): void;
  /** The next bytes of the stream. */
  received(chunk: Buffer): void;
}

/**
 * Where bytes land of which it is not known yet what they are. One for all connections: the loop reads one socket at a
 * time, and what it has read is copied before it reads the next.
 */
const landing = Buffer.allocUnsafeSlow(16 * 1024);

/**
 * Receives what a peer sends. Left to itself, Node makes a new buffer for every 64 KiB that it reads, so a large frame
 * is some twenty buffers to look at, to hand on and to collect. Here the beginning of a frame lands with whatever came
 * with it, and as soon as it has told its size, the rest is read straight into memory that is its own.
 */
export class Receiver {
  readonly socket: Socket;
  readonly #deps: ReceiverDeps;
  /** Memory that is being filled: the first `#filled` of the `#room` bytes that are to be received into it. */
  #piece: Buffer | null = null;
  #filled = 0;
  #room = 0;
  #pieces: Buffer[] = [];

  /** @param accepted a socket of which nothing was read; one that is read already stays as it is, in Node's hands */
  constructor(accepted: Socket, deps: ReceiverDeps) {
    this.#deps = deps;
    this.socket = accepted.isPaused() ? this.#takeOver(accepted) : accepted;
    if (this.socket === accepted) accepted.on('data', (chunk: Buffer) => this.#pass(chunk));
  }

  /** The memory of the frame that was received last, where it has some of its own. It is the caller's from now on. */
  takePieces(): readonly Buffer[] {
    if (this.#pieces.length === 0) return none;
    const pieces = this.#pieces;
    this.#pieces = [];
    return pieces;
  }

  /**
   * Node lets the maker of a socket say where its bytes go, but a server makes its own. So the connection moves to a
   * second socket, and the first one, which the server counts, goes when that has closed.
   */
  #takeOver(accepted: Socket): Socket {
    const { _handle: handle } = accepted as { _handle?: { useUserBuffer?: unknown } | null };
    if (typeof handle?.useUserBuffer !== 'function') {
      accepted.resume();
      return accepted;
    }
    const onread: OnReadOpts = {
      // Node asks once at the beginning and after every read; its types want the same buffer each time.
      buffer: (() => this.#whereTo()) as unknown as Buffer,
      callback: (bytes) => {
        this.#onRead(bytes);
        return true;
      },
    };
    const socket = new Socket({ handle, onread } as object);
    socket.once('close', () => {
      if (this.#piece !== null) this.#deps.memory.give(this.#piece);
      this.#piece = null;
      accepted.destroy();
    });
    return socket;
  }

  #whereTo(): Buffer {
    if (this.#piece === null) {
      const missing = this.#deps.missing();
      // The last bytes of a frame may as well land, with what follows it.
      if (missing <= landing.length) return landing;
      this.#piece = this.#deps.memory.take(missing);
      this.#filled = 0;
      this.#room = Math.min(missing, this.#piece.length);
    }
    return this.#piece.subarray(this.#filled, this.#room);
  }

  #onRead(bytes: number): void {
    if (this.#piece === null) return this.#pass(Buffer.from(landing.subarray(0, bytes)));
    this.#filled += bytes;
    this.#deps.came(bytes);
    if (this.#filled < this.#room) return;
    const chunk = this.#piece.subarray(0, this.#room);
    this.#pieces.push(this.#piece);
    this.#piece = null;
    this.#deps.received(chunk);
  }

  #pass(chunk: Buffer): void {
    this.#deps.came(chunk.length);
    this.#deps.received(chunk);
  }
}

const none: readonly Buffer[] = [];
