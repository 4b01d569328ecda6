import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { SidecarError } from '../errors.ts';
import { brokerCommands, repeated } from './broker-commands.ts';
import type { RepairFlags } from './log-tools.ts';
import type { StartFlags } from './start.ts';

/** Exit codes: 0 done, 1 it failed while working, 2 it was asked for something that cannot be. */
const failed = 1;
const misused = 2;

/** Runs one command line; resolves with the exit code. A refusal is one line on stderr. */
export async function run(args: readonly string[]): Promise<number> {
  try {
    await program().parseAsync(args, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return usage(error);
    const code = codeOf(error);
    if (code === null) throw error;
    process.stderr.write(`rookery: ${(error as Error).message}\n`);
    return code.startsWith('RK01') || code === 'RK9207' ? misused : failed;
  }
}

/** The sidecar's own refusals and the client's, which is not loaded where it is not needed. */
function codeOf(error: unknown): string | null {
  const code = error instanceof Error && 'code' in error ? error.code : null;
  return typeof code === 'string' && /^RK\d{4}$/.test(code) ? code : null;
}

function program(): Command {
  const command = new Command('rookery')
    .description('A log for this host: a broker that speaks the Kafka protocol.')
    .version(version(), '--version', 'print the version')
    .configureOutput({ outputError: () => {} })
    .exitOverride();
  command
    .command('start')
    .description('run the broker until SIGTERM')
    .option('--data-dir <dir>', 'where the logs are (default: ~/.rookery)')
    .option(
      '--listen <host:port>',
      'where Kafka clients connect (default: 127.0.0.1:9092; port 0: any free one)',
    )
    .option('--admin <host:port>', 'where health and metrics are (default: 127.0.0.1:9644)')
    .option('--config <file>', 'settings, as Java properties or JSON')
    .option('--set <name=value>', "one setting under Kafka's name; may be repeated", repeated, [])
    .option('--ephemeral', 'keep everything in a temporary directory that goes at exit')
    .option('--insecure', 'listen outside loopback without authentication')
    .action(async (flags: StartFlags) => {
      const { start } = await import('./start.ts');
      await start(flags);
    });
  const log = command.command('log').description('look into the files of a log, and mend them');
  log
    .command('check')
    .description(
      'read every byte of a data directory or of a partition, and say what is wrong; changes nothing',
    )
    .argument('<dir>')
    .action(async (dir: string) => (await import('./log-tools.ts')).checkLogs(dir));
  log
    .command('repair')
    .description('mend a partition of a stopped broker: says what is lost, and does exactly that')
    .argument('<dir>', "the partition's directory")
    .option('--truncate-at <offset>', 'end the log before this offset')
    .option('--skip-batch', 'put nothing in the place of what is damaged, and keep what follows')
    .action(async (dir: string, flags: RepairFlags) =>
      (await import('./log-tools.ts')).repairLog(dir, flags),
    );
  log
    .command('dump')
    .description('decode .log, .index, .timeindex, .txnindex, .snapshot and checkpoints')
    .argument('<file...>')
    .action(async (files: string[]) => (await import('./log-tools.ts')).dumpFiles(files));
  brokerCommands(command);
  return command;
}

function version(): string {
  return (createRequire(import.meta.url)('../../package.json') as { version: string }).version;
}

function usage(error: CommanderError): number {
  if (error.exitCode === 0) return 0;
  // Without any command the library has printed the help instead of a message.
  if (error.code === 'commander.help') return misused;
  const said = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
  process.stderr.write(`rookery: ${new SidecarError('RK0101', said).message}\n`);
  return misused;
}
