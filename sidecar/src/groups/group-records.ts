import {
  decodeMessage,
  encodeMessage,
  groupMetadataKey,
  groupMetadataValue,
  offsetCommitKey,
  offsetCommitValue,
  WireError,
  type LogRecord,
  type NewRecord,
} from '@rookery/wire';
import type { ClassicGroup } from './classic-group.ts';
import type { CommittedOffset } from './committed-offsets.ts';
import type { Member } from './group-member.ts';

/**
 * Kafka's records in `__consumer_offsets`; docs/format/group-records.md. A key begins with two bytes that say
 * what it is a key of, a value with two bytes of its version. A null value forgets the key.
 */

const keyKind = { offset: 1, group: 2 } as const;
const offsetValueVersion = 3;
const groupValueVersion = 3;

export function offsetRecord(
  at: { group: string; topic: string; partition: number },
  offset: CommittedOffset | null,
  timestamp: number,
): NewRecord {
  const key = versioned(keyKind.offset, encodeMessage(offsetCommitKey, 0, at));
  if (offset === null) return { key, value: null, timestamp };
  const { offset: next, leaderEpoch, metadata, committedAt } = offset;
  const body = { offset: next, leaderEpoch, metadata, commitTimestamp: committedAt };
  return {
    key,
    value: versioned(offsetValueVersion, encodeMessage(offsetCommitValue, offsetValueVersion, body)),
    timestamp,
  };
}

export function groupRecord(
  group: ClassicGroup,
  assignments: ReadonlyMap<string, Buffer>,
  timestamp: number,
): NewRecord {
  const members = [...group.members.values()].map((member) => ({
    memberId: member.id,
    groupInstanceId: member.instanceId,
    clientId: member.clientId,
    clientHost: member.clientHost,
    rebalanceTimeout: member.rebalanceTimeoutMs,
    sessionTimeout: member.sessionTimeoutMs,
    subscription: member.protocols.find(({ name }) => name === group.protocol)?.metadata ?? Buffer.alloc(0),
    assignment: assignments.get(member.id) ?? Buffer.alloc(0),
  }));
  const body = {
    protocolType: group.protocolType ?? '',
    generation: group.generation,
    protocol: group.protocol,
    leader: group.leader,
    currentStateTimestamp: timestamp,
    members,
  };
  return {
    key: groupKey(group.id),
    value: versioned(groupValueVersion, encodeMessage(groupMetadataValue, groupValueVersion, body)),
    timestamp,
  };
}

/** The group is forgotten. */
export const groupTombstone = (group: string, timestamp: number): NewRecord => ({
  key: groupKey(group),
  value: null,
  timestamp,
});

const groupKey = (group: string): Buffer =>
  versioned(keyKind.group, encodeMessage(groupMetadataKey, 0, { group }));

export type GroupRecord =
  | {
      readonly kind: 'offset';
      group: string;
      topic: string;
      partition: number;
      offset: CommittedOffset | null;
    }
  | { readonly kind: 'group'; group: string; metadata: GroupMetadata | null };

export interface GroupMetadata {
  readonly protocolType: string;
  readonly generation: number;
  readonly protocol: string | null;
  readonly leader: string | null;
  readonly stateSince: number;
  readonly members: readonly Member[];
}

/** Null for a record of a kind that this version does not know, which is left alone. */
export function readGroupRecord({ key, value }: LogRecord): GroupRecord | null {
  if (key === null || key.length < 2) return null;
  const kind = key.readInt16BE(0);
  if (kind === 0 || kind === keyKind.offset) {
    const at = decodeMessage(offsetCommitKey, 0, key.subarray(2));
    return { kind: 'offset', ...at, offset: value === null ? null : readOffset(value) };
  }
  if (kind !== keyKind.group) return null;
  const { group } = decodeMessage(groupMetadataKey, 0, key.subarray(2));
  return { kind: 'group', group, metadata: value === null ? null : readMetadata(value) };
}

function readOffset(value: Buffer): CommittedOffset {
  const { offset, leaderEpoch, metadata, commitTimestamp } = decodeMessage(
    offsetCommitValue,
    versionOf(value),
    value.subarray(2),
  );
  return { offset, leaderEpoch, metadata, committedAt: commitTimestamp };
}

function readMetadata(value: Buffer): GroupMetadata {
  const stored = decodeMessage(groupMetadataValue, versionOf(value), value.subarray(2));
  const { protocolType, generation, protocol, leader, currentStateTimestamp } = stored;
  const members = stored.members.map((member) => ({
    id: member.memberId,
    instanceId: member.groupInstanceId,
    clientId: member.clientId,
    clientHost: member.clientHost,
    sessionTimeoutMs: member.sessionTimeout,
    rebalanceTimeoutMs: member.rebalanceTimeout < 0 ? member.sessionTimeout : member.rebalanceTimeout,
    protocols: [{ name: protocol ?? '', metadata: Buffer.from(member.subscription) }],
    assignment: Buffer.from(member.assignment),
    sessionEndsAt: 0,
    awaitsJoin: null,
    awaitsSync: null,
    hasSynced: true,
  }));
  return { protocolType, generation, protocol, leader, stateSince: currentStateTimestamp, members };
}

function versionOf(value: Buffer): number {
  if (value.length < 2) throw new WireError('RK9001', `${value.length} bytes cannot hold a version`);
  return value.readInt16BE(0);
}

function versioned(version: number, body: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(2 + body.length);
  bytes.writeInt16BE(version, 0);
  body.copy(bytes, 2);
  return bytes;
}

/** The partition of `__consumer_offsets` that holds a group: Java's string hash, as Kafka places it. */
export function partitionOf(group: string, partitions: number): number {
  let hash = 0;
  for (let i = 0; i < group.length; i++) hash = (Math.imul(31, hash) + group.charCodeAt(i)) | 0;
  return (hash & 0x7fffffff) % partitions;
}
