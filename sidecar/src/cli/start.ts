import { availableParallelism, constants, homedir } from 'node:os';
import { resolve } from 'node:path';
import { openBroker, type Broker } from '../broker.ts';
import { systemClock } from '../clock.ts';
import { Config } from '../config.ts';
import { SidecarError } from '../errors.ts';
import { EventLog } from '../event-log.ts';
import { EventBus } from '../events.ts';
import { formatAddress } from '../listener-address.ts';
import { compactOnThread } from '../log/compaction-thread.ts';
import { PreparationThreads } from '../log/preparation-thread.ts';
import { readFile } from '../vfs/file-system.ts';
import { nodeFileSystem, temporaryDirectory } from '../vfs/node.ts';

const { signals } = constants;

export interface StartFlags {
  readonly dataDir?: string;
  readonly listen?: string;
  readonly admin?: string;
  readonly config?: string;
  readonly set: readonly string[];
  readonly ephemeral?: true;
  readonly insecure?: true;
}

/**
 * Runs a broker until a signal stops it. When every partition serves, one line goes to stdout:
 * `rookery ready kafka=HOST:PORT admin=http://HOST:PORT data=DIR`.
 *
 * @throws SidecarError for what keeps it from starting
 */
export async function start(flags: StartFlags): Promise<void> {
  const config = configOf(flags);
  // What stands in the environment or in a file is beaten, as by any flag; on one command line it is a contradiction.
  if (flags.ephemeral && ['flag', 'set'].includes(config.dataDirSource))
    throw new SidecarError('RK0103', '--ephemeral has a directory of its own, so none can be named');
  const events = new EventBus();
  const log = new EventLog(events);
  for (const warning of config.warnings) log.warn(warning);
  const stopping = untilSignal();
  const dataDir = dataDirectory(config, flags);
  const preparation = new PreparationThreads(systemClock, preparationThreadsMax());
  try {
    const broker = await openBroker({
      config,
      dataDir,
      fs: nodeFileSystem,
      clock: systemClock,
      events,
      compact: compactOnThread,
      prepare: preparation.prepare,
    });
    // Told to stop while it was starting: nobody waits for it to be ready any more.
    if (!stopping.isAsked) announce(broker, dataDir);
    log.info(`stops on ${await stopping.asked}`);
    await broker.close();
    log.info('stopped');
  } finally {
    preparation.close();
    await log.end();
  }
  // Everything is on disk and said. A timer of a request that nobody waits for any more is no reason to stay.
  process.exit(0);
}

/** The loop keeps a core for itself where there is more than one. */
const preparationThreadsMax = (): number => Math.max(1, Math.min(4, availableParallelism() - 1));

/** An empty name is a variable that was not set, and would be the directory that one happens to stand in. */
function named(dataDir: string): string {
  if (dataDir === '') throw new SidecarError('RK0103', '--data-dir: a name is expected');
  return resolve(dataDir);
}

function configOf(flags: StartFlags): Config {
  const { listen, admin, dataDir, insecure } = flags;
  return new Config({
    ...(flags.config === undefined ? {} : { file: { name: flags.config, text: readConfig(flags.config) } }),
    environment: process.env,
    sets: flags.set,
    flags: {
      ...(listen === undefined ? {} : { listen }),
      ...(admin === undefined ? {} : { admin }),
      ...(dataDir === undefined ? {} : { dataDir: named(dataDir) }),
      ...(insecure === undefined ? {} : { insecure }),
    },
  });
}

function readConfig(path: string): string {
  let bytes: Buffer | null;
  try {
    bytes = readFile(nodeFileSystem, path);
  } catch (error) {
    throw new SidecarError('RK0104', `${path}: ${(error as Error).message}`, { cause: error });
  }
  if (bytes === null) throw new SidecarError('RK0104', `${path}: there is no such file`);
  return bytes.toString('utf8');
}

function dataDirectory(config: Config, flags: StartFlags): string {
  if (!flags.ephemeral) return resolve(config.dataDir ?? `${homedir()}/.rookery`);
  const { path, removeNow } = temporaryDirectory();
  // Whichever way the process ends, as long as it is its own.
  process.on('exit', removeNow);
  return path;
}

interface Stopping {
  readonly isAsked: boolean;
  /** Resolves with the first signal. */
  readonly asked: Promise<string>;
}

/** The first signal stops the broker in an orderly way. The second ends the process where it stands, as a crash would. */
function untilSignal(): Stopping {
  let isAsked = false;
  const asked = new Promise<string>((tell) => {
    // SIGHUP: the terminal has been closed.
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
      process.on(signal, () => {
        if (isAsked) process.exit(128 + signals[signal]);
        isAsked = true;
        tell(signal);
      });
    }
  });
  return {
    get isAsked() {
      return isAsked;
    },
    asked,
  };
}

function announce({ kafka, admin }: Broker, dataDir: string): void {
  // Who started us may have gone, or not read; that is no reason to stop serving.
  process.stdout.on('error', () => {});
  process.stdout.write(
    `rookery ready kafka=${formatAddress(kafka)} admin=http://${formatAddress(admin)} data=${dataDir}\n`,
  );
}
