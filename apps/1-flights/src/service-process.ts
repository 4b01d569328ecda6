import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The end of what a service wrote, enough to see why it failed. */
const outputCharsMax = 16 * 1024;
const running = new Set<ChildProcess>();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** One of the services beside this file, as a process of its own. */
export class ServiceProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<number>;
  readonly #lines = new Set<(line: string) => void>();
  #output = '';

  constructor(file: string, environment: Readonly<Record<string, string>>) {
    const child = spawn(process.execPath, [fileURLToPath(new URL(file, import.meta.url))], {
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    this.#child = child;
    this.#exited = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#output += error.message;
        resolve(-1);
      });
      child.once('close', (code) => resolve(code ?? -1));
    });
    void this.#exited.then(() => running.delete(child));
    let rest = '';
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.#keep(text);
      const lines = (rest + text).split('\n');
      rest = lines.pop()!;
      for (const line of lines) for (const told of this.#lines) told(line);
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => this.#keep(text));
  }

  /** What comes after the word at the start of a line, each time. */
  onLine(word: string, told: (rest: string) => void): void {
    this.#lines.add((line) => {
      if (line.startsWith(`${word} `)) told(line.slice(word.length + 1));
    });
  }

  /** The first such line. @throws Error with what the service wrote, when it ends without one */
  line(word: string): Promise<string> {
    return new Promise((resolve, reject) => {
      this.onLine(word, resolve);
      void this.#exited.then((code) => reject(this.#ended(code)));
    });
  }

  /** Waits for its own end. @throws Error unless it ends well */
  async finished(): Promise<void> {
    const code = await this.#exited;
    if (code !== 0) throw this.#ended(code);
  }

  /** SIGTERM, and waits. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#exited;
  }

  #keep(text: string): void {
    this.#output = (this.#output + text).slice(-outputCharsMax);
  }

  #ended(code: number): Error {
    return new Error(`${this.#child.spawnargs.at(-1)} ended with code ${code}: ${this.#output}`);
  }
}
