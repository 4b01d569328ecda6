import { spawn } from 'node:child_process';
import { output, type RunOptions } from './finished-process.ts';

/** Runs kcat and returns what it printed. @throws Error with what it complained about */
export const kcat = (
  args: readonly string[],
  stdin: string | Buffer = '',
  options: Omit<RunOptions, 'stdin'> = {},
): Promise<string> => output('kcat', args, { ...options, stdin });

/** A record as kcat prints it with `-J`. */
export interface KcatRecord {
  readonly partition: number;
  readonly offset: number;
  /** Milliseconds since 1970. */
  readonly ts: number;
  readonly key: string | null;
  readonly payload: string | null;
  /** Name, value, name, value… */
  readonly headers?: readonly (string | null)[];
}

/** What a topic holds, or the part that `args` ask for, until its end. */
export async function kcatRecords(
  broker: string,
  topic: string,
  args: readonly string[] = [],
): Promise<KcatRecord[]> {
  const printed = await kcat(['-C', '-b', broker, '-t', topic, '-e', '-q', '-J', ...args]);
  return jsonLines(printed);
}

const jsonLines = (text: string): KcatRecord[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as KcatRecord);

/** kcat as a member of a group, until it is stopped. */
export interface KcatMember {
  /** What it has printed so far; a line that is still being written is left out. */
  records(): KcatRecord[];
  /** Of its last assignment: the partitions, in order. */
  partitions(): number[];
  /** Leaves the group with its offsets committed. */
  stop(): Promise<void>;
}

export function joinWithKcat(
  broker: string,
  group: string,
  topic: string,
  args: readonly string[] = [],
): KcatMember {
  const child = spawn('kcat', ['-b', broker, '-J', '-u', ...args, '-G', group, topic], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    records: () => jsonLines(stdout.slice(0, stdout.lastIndexOf('\n') + 1)),
    partitions() {
      const assigned = stderr.lastIndexOf('assigned: ');
      if (assigned < 0 || stderr.indexOf('revoked: ', assigned) >= 0) return [];
      return [
        ...stderr
          .slice(assigned)
          .split('\n', 1)[0]!
          .matchAll(/\[(\d+)\]/g),
      ]
        .map(([, partition]) => Number(partition))
        .sort((a, b) => a - b);
    },
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
  };
}
