import type { Socket } from 'node:net';
import { FrameCutter, WireError } from '@rookery/wire';
import { releaseSpans } from '../vfs/file-region.ts';
import type { BusyPoll } from './busy-poll.ts';
import type { Dispatcher, Reply } from './dispatch.ts';
import { FrameRefused } from './frame-refused.ts';
import type { FrameMemory } from './frame-memory.ts';
import type { MemoryBudget } from './memory-budget.ts';
import { Outbox, type Sending } from './outbox.ts';
import { Receiver } from './receiver.ts';

export interface ConnectionLimits {
  /** Largest request frame in bytes (`socket.request.max.bytes`). */
  readonly frameBytesMax: number;
  /** Requests of one connection that may be unanswered before it is no longer read. */
  readonly inFlightMax: number;
  /** Bytes of answers a peer may leave unread before it is no longer served. */
  readonly unreadBytesMax: number;
}

export interface ConnectionDeps {
  readonly dispatcher: Dispatcher;
  readonly budget: MemoryBudget;
  readonly memory: FrameMemory;
  readonly busyPoll: BusyPoll;
  readonly sending: Sending;
  readonly limits: ConnectionLimits;
  readonly traffic: { bytesIn: number; bytesOut: number };
  /** A monotonic time in milliseconds. */
  now(): number;
  closed(connection: Connection, reason: string | null): void;
  /** A handler threw what no handler should: the broker goes on, this connection does not. */
  failed(error: unknown): void;
}

/** Frames up to this size are taken in without asking the budget. */
const smallFrame = 16 * 1024;
/** A large frame keeps others from being read, so it must arrive no slower than this. */
const frameBytesPerMsMin = 256;

interface Slot {
  /** Undefined while the handler works, null when the client expects none. */
  reply: Reply | undefined;
  /** Bytes taken from the budget for the request. */
  readonly taken: number;
  /** Memory in which there is nothing but this request. */
  readonly pieces: readonly Buffer[];
  /** Nobody looks at the request's bytes any more. */
  isSpent: boolean;
}

/**
 * One client. Requests start in the order in which they came and run side by side; answers leave in that
 * order. A peer that does not read its answers is no longer read itself, so memory stays bounded.
 */
export class Connection {
  readonly remoteAddress: string;
  readonly #socket: Socket;
  readonly #receiver: Receiver;
  readonly #deps: ConnectionDeps;
  readonly #cutter: FrameCutter;
  readonly #slots: Slot[] = [];
  readonly #outbox: Outbox;
  readonly #releases = new Set<() => void>();
  /** Bytes of budget held for the frame that is arriving. */
  #admitted = 0;
  /** When the first bytes of the frame that is arriving came. */
  #frameSince = 0;
  /** Bytes of answers that wait for an answer before them. */
  #blockedBytes = 0;
  #waitsForBudget = false;
  #cutting = false;
  #ending = false;
  #closed = false;
  #reason: string | null = null;
  lastActive: number;

  constructor(accepted: Socket, deps: ConnectionDeps) {
    this.#deps = deps;
    this.#receiver = new Receiver(accepted, {
      memory: deps.memory,
      missing: () => this.#missing,
      came: (bytes) => this.#came(bytes),
      received: (chunk) => this.#received(chunk),
    });
    const { socket } = this.#receiver;
    this.#socket = socket;
    this.#cutter = new FrameCutter(deps.limits.frameBytesMax);
    this.#outbox = new Outbox(socket, {
      ...deps.sending,
      unreadBytesMax: deps.limits.unreadBytesMax,
      traffic: deps.traffic,
      moved: () => (this.lastActive = deps.now()),
      ready: () => {
        this.#endWhenAnswered();
        if (!this.#cutting && socket.isPaused()) this.#cut();
      },
      failed: (error) => this.#refuse(error),
    });
    this.remoteAddress = socket.remoteAddress ?? '';
    this.lastActive = deps.now();
    socket.on('error', (error) => (this.#reason ??= error.message));
    socket.on('close', () => this.#onClose());
  }

  /** The peer owes the rest of a request: one that stalls now is cut off sooner than an idle one. */
  get isMidFrame(): boolean {
    return !this.#socket.isPaused() && (this.#cutter.pending >= 0 || this.#cutter.held > 0);
  }

  /** The peer sends a request, but so slowly that it might as well have stalled. */
  isTrickling(now: number, stallMs: number): boolean {
    return this.isMidFrame && now - this.#frameSince > stallMs + this.#cutter.pending / frameBytesPerMsMin;
  }

  /** The peer owes nothing and is owed nothing. */
  get isIdle(): boolean {
    return this.#slots.length === 0 && !this.isUnread;
  }

  /** Answers are on their way, and the peer has not taken them. */
  get isUnread(): boolean {
    return !this.#outbox.isEmpty || this.#socket.writableLength > 0;
  }

  close(reason: string): void {
    this.#reason ??= reason;
    this.#socket.destroy();
  }

  /** Takes nothing more in; what is being answered leaves, what is parked is answered as it stands, then it closes. */
  end(): void {
    this.#ending = true;
    // Read on, into nothing: a paused socket would not see that the peer has closed too.
    this.#socket.resume();
    for (const letGo of [...this.#releases]) letGo();
    this.#endWhenAnswered();
  }

  #endWhenAnswered(): void {
    if (this.#ending && this.#slots.length === 0 && this.#outbox.isEmpty) this.#socket.end();
  }

  whenClosed(release: () => void): () => void {
    if (this.#closed) release();
    else this.#releases.add(release);
    return () => this.#releases.delete(release);
  }

  /** Bytes of the frame in the making that are still to come, if it is a large one that was admitted. */
  get #missing(): number {
    return this.#admitted > 0 && !this.#ending ? this.#cutter.pending - this.#cutter.held : 0;
  }

  #came(bytes: number): void {
    if (this.#ending) return;
    this.lastActive = this.#deps.now();
    this.#deps.traffic.bytesIn += bytes;
    if (this.#cutter.pending < 0 && this.#cutter.held === 0) this.#frameSince = this.lastActive;
  }

  #received(chunk: Buffer): void {
    if (this.#ending) return;
    this.#cutter.push(chunk);
    this.#cut();
  }

  /** Dispatches every whole frame that may be taken now; stops reading when no more may. */
  #cut(): void {
    if (this.#cutting || this.#closed) return;
    this.#cutting = true;
    try {
      while (this.#mayTake()) {
        const frame = this.#cutter.next();
        if (frame === null) {
          if (this.#admit()) break;
          return;
        }
        this.#frameSince = this.lastActive;
        this.#dispatch(frame);
      }
      this.#setReading(this.#mayTake());
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#cutting = false;
    }
  }

  #mayTake(): boolean {
    const { inFlightMax, unreadBytesMax } = this.#deps.limits;
    return (
      !this.#closed &&
      !this.#ending &&
      !this.#waitsForBudget &&
      this.#slots.length < inFlightMax &&
      this.#outbox.unreadBytes + this.#blockedBytes < unreadBytesMax
    );
  }

  /** Asks the budget for the frame that is arriving; false when it must wait. */
  #admit(): boolean {
    const size = this.#cutter.pending;
    if (size <= smallFrame || this.#admitted > 0) return true;
    if (this.#deps.budget.take(size, () => this.#budgetFreed())) {
      this.#admitted = size;
      return true;
    }
    this.#waitsForBudget = true;
    this.#setReading(false);
    return false;
  }

  #budgetFreed(): void {
    if (this.#closed) return;
    this.#waitsForBudget = false;
    this.#cut();
  }

  #setReading(reading: boolean): void {
    if (this.#closed || this.#ending) return;
    if (reading && this.#socket.isPaused()) {
      // That nothing came meanwhile was our doing.
      this.lastActive = this.#frameSince = this.#deps.now();
      this.#socket.resume();
    } else if (!reading && !this.#socket.isPaused()) this.#socket.pause();
  }

  #dispatch(frame: readonly Buffer[]): void {
    const slot: Slot = {
      reply: undefined,
      taken: this.#admitted,
      pieces: this.#receiver.takePieces(),
      isSpent: false,
    };
    this.#admitted = 0;
    if (slot.taken === 0) this.#deps.busyPoll.came(this);
    this.#slots.push(slot);
    let reply: Reply | Promise<Reply>;
    try {
      reply = this.#deps.dispatcher.dispatch(frame, this, () => (slot.isSpent = true));
    } catch (error) {
      if (slot.taken > 0) this.#deps.budget.give(slot.taken);
      throw error;
    }
    if (reply instanceof Promise) {
      reply.then(
        (late) => this.#answer(slot, late),
        (error: unknown) => {
          if (slot.taken > 0) this.#deps.budget.give(slot.taken);
          this.#refuse(error);
        },
      );
    } else {
      this.#answer(slot, reply);
    }
  }

  #answer(slot: Slot, reply: Reply): void {
    if (slot.taken > 0) this.#deps.budget.give(slot.taken);
    if (slot.isSpent) for (const piece of slot.pieces) this.#deps.memory.give(piece);
    slot.reply = reply;
    if (this.#closed) {
      releaseSpans(reply ?? []);
      return;
    }
    this.#blockedBytes += bytesInMemory(reply);
    let ready = 0;
    while (ready < this.#slots.length && this.#slots[ready]!.reply !== undefined) {
      const { reply: next } = this.#slots[ready]!;
      this.#blockedBytes -= bytesInMemory(next!);
      this.#outbox.add(next ?? []);
      ready++;
    }
    if (ready === 0) return;
    this.#slots.splice(0, ready);
    if (!this.#cutting) this.#cut();
  }

  #refuse(error: unknown): void {
    if (!(error instanceof FrameRefused || error instanceof WireError)) this.#deps.failed(error);
    this.close(error instanceof Error ? error.message : String(error));
  }

  #onClose(): void {
    this.#closed = true;
    for (const slot of this.#slots) {
      releaseSpans(slot.reply ?? []);
      // A slot without an answer gives its bytes back when its handler is done with them.
    }
    this.#outbox.close();
    if (this.#admitted > 0) this.#deps.budget.give(this.#admitted);
    for (const letGo of this.#releases) letGo();
    this.#releases.clear();
    this.#deps.busyPoll.forget(this);
    this.#deps.closed(this, this.#reason);
  }
}

const bytesInMemory = (reply: Reply): number =>
  (reply ?? []).reduce((sum, span) => (span instanceof Uint8Array ? sum + span.length : sum), 0);
