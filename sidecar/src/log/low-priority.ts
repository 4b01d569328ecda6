import { constants, setPriority } from 'node:os';
import { readKernelFile, type FileSystem } from '../vfs/file-system.ts';

/**
 * From now on the thread that calls this runs when no other wants the core. A thread of ordinary priority that wakes
 * may take the core from the event loop for some milliseconds, and those who wait for an acknowledgement wait that
 * long. Linux alone can do this for one thread; elsewhere nothing happens.
 */
export function yieldToOtherThreads(fs: FileSystem): void {
  const thread = Number(readKernelFile(fs, '/proc/thread-self/stat')?.split(' ')[0]);
  if (Number.isSafeInteger(thread)) setPriority(thread, constants.priority.PRIORITY_LOW);
}
