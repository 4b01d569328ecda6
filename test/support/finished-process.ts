import { spawn } from 'node:child_process';

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

export interface RunOptions {
  readonly stdin?: string | Buffer;
  /** Kills it, and rejects, when it has not ended by then. 60 s by default. */
  readonly withinMs?: number;
  readonly environment?: Readonly<Record<string, string>>;
}

/** Runs a program to its end, whatever its exit code. @throws Error when it cannot start, or does not end in time */
export function finished(
  command: string,
  args: readonly string[],
  { stdin = '', withinMs = 60_000, environment = {} }: RunOptions = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, withinMs);
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (code) => {
      clearTimeout(timer);
      if (late) reject(new Error(`${command} had not ended after ${withinMs} ms: ${stdout}${stderr}`));
      else resolve({ stdout, stderr, code: code ?? -1 });
    });
    // A program may end before it has read everything; its exit code tells that better than EPIPE.
    child.stdin.on('error', () => {});
    child.stdin.end(stdin);
  });
}

/** Runs a program and returns what it printed. @throws Error with its stderr when it fails */
export async function output(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { stdout, stderr, code } = await finished(command, args, options);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with code ${code}: ${stderr}${stdout}`);
  return stdout;
}
