import { parentPort, workerData } from 'node:worker_threads';
import { nodeFileSystem } from '../vfs/node.ts';
import type { CompactionAnswer } from './compaction-thread.ts';
import { compact, type CompactionPlan } from './compaction.ts';
import { RotFound } from './rot.ts';

/** The other side of `compaction-thread.ts`. */
let answer: CompactionAnswer;
try {
  answer = { result: compact(nodeFileSystem, workerData as CompactionPlan) };
} catch (error) {
  answer = error instanceof RotFound ? { rot: error.rot } : { error: error as Error };
}
parentPort!.postMessage(answer);
