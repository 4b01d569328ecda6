import { output, type RunOptions } from './finished-process.ts';

/** Runs kcat and returns what it printed. @throws Error with what it complained about */
export const kcat = (
  args: readonly string[],
  stdin: string | Buffer = '',
  options: Omit<RunOptions, 'stdin'> = {},
): Promise<string> => output('kcat', args, { ...options, stdin });
