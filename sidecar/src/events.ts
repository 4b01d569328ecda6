/**
 * What happens in the broker, as typed events. Rooms emit them; the log and the metrics listen. An event is a
 * fact with its numbers, never a sentence: sentences are the listener's business.
 */
export interface Events {
  recovered: { partition: string; logEndOffset: number; wasClean: boolean };
  tailTruncated: { partition: string; fromOffset: number; bytes: number; reason: string };
  indexRebuilt: { partition: string; file: string; reason: string };
  segmentRolled: { partition: string; baseOffset: number };
  segmentsDeleted: {
    partition: string;
    segments: number;
    bytes: number;
    reason: string;
    logStartOffset: number;
  };
  fileRemoved: { partition: string; file: string; reason: string };
  compacted: {
    partition: string;
    bytesBefore: number;
    bytesAfter: number;
    endOffset: number;
    milliseconds: number;
  };
  partitionQuarantined: {
    partition: string;
    segment: number;
    position: number;
    offset: number;
    reason: string;
  };
  checkpointDamaged: { file: string };
  recordsMissing: { partition: string; recoveryPoint: number };
  logSetAside: { partition: string; directory: string; topicId: string; logEndOffset: number };
  epochsRestored: { partition: string; file: string; reason: string };
  metadataRestored: { partition: string; file: string };
  partitionOffline: { partition: string; reason: string };
  appendsTakenBack: { partition: string; fromOffset: number; reason: string };
  diskLow: { freeBytes: number; minFreeBytes: number };
  diskRelieved: { freeBytes: number };
  reserveGivenUp: { bytes: number };
  topicCreated: { topic: string; topicId: string; partitions: number };
  topicDeleted: { topic: string; topicId: string };
  connectionOpened: { remoteAddress: string };
  connectionClosed: { remoteAddress: string; reason: string | null };
  connectionRefused: { remoteAddress: string; reason: string };
  handlerFailed: { error: unknown };
  groupRebalanced: { group: string; generation: number; members: number; reason: string };
  memberExpired: { group: string; member: string };
  groupsLoaded: { partition: number; groups: number };
  backgroundFailed: { task: string; error: unknown };
}

type Listener<K extends keyof Events> = (info: Events[K]) => void;

export class EventBus {
  readonly #listeners: { [K in keyof Events]?: Listener<K>[] } = {};

  on<K extends keyof Events>(name: K, listener: Listener<K>): void {
    const listeners: Listener<K>[] = (this.#listeners[name] ??= [] as never);
    listeners.push(listener);
  }

  emit<K extends keyof Events>(name: K, info: Events[K]): void {
    for (const listener of this.#listeners[name] ?? []) (listener as Listener<K>)(info);
  }
}
