import { spawn, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** The system calls by which a broker changes its disk. */
export const changes =
  'pwrite64,pwritev,pwritev2,ftruncate,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat';

export const hasStrace = spawnSync('strace', ['-qq', '-e', 'trace=none', 'true']).status === 0;

export interface TracedSidecar {
  /** `host:port` when it serves; null when it ended before. */
  readonly kafka: string | null;
  /** Resolves when the process is gone, whatever ended it. */
  readonly ended: Promise<void>;
  kill(): Promise<void>;
}

const main = join(dirname(createRequire(import.meta.url).resolve('@rookery/sidecar')), 'main.js');

/**
 * A sidecar under strace, which does to its system calls what it is told. Counts of calls are kept for each
 * thread, so the pool has a single one: then its n-th sync is always the same. The loop, which syncs a log that is
 * written alone, has a count of its own.
 *
 * @param strace what is done, e.g. `['-e', 'inject=fdatasync:error=EIO:when=2']`, and with `-o` where it is told
 */
export async function startTraced(dataDir: string, strace: readonly string[]): Promise<TracedSidecar> {
  const start = ['start', '--data-dir', dataDir, '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'];
  const child = spawn('strace', ['-f', '-qq', ...strace, process.execPath, main, ...start], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '1', UV_USE_IO_URING: '0' },
    // A group of its own: the tracer's death alone would set the traced free.
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const killGroup = (): void => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {
      // It is gone already.
    }
  };
  process.on('exit', killGroup);
  void ended.then(() => process.off('exit', killGroup));
  const kafka = await new Promise<string | null>((resolve) => {
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const match = /^rookery ready kafka=(\S+) /m.exec(text);
      if (match !== null) resolve(match[1]!);
    });
    void ended.then(() => resolve(null));
  });
  return {
    kafka,
    ended,
    async kill() {
      killGroup();
      await ended;
    },
  };
}
