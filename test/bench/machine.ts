import { spawnSync } from 'node:child_process';
import { arch, cpus, loadavg, release, totalmem } from 'node:os';

/** Where figures come from: without this they mean nothing. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
  readonly commit: string;
  /** Of the last minute, before anything was measured. */
  readonly loadAverage: number;
}

export function machine(): Machine {
  const cores = cpus();
  return {
    processor: `${cores[0]?.model ?? 'unknown'} (${arch()})`,
    cores: cores.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    commit: commit(),
    loadAverage: loadavg()[0]!,
  };
}

/** What a bench has to say about the machine above its tables. */
export function describe(of: Machine): string {
  const { processor, cores, memoryGiB, kernel, node, commit: at, loadAverage } = of;
  return `${processor}, ${cores} cores, ${memoryGiB} GiB, Linux ${kernel}, Node ${node}, commit ${at}, load ${loadAverage.toFixed(1)} at the start`;
}

/** A package that was unpacked has none. */
function commit(): string {
  const git = (...args: string[]): string =>
    spawnSync('git', args, { encoding: 'utf8', cwd: import.meta.dirname }).stdout?.trim() ?? '';
  const head = git('rev-parse', '--short', 'HEAD');
  if (head === '') return 'unknown';
  return git('status', '--porcelain', '--untracked-files=no') === '' ? head : `${head} and more`;
}
