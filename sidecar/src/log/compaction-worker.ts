import { parentPort, workerData } from 'node:worker_threads';
import { systemClock } from '../clock.ts';
import { nodeFileSystem } from '../vfs/node.ts';
import type { CompactionAnswer } from './compaction-thread.ts';
import { compact, type CompactionPlan } from './compaction.ts';
import { yieldToOtherThreads } from './low-priority.ts';
import { RotFound } from './rot.ts';

/** The longest rest, should the machine have stood still. */
const restMax = 1_000;
const nothing = new Int32Array(new SharedArrayBuffer(4));
let began = systemClock.monotonic();

/** Rests as long as it has worked: half of a core and of the disk is for those who wait for an answer. */
function pace(): void {
  Atomics.wait(nothing, 0, 0, Math.min(restMax, systemClock.monotonic() - began));
  began = systemClock.monotonic();
}

/** The other side of `compaction-thread.ts`. */
yieldToOtherThreads(nodeFileSystem);
let answer: CompactionAnswer;
try {
  answer = { result: compact(nodeFileSystem, workerData as CompactionPlan, pace) };
} catch (error) {
  answer = error instanceof RotFound ? { rot: error.rot } : { error: error as Error };
}
parentPort!.postMessage(answer);
