import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { finished, output, type RunOptions } from './finished-process.ts';

export interface KafkaOptions {
  /** A directory that outlives the broker; without one it gets its own, which goes with `stop`. */
  readonly dir?: string;
  /** Broker settings by their names. */
  readonly settings?: Readonly<Record<string, string | number | boolean>>;
  /** For what `scripts/peers.sh` reads: the options of Kafka's JVM. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** A real Apache Kafka: one node, on a free port. */
export interface KafkaProcess {
  /** `host:port` */
  readonly address: string;
  /** Where its partitions lie: `<topic>-<partition>/`. */
  readonly dataDir: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** Found by the package's name: this file runs from the sources and from dist/. */
const repository = dirname(dirname(createRequire(import.meta.url).resolve('@rookery/test/package.json')));
export const peersScript = join(repository, 'scripts', 'peers.sh');

/** Somebody else may take a port between our look and Kafka's bind. */
const startAttempts = 3;
const running = new Set<string>();

process.on('exit', () => {
  for (const dir of running) execFileSync(peersScript, ['stop', dir], { stdio: 'ignore' });
});

/** @throws Error with the end of Kafka's log, when it does not start */
export async function startKafka({
  dir,
  settings = {},
  environment = {},
}: KafkaOptions = {}): Promise<KafkaProcess> {
  const home = dir ?? (await mkdtemp(join(tmpdir(), 'rookery-kafka-')));
  const removeOwned = async (): Promise<void> => {
    if (dir === undefined) await rm(home, { recursive: true, force: true });
  };
  const properties = Object.entries(settings).map(([name, value]) => `${name}=${String(value)}`);
  running.add(home);
  let failure = '';
  for (let attempt = 0; attempt < startAttempts; attempt++) {
    const port = await freePortPair();
    const start = await finished(peersScript, ['start', String(port), home, ...properties], {
      withinMs: 120_000,
      environment,
    });
    if (start.code === 0) {
      return {
        address: `127.0.0.1:${port}`,
        dataDir: join(home, 'data'),
        pid: Number(await readFile(join(home, 'pid'), 'utf8')),
        async stop() {
          await output(peersScript, ['stop', home], { withinMs: 120_000 });
          running.delete(home);
          await removeOwned();
        },
      };
    }
    failure = start.stderr;
  }
  running.delete(home);
  await removeOwned();
  throw new Error(failure);
}

/** Runs one of Kafka's own tools by its class and returns what it printed. */
export const kafkaTool = (
  className: string,
  args: readonly string[],
  options?: RunOptions,
): Promise<string> => output(peersScript, ['tool', className, ...args], options);

/** A port for clients; the next one is the controller's. */
async function freePortPair(): Promise<number> {
  for (;;) {
    const first = await listening(0);
    const { port } = first!.address() as AddressInfo;
    const second = port < 65_535 ? await listening(port + 1) : null;
    await Promise.all([closed(first), closed(second)]);
    if (second !== null) return port;
  }
}

const listening = (port: number): Promise<Server | null> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen(port, '127.0.0.1', () => resolve(server));
  });

const closed = (server: Server | null): Promise<void> =>
  new Promise((resolve) => (server === null ? resolve() : server.close(() => resolve())));
