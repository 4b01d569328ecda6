import { parentPort, workerData } from 'node:worker_threads';
import { WireError } from '@rookery/wire';
import { nodeFileSystem } from '../vfs/node.ts';
import type { CompactionAnswer } from './compaction-thread.ts';
import { compact, type CompactionPlan } from './compaction.ts';

/** The other side of `compaction-thread.ts`. */
let answer: CompactionAnswer;
try {
  answer = { result: compact(nodeFileSystem, workerData as CompactionPlan) };
} catch (error) {
  answer = { error: error as Error, isRot: error instanceof WireError };
}
parentPort!.postMessage(answer);
