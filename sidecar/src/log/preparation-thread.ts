import { Worker } from 'node:worker_threads';
import { RecordBatch } from '@rookery/wire';
import type { Clock, Timer } from '../clock.ts';
import { AppendRefused, type RecordError } from './append-checks.ts';
import type { Demand, Prepare } from './preparation.ts';

/** What a thread is handed; the bytes go over to it. */
export interface PreparationOrder {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly demand: Demand;
}

/** What it answers: the bytes of the new batch, null for the one that came; or why it is not taken. */
export type PreparationAnswer =
  | { readonly bytes: Uint8Array<ArrayBuffer> | null }
  | { readonly refused: Pick<AppendRefused, 'error' | 'message' | 'recordErrors'> };

interface Task {
  readonly batch: RecordBatch;
  readonly demand: Demand;
  readonly resolve: (batch: RecordBatch) => void;
  readonly reject: (error: Error) => void;
}

/** A thread that has had nothing to do for so long goes. */
const idleMs = 10_000;

/**
 * Threads that look into records for topics which ask for it, one batch at a time each: decompressing and
 * compressing would hold up the loop. They come when there is work and go when there is none for a while. At
 * worst each holds the records of one batch three times over, at 128 MiB each.
 */
export class PreparationThreads {
  readonly #clock: Clock;
  readonly #max: number;
  readonly #idle: Thread[] = [];
  readonly #all = new Set<Thread>();
  readonly #waiting: Task[] = [];

  /** @param max as many threads as work side by side */
  constructor(clock: Clock, max: number) {
    this.#clock = clock;
    this.#max = max;
  }

  readonly prepare: Prepare = (batch, demand) =>
    new Promise((resolve, reject) => {
      this.#waiting.push({ batch, demand, resolve, reject });
      this.#next();
    });

  /** Ends the threads; whoever still waits is refused. */
  close(): void {
    for (const task of this.#waiting.splice(0)) task.reject(stopped());
    for (const thread of this.#all) thread.end(stopped());
  }

  #next(): void {
    if (this.#waiting.length === 0) return;
    const thread = this.#idle.pop() ?? (this.#all.size < this.#max ? this.#begin() : undefined);
    thread?.take(this.#waiting.shift()!);
  }

  #begin(): Thread {
    const thread = new Thread(this.#clock, {
      free: () => {
        this.#idle.push(thread);
        this.#next();
      },
      gone: () => {
        this.#all.delete(thread);
        const at = this.#idle.indexOf(thread);
        if (at >= 0) this.#idle.splice(at, 1);
        this.#next();
      },
    });
    this.#all.add(thread);
    return thread;
  }
}

const stopped = (): AppendRefused => new AppendRefused('KAFKA_STORAGE_ERROR', 'the broker stops');

class Thread {
  readonly #clock: Clock;
  readonly #worker: Worker;
  readonly #told: { free(): void; gone(): void };
  #task: Task | null = null;
  #idling: Timer | null = null;
  #isGone = false;

  constructor(clock: Clock, told: { free(): void; gone(): void }) {
    this.#clock = clock;
    this.#told = told;
    // The same file name beside this one, source or built.
    this.#worker = new Worker(
      new URL(import.meta.url.replace(/preparation-thread(\.\w+)$/, 'preparation-worker$1')),
    );
    this.#worker.on('message', (answer: PreparationAnswer) => this.#answered(answer));
    // A batch that a thread dies of would kill the next one too, so its producer must not try again.
    const died = (why: string): void =>
      this.end(
        new AppendRefused('UNKNOWN_SERVER_ERROR', `the thread that looked into the batch died: ${why}`),
      );
    this.#worker.once('error', (error) => died(String(error)));
    this.#worker.once('exit', (code) => died(`exit code ${code}`));
  }

  take(task: Task): void {
    this.#idling?.cancel();
    this.#task = task;
    const { batch, demand } = task;
    // A copy: what came off the socket shares its memory with other requests, and cannot go over.
    const bytes = new Uint8Array(batch.sizeInBytes);
    let at = 0;
    for (const chunk of batch.chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    const order: PreparationOrder = { bytes, demand };
    this.#worker.postMessage(order, [bytes.buffer]);
  }

  end(reason: AppendRefused): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#idling?.cancel();
    void this.#worker.terminate();
    this.#task?.reject(reason);
    this.#told.gone();
  }

  #answered(answer: PreparationAnswer): void {
    if (this.#isGone) return;
    const { batch, resolve, reject } = this.#task!;
    this.#task = null;
    this.#idling = this.#clock.after(idleMs, () => this.end(stopped()));
    if ('bytes' in answer) resolve(answer.bytes === null ? batch : batchOf(answer.bytes));
    else reject(refusal(answer.refused));
    this.#told.free();
  }
}

const batchOf = ({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): RecordBatch =>
  RecordBatch.split([Buffer.from(buffer, byteOffset, byteLength)])[0]!;

const refusal = ({
  error,
  message,
  recordErrors,
}: {
  error: AppendRefused['error'];
  message: string;
  recordErrors: readonly RecordError[] | undefined;
}): AppendRefused => new AppendRefused(error, message, recordErrors);
