import { spawn, type ChildProcess } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startSidecar } from '@rookery/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { finished, type Finished } from './support/finished-process.ts';

// The command-line contract of the broker: scripts depend on every sentence of it.

const launcher = fileURLToPath(new URL('../sidecar/bin/rookery', import.meta.url));
const free = ['--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0'];

let dir: string;
let children: ChildProcess[];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rookery-cli-'));
  children = [];
});

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGKILL');
      await gone;
    }
  }
  rmSync(dir, { recursive: true, force: true });
});

const nodeDirectory = join(process.execPath, '..');

const rookery = (args: readonly string[], environment: Record<string, string> = {}): Promise<Finished> =>
  finished(launcher, args, {
    environment: { PATH: `${nodeDirectory}:${process.env['PATH'] ?? ''}`, ...environment },
  });

interface Started {
  readonly child: ChildProcess;
  /** Everything on stdout so far. */
  stdout(): string;
  stderr(): string;
  readonly kafkaPort: number;
  /** Resolves with the exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
}

/** Starts the broker as a user would, and waits for its first line. */
async function started(
  args: readonly string[],
  environment: Record<string, string> = {},
  command: readonly string[] = [launcher],
): Promise<Started> {
  const child = spawn(command[0]!, [...command.slice(1), 'start', ...args], {
    env: { ...process.env, PATH: `${nodeDirectory}:${process.env['PATH'] ?? ''}`, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let stdout = '';
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<number | string>((resolve) =>
    child.once('close', (code, signal) => resolve(code ?? signal!)),
  );
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      if (stdout.includes('\n')) resolve();
    });
    void ended.then((code) => reject(new Error(`ended with ${code}: ${stderr}`)));
  });
  const kafkaPort = Number(/kafka=127\.0\.0\.1:(\d+)/.exec(stdout)?.[1]);
  return { child, stdout: () => stdout, stderr: () => stderr, kafkaPort, ended };
}

const cleanMarker = (): boolean => existsSync(join(dir, '.kafka_cleanshutdown'));

describe('a start', () => {
  test('says one line on stdout when it is ready, and everything else as JSON on stderr', async () => {
    const broker = await started(['--data-dir', dir, ...free, '--set', 'num.network.threads=5']);
    expect(broker.stdout()).toMatch(
      /^rookery ready kafka=127\.0\.0\.1:[1-9]\d* admin=http:\/\/127\.0\.0\.1:[1-9]\d* data=.+\n$/,
    );
    expect(broker.stdout()).toContain(`data=${dir}\n`);
    broker.child.kill('SIGTERM');
    expect(await broker.ended).toBe(0);
    expect(broker.stdout().split('\n').length).toBe(2);
    const lines = broker
      .stderr()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { msg: string });
    expect(lines.filter(({ msg }) => msg.includes('num.network.threads')).length).toBe(1);
    expect(lines.at(-1)!.msg).toBe('stopped');
  });

  test('stops when nobody reads its lines any more', async () => {
    const broker = await started([...free, '--data-dir', dir, '--set', 'num.network.threads=5']);
    broker.child.stderr!.destroy();
    broker.child.kill('SIGTERM');
    expect(await new Promise((resolve) => broker.child.once('exit', resolve))).toBe(0);
    expect(cleanMarker()).toBe(true);
  });

  test('logs for people on a terminal', async () => {
    const command = `${launcher} start --data-dir ${dir} ${free.join(' ')} --set num.network.threads=5`;
    const terminal = spawn('script', ['-qec', command, '/dev/null'], {
      env: { ...process.env, PATH: `${nodeDirectory}:${process.env['PATH'] ?? ''}` },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    children.push(terminal);
    const text = await new Promise<string>((resolve) => {
      let all = '';
      terminal.stdout.setEncoding('utf8').on('data', (chunk: string) => {
        all += chunk;
        if (all.includes('rookery ready') && all.includes('num.network.threads')) resolve(all);
      });
    });
    expect(text).not.toContain('{"level"');
    expect(text).toContain('WARN');
    const gone = new Promise((resolve) => terminal.once('close', resolve));
    // What a person types: ^C goes to the broker alone.
    terminal.stdin.write('\x03');
    await gone;
    expect(cleanMarker()).toBe(true);
  });

  test('uses ~/.rookery when nobody names a directory', async () => {
    const broker = await started(free, { HOME: dir });
    expect(broker.stdout()).toContain(`data=${join(dir, '.rookery')}\n`);
    expect(existsSync(join(dir, '.rookery', 'meta.properties'))).toBe(true);
  });

  test('takes settings from the file, the environment, --set and flags, the later beating the earlier', async () => {
    const file = join(dir, 'server.properties');
    writeFileSync(file, `listeners=PLAINTEXT://127.0.0.1:1\nlog.dirs=/nowhere\nprocess.roles=broker\n`);
    const data = join(dir, 'data');
    const broker = await started(
      [
        '--config',
        file,
        '--data-dir',
        data,
        '--listen',
        '127.0.0.1:0',
        '--set',
        'admin.listener=127.0.0.1:0',
      ],
      { ROOKERY_LOG_DIRS: '/nowhere', ROOKERY_ADMIN_LISTENER: '127.0.0.1:1', ROOKERY_NUM_PARTITION: '3' },
    );
    expect(broker.stdout()).toContain(`data=${data}\n`);
    broker.child.kill('SIGTERM');
    expect(await broker.ended).toBe(0);
    expect(broker.stderr()).toContain('ROOKERY_NUM_PARTITION names no setting');
    expect(broker.stderr()).toContain('process.roles');
  });

  test('with --ephemeral leaves nothing behind, whichever way it is told to stop', async () => {
    for (const signals of [['SIGTERM'], ['SIGINT'], ['SIGHUP']] as const) {
      const broker = await started(['--ephemeral', ...free], { TMPDIR: dir, ROOKERY_LOG_DIRS: '/nowhere' });
      expect(readdirSync(dir).length).toBe(1);
      for (const signal of signals) broker.child.kill(signal);
      expect(await broker.ended).toBe(0);
      expect(readdirSync(dir)).toEqual([]);
    }
  });

  test('runs in the very process that was started', async () => {
    const { child } = await started(['--data-dir', dir, ...free]);
    expect(readFileSync(`/proc/${child.pid!}/cmdline`, 'utf8')).toMatch(
      /^[^\0]*node\0(?:--[^\0]*\0)*[^\0]*main\.js\0start\0/,
    );
  });
});

describe('a stop', () => {
  test('leaves the marker of an orderly one, which the next start takes', async () => {
    const first = await started(['--data-dir', dir, ...free]);
    expect(cleanMarker()).toBe(false);
    first.child.kill('SIGTERM');
    expect(await first.ended).toBe(0);
    expect(cleanMarker()).toBe(true);
    const second = await started(['--data-dir', dir, ...free]);
    expect(cleanMarker()).toBe(false);
    second.child.kill('SIGKILL');
    await second.ended;
    expect(cleanMarker()).toBe(false);
  });

  test('waits for clients that are being answered, and a second signal does not', async () => {
    const broker = await started(['--data-dir', dir, ...free]);
    // A client that never closes its side keeps the drain going.
    const client = connect({ port: broker.kafkaPort, host: '127.0.0.1', allowHalfOpen: true });
    await new Promise((resolve) => client.once('connect', resolve));
    const told = new Promise((resolve) => client.once('end', resolve));
    client.resume();
    broker.child.kill('SIGTERM');
    await told;
    broker.child.kill('SIGTERM');
    expect(await broker.ended).toBe(128 + 15);
    expect(cleanMarker()).toBe(false);
    client.destroy();
  });
});

describe('a refusal', () => {
  const refused = async (args: readonly string[], code: number, expected: RegExp): Promise<void> => {
    const { stdout, stderr, code: actual } = await rookery(args);
    expect(stderr.trimEnd().split('\n').length, stderr).toBe(1);
    expect(stderr).toMatch(expected);
    expect(stdout).toBe('');
    expect(actual).toBe(code);
  };

  test('of the command line is one line on stderr and exit code 2', async () => {
    await refused(['strat'], 2, /^rookery: RK0101 .*strat/);
    await refused(['start', '--data', dir], 2, /^rookery: RK0101 .*--data/);
    await refused(['start', '--listen'], 2, /^rookery: RK0101 .*--listen/);
    await refused(['start', 'now'], 2, /^rookery: RK0101/);
    await refused(['start', '--set', 'num.partitions'], 2, /^rookery: RK0101 .*name=value/);
    await refused(
      ['start', '--set', 'num.partition=1'],
      2,
      /^rookery: RK0102 .*did you mean 'num\.partitions'\?/,
    );
    await refused(['start', '--set', 'num.partitions=x'], 2, /^rookery: RK0103 .*num\.partitions: 'x'/);
    await refused(['start', '--data-dir', dir, '--ephemeral'], 2, /^rookery: RK0103 .*--ephemeral/);
    await refused(['start', '--config', join(dir, 'none')], 2, /^rookery: RK0104 .*no such file/);
    await refused(['start', '--config', dir], 2, /^rookery: RK0104/);
    await refused(['start', '--listen', 'here'], 2, /^rookery: RK0105 .*here/);
    await refused(['start', '--listen', 'SSL://127.0.0.1:0'], 2, /^rookery: RK0106/);
    await refused(['start', '--listen', '0.0.0.0:0'], 2, /^rookery: RK0107 .*--insecure/);
    await refused(['start', '--admin', '0.0.0.0:0'], 2, /^rookery: RK0107 .*admin\.listener/);
  });

  test('without a command is the help', async () => {
    const { code, stderr, stdout } = await rookery([]);
    expect(code).toBe(2);
    expect(`${stdout}${stderr}`).toContain('start');
    expect((await rookery(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test('of an address in use names the setting', async () => {
    const first = await started(['--data-dir', join(dir, 'a'), ...free]);
    await refused(
      [
        'start',
        '--data-dir',
        join(dir, 'b'),
        '--listen',
        `127.0.0.1:${first.kafkaPort}`,
        '--admin',
        '127.0.0.1:0',
      ],
      1,
      /^rookery: RK0201 .*listeners=127\.0\.0\.1:\d+.*EADDRINUSE/,
    );
    // It has taken nothing: the directory can be used at once.
    await started(['--data-dir', join(dir, 'b'), ...free]);
  });

  test('of a directory that another process has ends with that process, however it ends', async () => {
    const first = await started(['--data-dir', dir, ...free]);
    await refused(['start', '--data-dir', dir, ...free], 1, /^rookery: RK0302 .*in use/);
    first.child.kill('SIGKILL');
    await first.ended;
    await started(['--data-dir', dir, ...free]);
  });

  test('of a newer format, of another node, and of what is no directory', async () => {
    const first = await started(['--data-dir', dir, ...free]);
    first.child.kill('SIGTERM');
    await first.ended;
    const clusterId = /cluster\.id=(.*)/.exec(readFileSync(join(dir, 'meta.properties'), 'utf8'))![1];
    await refused(
      ['start', '--data-dir', dir, ...free, '--set', 'node.id=2'],
      1,
      /^rookery: RK0304 .*node 1/,
    );
    const own = join(dir, 'rookery.json');
    const before = readFileSync(own, 'utf8');
    writeFileSync(own, '{"formatVersion":99}\n');
    await refused(['start', '--data-dir', dir, ...free], 1, /^rookery: RK0303 .*99/);
    writeFileSync(own, before);
    const file = join(dir, 'file');
    writeFileSync(file, '');
    await refused(['start', '--data-dir', '/proc/nothing', ...free], 1, /^rookery: RK0301.*ENOENT/);
    await refused(['start', '--data-dir', '', ...free], 2, /^rookery: RK0103/);
    await refused(['start', '--data-dir', file, ...free], 1, /^rookery: RK0301/);
    const again = await started(['--data-dir', dir, ...free]);
    expect(readFileSync(join(dir, 'meta.properties'), 'utf8')).toContain(`cluster.id=${clusterId}`);
    again.child.kill('SIGTERM');
    expect(await again.ended).toBe(0);
  });

  test('of an address outside loopback is lifted by --insecure', async () => {
    const broker = await started([
      '--data-dir',
      dir,
      '--listen',
      '0.0.0.0:0',
      '--admin',
      '127.0.0.1:0',
      '--insecure',
    ]);
    expect(broker.stdout()).toMatch(/kafka=0\.0\.0\.0:\d+ /);
  });
});

describe('the launcher', () => {
  /** A directory with a Node that says it is version 20, first on the PATH. */
  const oldNodeFirst = (): Record<string, string> => {
    const node = join(dir, 'node');
    writeFileSync(
      node,
      '#!/bin/sh\ncase "$1" in -p) echo 20 ;; --version) echo v20.20.2 ;; *) echo started; esac\n',
    );
    chmodSync(node, 0o755);
    return { PATH: `${dir}:/usr/bin:/bin` };
  };

  test('says which Node is needed where the only one is too old, under a plain sh', async () => {
    const environment = oldNodeFirst();
    const elsewhere = mkdtempSync(join(dir, 'bin-'));
    symlinkSync(launcher, join(elsewhere, 'rookery'));
    const { code, stdout, stderr } = await finished('sh', [join(elsewhere, 'rookery'), 'start'], {
      environment,
    });
    expect(stderr).toBe('rookery: Node 24 or newer is needed; this machine has v20.20.2\n');
    expect(stdout).toBe('');
    expect(code).toBe(1);
  });

  test('says so too where there is no Node at all', async () => {
    const bin = mkdtempSync(join(dir, 'bin-'));
    for (const tool of ['dirname', 'readlink']) symlinkSync(`/usr/bin/${tool}`, join(bin, tool));
    const { code, stderr } = await finished('/bin/sh', [launcher, 'start'], { environment: { PATH: bin } });
    expect(stderr).toBe('rookery: Node 24 or newer is needed; this machine has none\n');
    expect(code).toBe(1);
  });

  test('takes the Node that lies beside the link by which it is called, through any chain of links', async () => {
    const environment = oldNodeFirst();
    const bin = mkdtempSync(join(dir, 'bin-'));
    symlinkSync(process.execPath, join(bin, 'node'));
    symlinkSync(launcher, join(bin, 'first'));
    symlinkSync('first', join(bin, 'rookery'));
    const data = join(dir, 'data');
    const broker = await started(['--data-dir', data, ...free], environment, ['sh', join(bin, 'rookery')]);
    expect(broker.stdout()).toContain(`data=${data}\n`);
    broker.child.kill('SIGTERM');
    expect(await broker.ended).toBe(0);
  });

  test('widens the pool on which files are synced, unless told otherwise', async () => {
    const sidecar = await startSidecar();
    try {
      expect(readFileSync(`/proc/${sidecar.pid}/environ`, 'utf8')).toContain('UV_THREADPOOL_SIZE=16\0');
    } finally {
      await sidecar.stop();
    }
  });
});
