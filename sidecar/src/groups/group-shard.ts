import {
  decodeRecords,
  encodeBatch,
  WireError,
  type ErrorName,
  type LogRecord,
  type NewRecord,
  type RecordBatch,
} from '@rookery/wire';
import type { Clock } from '../clock.ts';
import { ClassicGroup, type GroupEffects, type GroupRules } from './classic-group.ts';
import { CommittedOffsets } from './committed-offsets.ts';
import { readGroupRecord, type GroupRecord } from './group-records.ts';

/** One partition of `__consumer_offsets`, as the coordinator needs it. */
export interface OffsetsPartition {
  /** Resolves with null when the batch is committed, else with the name of the error. */
  append(batch: Buffer): Promise<ErrorName | null>;
  /** Everything from the log start to the high watermark. Rejects where any of it is not what was written. */
  readAll(take: (batch: RecordBatch) => void): Promise<void>;
}

export interface HeldGroup {
  readonly group: ClassicGroup;
  readonly offsets: CommittedOffsets;
  /** Commits that are on their way to the log. While there are any, the group is not forgotten. */
  commitsInFlight: number;
}

/** The most bytes of records in one batch of offsets: well below what a topic takes. */
const batchBytesMax = 512 * 1024;

/**
 * The groups of one partition of `__consumer_offsets`. Their state is what the log says: it is loaded by
 * reading it, and changes only after the log has taken the change. Records of one turn go in one batch.
 */
export class GroupShard {
  readonly held = new Map<string, HeldGroup>();
  readonly #partition: OffsetsPartition;
  readonly #clock: Clock;
  #writes: Write[] = [];

  constructor(partition: OffsetsPartition, clock: Clock) {
    this.#partition = partition;
    this.#clock = clock;
  }

  /** Replays the log. Members get a new session each: they could not be heard while the broker was away. */
  async load(rules: GroupRules, effects: GroupEffects): Promise<void> {
    const groups = new Map<string, GroupRecord & { kind: 'group' }>();
    const offsets = new Map<string, CommittedOffsets>();
    await this.#partition.readAll((batch) => {
      for (const record of groupRecordsOf(batch)) {
        if (record.kind === 'group') {
          groups.set(record.group, record);
          continue;
        }
        const of = offsets.get(record.group) ?? new CommittedOffsets();
        offsets.set(record.group, of);
        if (record.offset === null) of.delete(record.topic, record.partition);
        else of.set(record.topic, record.partition, record.offset);
      }
    });
    const now = this.#clock.now();
    for (const id of new Set([...groups.keys(), ...offsets.keys()])) {
      const group = new ClassicGroup(id, now, rules, effects);
      const metadata = groups.get(id)?.metadata ?? null;
      const own = offsets.get(id) ?? new CommittedOffsets();
      if (metadata === null && own.isEmpty) continue;
      if (metadata !== null) {
        const { members, generation, protocol, protocolType, leader, stateSince } = metadata;
        Object.assign(group, {
          generation,
          protocol,
          protocolType,
          leader,
          stateSince: Math.max(0, stateSince),
        });
        for (const member of members)
          group.restore({ ...member, sessionEndsAt: now + member.sessionTimeoutMs });
        group.state = members.length === 0 ? 'Empty' : 'Stable';
      }
      this.held.set(id, { group, offsets: own, commitsInFlight: 0 });
    }
  }

  /** Leaves records for the end of the turn; tells when they are committed, or why not. */
  write(records: readonly NewRecord[], written: (error: ErrorName | null) => void): void {
    if (records.length === 0) return written(null);
    if (this.#writes.length === 0) this.#clock.nextTurn(() => void this.#flush());
    this.#writes.push({ records, written });
  }

  /** Batches go to the log in the order of the writes, and writes are told in that order. */
  async #flush(): Promise<void> {
    const { batches, placed } = intoBatches(this.#writes);
    this.#writes = [];
    const appended = batches.map((batch) =>
      this.#partition.append(encodeBatch(batch)).catch((): ErrorName => 'KAFKA_STORAGE_ERROR'),
    );
    for (const { written, first, last } of placed) {
      const errors = await Promise.all(appended.slice(first, last + 1));
      written(errors.find((error) => error !== null) ?? null);
    }
  }
}

function* groupRecordsOf(batch: RecordBatch): Generator<GroupRecord> {
  if (batch.isControl) return;
  for (const stored of decodeRecords(batch)) {
    const record = readable(stored);
    if (record !== null) yield record;
  }
}

/** A record that cannot be read is one of a version to come; without it a group is only known less well. */
function readable(stored: LogRecord): GroupRecord | null {
  try {
    return readGroupRecord(stored);
  } catch (error) {
    if (error instanceof WireError) return null;
    throw error;
  }
}

interface Write {
  readonly records: readonly NewRecord[];
  readonly written: (error: ErrorName | null) => void;
}

interface Placed {
  readonly written: Write['written'];
  /** The batches that its records are in. */
  readonly first: number;
  readonly last: number;
}

function intoBatches(writes: readonly Write[]): { batches: NewRecord[][]; placed: Placed[] } {
  const batches: NewRecord[][] = [[]];
  const placed: Placed[] = [];
  let size = 0;
  for (const { records, written } of writes) {
    let first = Infinity;
    for (const record of records) {
      const bytes = (record.key?.length ?? 0) + (record.value?.length ?? 0) + 32;
      if (size > 0 && size + bytes > batchBytesMax) {
        batches.push([]);
        size = 0;
      }
      batches.at(-1)!.push(record);
      size += bytes;
      first = Math.min(first, batches.length - 1);
    }
    placed.push({ written, first, last: batches.length - 1 });
  }
  return { batches, placed };
}
