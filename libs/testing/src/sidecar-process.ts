import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

export interface SidecarOptions {
  /** A directory that outlives the sidecar; without one it gets its own, which goes with `stop` or `kill`. */
  readonly dataDir?: string;
  /** `127.0.0.1:0`, any free port, unless told otherwise. */
  readonly listen?: string;
  /** Settings by their names: `{ 'num.partitions': 4 }`. */
  readonly settings?: Readonly<Record<string, string | number | boolean>>;
  readonly environment?: Readonly<Record<string, string>>;
  /** How many descriptors it may have (`ulimit -n`); as many as this process unless told otherwise. */
  readonly descriptors?: number;
}

/** A sidecar as its users run it: a process of its own on free ports. */
export interface SidecarProcess {
  /** `host:port` of the Kafka listener. */
  readonly kafka: string;
  /** `tcp://host:port`, what `sidecar()` takes. */
  readonly url: string;
  /** `http://host:port` of health and metrics. */
  readonly admin: string;
  readonly dataDir: string;
  readonly pid: number;
  /** What it has written to stderr so far. */
  log(): string;
  /** SIGTERM, and waits; resolves with the exit code. */
  stop(): Promise<number>;
  /** SIGKILL, and waits: what a crash leaves stays in `dataDir`. */
  kill(): Promise<void>;
}

const readyWithinMs = 30_000;
/** The end of what a sidecar wrote to stderr, enough to see why it failed. */
const logCharsMax = 256 * 1024;
const running = new Set<ChildProcess>();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a sidecar and waits until it serves. @throws Error with what it wrote, when it does not start */
export async function startSidecar(options: SidecarOptions = {}): Promise<SidecarProcess> {
  const owned = options.dataDir === undefined ? await mkdtemp(join(tmpdir(), 'rookery-test-')) : null;
  const removeOwned = async (): Promise<void> => {
    if (owned !== null) await rm(owned, { recursive: true, force: true });
  };
  const child = launch(options, options.dataDir ?? owned!);
  let log = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-logCharsMax);
  });
  const exited = new Promise<number>((resolve) => {
    child.once('close', (code) => {
      running.delete(child);
      resolve(code ?? -1);
    });
  });
  try {
    const ready = await readyLine(child, exited, () => log);
    return {
      kafka: ready.kafka,
      url: `tcp://${ready.kafka}`,
      admin: ready.admin,
      dataDir: ready.data,
      pid: child.pid!,
      log: () => log,
      async stop() {
        child.kill('SIGTERM');
        const code = await exited;
        await removeOwned();
        return code;
      },
      async kill() {
        child.kill('SIGKILL');
        await exited;
        await removeOwned();
      },
    };
  } catch (error) {
    child.kill('SIGKILL');
    await exited;
    await removeOwned();
    throw error;
  }
}

function launch(
  { listen = '127.0.0.1:0', settings = {}, environment = {}, descriptors }: SidecarOptions,
  dataDir: string,
) {
  const args = ['start', '--data-dir', dataDir, '--listen', listen, '--admin', '127.0.0.1:0'];
  for (const [name, value] of Object.entries(settings)) args.push('--set', `${name}=${String(value)}`);
  // The launcher looks for Node on the PATH: the one that runs the tests is new enough.
  const path = `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}`;
  // The shell becomes the launcher, and the launcher the sidecar: one process all the time.
  const limited = ['-c', `ulimit -n ${descriptors} && exec "$0" "$@"`, launcher(), ...args];
  const command: [string, string[]] = descriptors === undefined ? [launcher(), args] : ['sh', limited];
  const child = spawn(...command, {
    env: { ...process.env, ...environment, PATH: path },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  return child;
}

function launcher(): string {
  const entry = createRequire(import.meta.url).resolve('@rookery/sidecar');
  return join(dirname(entry), '..', 'bin', 'rookery');
}

function readyLine(
  child: ChildProcess,
  exited: Promise<number>,
  log: () => string,
): Promise<{ kafka: string; admin: string; data: string }> {
  return new Promise((resolve, reject) => {
    let text = '';
    const late = setTimeout(
      () => reject(new Error(`the sidecar was not ready within ${readyWithinMs} ms: ${log()}`)),
      readyWithinMs,
    );
    void exited.then((code) => {
      clearTimeout(late);
      reject(new Error(`the sidecar ended with code ${code}: ${log()}`));
    });
    child.once('error', reject);
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const match = /^rookery ready kafka=(\S+) admin=(\S+) data=(.*)$/m.exec(text);
      if (match === null) return;
      clearTimeout(late);
      resolve({ kafka: match[1]!, admin: match[2]!, data: match[3]! });
    });
  });
}
