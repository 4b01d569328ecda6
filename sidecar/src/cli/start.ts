import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { openBroker, type Broker } from '../broker.ts';
import { systemClock } from '../clock.ts';
import { Config } from '../config.ts';
import { SidecarError } from '../errors.ts';
import { EventLog } from '../event-log.ts';
import { EventBus } from '../events.ts';
import { formatAddress } from '../listener-address.ts';
import { readFile } from '../vfs/file-system.ts';
import { nodeFileSystem, temporaryDirectory } from '../vfs/node.ts';

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
  if (flags.ephemeral && config.dataDir !== null)
    throw new SidecarError('RK0103', '--ephemeral has a directory of its own, so none can be named');
  const events = new EventBus();
  const log = new EventLog(events);
  for (const warning of config.warnings) log.warn(warning);
  const stopped = untilSignal();
  const dataDir = dataDirectory(config, flags);
  const broker = await openBroker({ config, dataDir, fs: nodeFileSystem, clock: systemClock, events });
  announce(broker, dataDir);
  log.info(`stops on ${await stopped}`);
  await broker.close();
  log.info('stopped');
  await log.flush();
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
      ...(dataDir === undefined ? {} : { dataDir: resolve(dataDir) }),
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

/** Resolves with the first signal. The second one ends the process where it stands, as a crash would. */
function untilSignal(): Promise<string> {
  return new Promise((tell) => {
    let isStopping = false;
    for (const [signal, number] of [
      ['SIGTERM', 15],
      ['SIGINT', 2],
    ] as const) {
      process.on(signal, () => {
        if (isStopping) process.exit(128 + number);
        isStopping = true;
        tell(signal);
      });
    }
  });
}

function announce({ kafka, admin }: Broker, dataDir: string): void {
  // Who started us may have gone, or not read; that is no reason to stop serving.
  process.stdout.on('error', () => {});
  process.stdout.write(
    `rookery ready kafka=${formatAddress(kafka)} admin=http://${formatAddress(admin)} data=${dataDir}\n`,
  );
}
