import { Worker } from 'node:worker_threads';
import type { CompactionPlan, CompactionResult } from './compaction.ts';
import { RotFound, type Rot } from './rot.ts';

/** What the thread answers. */
export type CompactionAnswer =
  { readonly result: CompactionResult } | { readonly rot: Rot } | { readonly error: Error };

/**
 * Runs a compaction on a thread of its own: it decodes every record, which would hold up the loop. The thread
 * lives as long as the plan takes, or until the signal ends it.
 */
export function compactOnThread(plan: CompactionPlan, signal: AbortSignal): Promise<CompactionResult> {
  // The same file name beside this one, source or built.
  const script = new URL(import.meta.url.replace(/compaction-thread(\.\w+)$/, 'compaction-worker$1'));
  return new Promise((resolve, reject) => {
    const worker = new Worker(script, { workerData: plan });
    worker.once('message', (answer: CompactionAnswer) => {
      if ('result' in answer) resolve(answer.result);
      else reject('rot' in answer ? new RotFound(answer.rot) : answer.error);
    });
    const end = (): void => void worker.terminate();
    signal.addEventListener('abort', end, { once: true });
    worker.once('error', reject);
    worker.once('exit', (code) => {
      signal.removeEventListener('abort', end);
      reject(new Error(`the compaction thread ended with code ${code}`));
    });
  });
}
