import { basename, dirname, resolve } from 'node:path';
import { Config } from '../config.ts';
import { SidecarError } from '../errors.ts';
import { leftWordOf, type LeftWord } from '../log/data-directory.ts';
import {
  checkPartition,
  expectedOf,
  partitionsIn,
  type Damage,
  type PartitionCheck,
} from '../log/log-check.ts';
import { dump } from '../log/log-dump.ts';
import {
  missedFrom,
  planSkipping,
  planTruncation,
  repair,
  rotIn,
  settle,
  type Repair,
} from '../log/log-repair.ts';
import { sayRot } from '../log/rot.ts';
import { nodeFileSystem as fs } from '../vfs/node.ts';

// `rookery log …`: reading, checking and mending the files of a log where they lie.

/** Exit code of a check that has found records damaged. */
const damaged = 1;

const say = (line: string): void => void process.stdout.write(`${line}\n`);

interface Place {
  readonly dataDir: string;
  readonly partitions: readonly string[];
}

/** A partition's directory, or a data directory with many of them. */
function placeOf(path: string): Place {
  const directory = resolve(path);
  if (!fs.isDirectory(directory)) throw new SidecarError('RK0101', `${path} is no directory`);
  if (fs.list(directory).some((name) => /^\d{20}\.log$/.test(name) || name === 'partition.metadata'))
    return { dataDir: dirname(directory), partitions: [basename(directory)] };
  const partitions = partitionsIn(fs, directory);
  const isDataDirectory = fs.exists(`${directory}/meta.properties`) || partitions.length > 0;
  if (!isDataDirectory)
    throw new SidecarError('RK0101', `${path} is neither a data directory nor a partition's`);
  return { dataDir: directory, partitions };
}

function check(dataDir: string, partition: string): PartitionCheck {
  return checkPartition(fs, `${dataDir}/${partition}`, expectedOf(fs, dataDir, partition));
}

/** Reads every byte, takes no lock and changes nothing; beside a running broker the newest bytes may look unfinished. */
export function checkLogs(path: string): void {
  const { dataDir, partitions } = placeOf(path);
  for (const partition of partitions) {
    const word = leftWordOf(fs, dataDir, partition);
    const found = check(dataDir, partition);
    report(partition, found, word);
    if (rotIn(found).length > 0 || word.rot !== null) process.exitCode = damaged;
  }
}

function report(partition: string, found: PartitionCheck, word: LeftWord): void {
  const { good, baseOffsets, logStartOffset, logEndOffset, damages, faults } = found;
  const [rot] = rotIn(found);
  const from = rot === undefined ? null : missedFrom(found, rot);
  // What was seen once may read well today, and the broker stops there all the same.
  const remembered = word.rot !== null && word.rot.offset < (from ?? Infinity) ? word.rot : null;
  const states = [
    ...(remembered === null ? [] : [`QUARANTINED from offset ${remembered.offset} on`]),
    ...(from === null ? [] : [`DAMAGED from offset ${from} on`]),
  ];
  const state = states.length === 0 ? 'whole' : states.join(', ');
  const size = `${baseOffsets.length} segments, ${good.records} records in ${good.bytes} bytes`;
  say(`${partition}: offsets ${logStartOffset} to ${logEndOffset}, ${size}: ${state}`);
  for (const damage of damages) say(`  ${sayDamage(found, damage)}`);
  if (remembered !== null) say(`  reads well now, but was ${sayRot(remembered)}`);
  if (word.distrustedFrom !== null)
    say(
      `  a sync failed: what stands from offset ${word.distrustedFrom} on may not be on the disk; a start cuts it`,
    );
  for (const { file, problem } of faults) say(`  ${file}: ${problem}; made again or left alone by a start`);
  const begins = remembered?.offset ?? from;
  if (begins === null) return;
  offer(`--truncate-at ${begins}`, found, () => planTruncation(found, begins));
  offer('--skip-batch', found, () => planSkipping(found));
}

/** Says what a repair would do; one that this damage does not allow must not hide the other. */
function offer(choice: string, found: PartitionCheck, plan: () => Repair): void {
  let said: string;
  try {
    said = sayPlan(found, plan());
  } catch (error) {
    if (!(error instanceof SidecarError)) throw error;
    said = error.message;
  }
  say(`  repair ${choice}: ${said}`);
}

function sayDamage(found: PartitionCheck, damage: Damage): string {
  const { segment, position, endPosition, endOffset, reason, isTornTail, isCutByStart } = damage;
  const file = `${String(segment).padStart(20, '0')}.log`;
  const bytes = endPosition > position ? `${endPosition - position} bytes ` : '';
  if (isTornTail)
    return `${file}: ${bytes}at position ${position} are an unfinished tail: ${reason}; a start cuts it`;
  const from = missedFrom(found, damage);
  const offsets = endOffset > from ? `offsets ${from} to ${endOffset - 1}` : `what follows offset ${from}`;
  const { records, batches } = found.behind(endOffset);
  const lost = `; a start cuts the log here, and loses ${records} records in ${batches} batches that can be read`;
  return `${file}: ${bytes}at position ${position}: ${reason} (${offsets})${isCutByStart ? lost : ''}`;
}

function sayPlan(found: PartitionCheck, plan: Repair): string {
  if (plan.kind === 'truncate') {
    const { endOffset, lost } = plan;
    return `the log ends at offset ${endOffset}; of what can be read, ${lost.records} records in ${lost.batches} batches (${lost.bytes} bytes, ${lost.segments} segments) are lost`;
  }
  const offsets = plan.damages
    .map((damage) => Math.max(0, damage.endOffset - missedFrom(found, damage)))
    .reduce((sum, missed) => sum + missed, 0);
  return `${offsets} offsets that cannot be read become empty; nothing that can be read is lost`;
}

export interface RepairFlags {
  readonly truncateAt?: string;
  readonly skipBatch?: true;
}

/** Says what it is going to do, and does exactly that; without an option it only says what could be done. */
export function repairLog(path: string, { truncateAt, skipBatch }: RepairFlags): void {
  const { dataDir, partitions } = placeOf(path);
  if (dataDir === resolve(path))
    throw new SidecarError('RK0101', `${path} is a data directory: name the directory of one partition`);
  if (truncateAt !== undefined && skipBatch)
    throw new SidecarError('RK0101', 'either --truncate-at or --skip-batch');
  const offset = truncateAt === undefined ? null : offsetOf(truncateAt);
  const partition = partitions[0]!;
  // Where the word cannot be read it could not be taken back either, so nothing is begun.
  const word = leftWordOf(fs, dataDir, partition);
  if (offset === null && !skipBatch) {
    report(partition, check(dataDir, partition), word);
    throw new SidecarError('RK0101', 'nothing was changed: choose --truncate-at OFFSET or --skip-batch');
  }
  const config = new Config({}).logConfig({});
  settle({ fs, dataDir, partition, config });
  const found = check(dataDir, partition);
  const plan = offset === null ? planSkipping(found) : planTruncation(found, offset);
  say(`${partition}: ${sayPlan(found, plan)}`);
  repair({ fs, dataDir, partition, config }, found, plan);
  const after = check(dataDir, partition);
  report(partition, after, leftWordOf(fs, dataDir, partition));
  if (rotIn(after).length > 0) throw new SidecarError('RK0306', `${partition} is still not whole`);
}

/** Decimal digits alone: to JavaScript an unset shell variable is the number 0, and the log would be emptied. */
function offsetOf(text: string): number {
  const offset = /^\d+$/.test(text) ? Number(text) : NaN;
  if (Number.isSafeInteger(offset)) return offset;
  throw new SidecarError('RK0101', `--truncate-at ${text}: an offset is expected`);
}

export function dumpFiles(paths: readonly string[]): void {
  for (const path of paths) {
    const lines = fs.isDirectory(path) ? null : dump(fs, resolve(path));
    if (lines === null) throw new SidecarError('RK0101', `${path} is no file`);
    if (paths.length > 1) say(`${path}:`);
    for (const line of lines) say(line);
  }
}
