import type {
  Api,
  Encodable,
  ErrorName,
  heartbeat,
  joinGroup,
  leaveGroup,
  NewRecord,
  offsetCommit,
  offsetFetch,
  Request,
  syncGroup,
} from '@rookery/wire';
import { ErrorCode, zeroUuid } from '@rookery/wire';
import { randomUuid, type Clock, type Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { ClassicGroup, type GroupEffects } from './classic-group.ts';
import { CommittedOffsets, type CommittedOffset } from './committed-offsets.ts';
import { GroupShard, type HeldGroup, type OffsetsPartition } from './group-shard.ts';
import { groupRecord, groupTombstone, offsetRecord, partitionOf } from './group-records.ts';

export interface GroupSettings {
  readonly partitions: number;
  readonly sessionTimeoutMinMs: number;
  readonly sessionTimeoutMaxMs: number;
  readonly sizeMax: number;
  readonly initialDelayMs: number;
  readonly metadataBytesMax: number;
  readonly retentionMs: number;
  readonly retentionCheckMs: number;
}

export interface GroupCoordinatorOptions {
  readonly settings: GroupSettings;
  readonly clock: Clock;
  readonly events: EventBus;
  /** The partition of `__consumer_offsets`, made when it is not there yet. */
  readonly partition: (index: number) => Promise<OffsetsPartition | null>;
  readonly topicName: (topicId: string) => string | undefined;
  readonly topicId: (name: string) => string | undefined;
  readonly hasPartition: (topic: string, partition: number) => boolean;
}

type Answer<A extends Api> = Encodable<A['response']>;

interface Versioned {
  readonly version: number;
}

/** A partition that could not be had is asked for again after so long. */
const retryAfterMs = 100;
/** Groups that the broker keeps in memory; while it has so many, it takes no new ones. */
const groupsMax = 100_000;
/** The longest text that a record of the log can hold. */
const textBytesMax = 32_767;
/** Characters of a client's name that become part of its member id. */
const clientIdMax = 256;
/** What one member may tell of itself: no more of it could be kept in one batch of the log. */
const memberBytesMax = 1024 * 1024;

/**
 * The groups that this broker looks after: finds the group of a request, loads it when it is first asked for,
 * gives the state machine its time, and keeps what it decides in the log.
 */
export class GroupCoordinator {
  readonly #options: GroupCoordinatorOptions;
  readonly #shards = new Map<number, Promise<GroupShard | null>>();
  readonly #loaded = new Map<number, GroupShard>();
  /** Why partitions could not be loaded when that was tried last. */
  readonly #loadFailures = new Map<number, string>();
  readonly #effects: GroupEffects;
  #timer: { at: number; timer: Timer } | null = null;
  readonly #retention: Timer;
  #isClosed = false;

  constructor(options: GroupCoordinatorOptions) {
    this.#options = options;
    const { clock, events, settings } = options;
    this.#effects = {
      persist: (group, assignments, done) => void this.#persist(group, assignments, done),
      newMemberId: (clientId) => `${clientId}-${randomUuid(clock)}`,
      rebalanced: ({ id, generation, members }, reason) =>
        events.emit('groupRebalanced', { group: id, generation, members: members.size, reason }),
      expired: ({ id }, member) => events.emit('memberExpired', { group: id, member }),
    };
    this.#retention = clock.every(settings.retentionCheckMs, () => this.#expireOffsets());
  }

  /** Loads the groups of a partition that is on disk, so that their sessions run and their offsets expire. */
  async load(index: number): Promise<void> {
    await this.#shard(index);
  }

  // Membership -------------------------------------------------------------------------------------

  async joinGroup(
    request: Request<typeof joinGroup>,
    { version, clientId, clientHost }: Versioned & { clientId: string; clientHost: string },
  ): Promise<Answer<typeof joinGroup>> {
    const { settings, clock } = this.#options;
    const refused = (error: ErrorName) => ({
      errorCode: ErrorCode[error],
      protocolName: version >= 7 ? null : '',
      leader: '',
      memberId: request.memberId,
      members: [],
    });
    const { sessionTimeoutMs } = request;
    if (sessionTimeoutMs < settings.sessionTimeoutMinMs || sessionTimeoutMs > settings.sessionTimeoutMaxMs) {
      return refused('INVALID_SESSION_TIMEOUT');
    }
    if (isTooLarge(request)) return refused('INVALID_REQUEST');
    const mayCreate = request.memberId === '';
    const found = await this.find(request.groupId, mayCreate);
    if (typeof found === 'string')
      return refused(found === 'GROUP_ID_NOT_FOUND' ? 'UNKNOWN_MEMBER_ID' : found);
    const joined = await new Promise<Parameters<Parameters<ClassicGroup['join']>[2]>[0]>((resolve) => {
      found.group.join(
        {
          memberId: request.memberId,
          instanceId: request.groupInstanceId,
          clientId: clientId.slice(0, clientIdMax),
          clientHost,
          sessionTimeoutMs,
          rebalanceTimeoutMs: request.rebalanceTimeoutMs < 0 ? sessionTimeoutMs : request.rebalanceTimeoutMs,
          protocolType: request.protocolType,
          // Copies: the request's own bytes are a piece of a much larger chunk that would stay in memory with them.
          protocols: request.protocols.map(({ name, metadata }) => ({
            name,
            metadata: Buffer.from(metadata),
          })),
          takesMemberId: version >= 4,
          maySkipAssignment: version >= 9,
        },
        clock.now(),
        resolve,
      );
      this.#maybeForget(found);
      this.#arm(found.group);
    });
    return {
      errorCode: ErrorCode[joined.error],
      generationId: joined.generation,
      protocolType: joined.protocolType,
      protocolName: joined.protocol ?? (version >= 7 ? null : ''),
      leader: joined.leader,
      skipAssignment: joined.skipAssignment,
      memberId: joined.memberId,
      members: joined.members.map(({ id, instanceId, metadata }) => ({
        memberId: id,
        groupInstanceId: instanceId,
        metadata,
      })),
    };
  }

  async syncGroup(request: Request<typeof syncGroup>, _: Versioned): Promise<Answer<typeof syncGroup>> {
    const found = await this.find(request.groupId, false);
    if (typeof found === 'string')
      return { errorCode: ErrorCode[unknownMember(found)], assignment: Buffer.alloc(0) };
    const synced = await new Promise<Parameters<Parameters<ClassicGroup['sync']>[2]>[0]>((resolve) => {
      found.group.sync(
        {
          memberId: request.memberId,
          instanceId: request.groupInstanceId,
          generation: request.generationId,
          protocolType: request.protocolType,
          protocol: request.protocolName,
          assignments: new Map(
            request.assignments.map(({ memberId, assignment }) => [memberId, Buffer.from(assignment)]),
          ),
        },
        this.#options.clock.now(),
        resolve,
      );
      this.#arm(found.group);
    });
    return {
      errorCode: ErrorCode[synced.error],
      protocolType: synced.protocolType,
      protocolName: synced.protocol,
      assignment: synced.assignment,
    };
  }

  async heartbeat(request: Request<typeof heartbeat>, _: Versioned): Promise<Answer<typeof heartbeat>> {
    const { groupId, memberId, groupInstanceId: instanceId, generationId: generation } = request;
    const found = await this.find(groupId, false);
    if (typeof found === 'string') return { errorCode: ErrorCode[unknownMember(found)] };
    return {
      errorCode:
        ErrorCode[found.group.heartbeat({ memberId, instanceId, generation }, this.#options.clock.now())],
    };
  }

  async leaveGroup(
    request: Request<typeof leaveGroup>,
    { version }: Versioned,
  ): Promise<Answer<typeof leaveGroup>> {
    const leaving = version >= 3 ? request.members : [{ memberId: request.memberId, groupInstanceId: null }];
    const found = await this.find(request.groupId, false);
    const leave = ({ memberId, groupInstanceId }: { memberId: string; groupInstanceId: string | null }) => {
      const error =
        typeof found === 'string'
          ? unknownMember(found)
          : found.group.leave({ memberId, instanceId: groupInstanceId }, this.#options.clock.now());
      return { memberId, groupInstanceId, errorCode: ErrorCode[error] };
    };
    const members = leaving.map(leave);
    if (typeof found !== 'string') this.#arm(found.group);
    return version >= 3
      ? { errorCode: ErrorCode.NONE, members }
      : { errorCode: members[0]!.errorCode, members: [] };
  }

  // Offsets ----------------------------------------------------------------------------------------

  async offsetCommit(
    request: Request<typeof offsetCommit>,
    { version }: Versioned,
  ): Promise<Answer<typeof offsetCommit>> {
    const { clock, settings } = this.#options;
    const identity = {
      memberId: request.memberId,
      instanceId: request.groupInstanceId,
      generation: request.generationIdOrMemberEpoch,
    };
    const found = await this.find(request.groupId, identity.generation < 0);
    const now = clock.now();
    const problem =
      typeof found === 'string'
        ? found === 'GROUP_ID_NOT_FOUND'
          ? 'ILLEGAL_GENERATION'
          : found
        : found.group.commitProblem(identity, now);
    const records: NewRecord[] = [];
    const changes: (() => void)[] = [];
    const take = (
      topic: string,
      partition: Request<typeof offsetCommit>['topics'][number]['partitions'][number],
    ): ErrorName => {
      if (problem !== null) return problem;
      if (!this.#options.hasPartition(topic, partition.partitionIndex)) return 'UNKNOWN_TOPIC_OR_PARTITION';
      const metadata = partition.committedMetadata ?? '';
      if (Buffer.byteLength(metadata) > Math.min(settings.metadataBytesMax, textBytesMax))
        return 'OFFSET_METADATA_TOO_LARGE';
      const offset: CommittedOffset = {
        offset: partition.committedOffset,
        leaderEpoch: partition.committedLeaderEpoch,
        metadata,
        committedAt: now,
      };
      records.push(
        offsetRecord({ group: request.groupId, topic, partition: partition.partitionIndex }, offset, now),
      );
      changes.push(() => (found as HeldGroup).offsets.set(topic, partition.partitionIndex, offset));
      return 'NONE';
    };
    const topics = request.topics.map(({ name, topicId, partitions }) => {
      const known = version >= 10 ? this.#options.topicName(topicId) : name;
      return {
        name: known ?? name,
        topicId,
        partitions: partitions.map((partition) => ({
          partitionIndex: partition.partitionIndex,
          errorCode: ErrorCode[known === undefined ? 'UNKNOWN_TOPIC_ID' : take(known, partition)],
        })),
      };
    });
    if (typeof found === 'string') return { topics };
    found.commitsInFlight++;
    const failure = await this.#write(request.groupId, records, () => {
      for (const change of changes) change();
    });
    found.commitsInFlight--;
    if (failure !== null)
      for (const { partitions } of topics)
        for (const each of partitions) if (each.errorCode === 0) each.errorCode = ErrorCode[failure];
    this.#maybeForget(found);
    return { topics };
  }

  async offsetFetch(
    request: Request<typeof offsetFetch>,
    { version }: Versioned,
  ): Promise<Answer<typeof offsetFetch>> {
    if (version >= 8) {
      const groups = request.groups.map(async ({ groupId, topics }) => {
        const { error, answers } = await this.#fetchOffsets(groupId, topics, version >= 10);
        return { groupId, topics: answers, errorCode: ErrorCode[error] };
      });
      return { groups: await Promise.all(groups) };
    }
    const asked = request.topics?.map((topic) => ({ ...topic, topicId: zeroUuid })) ?? null;
    const { error, answers } = await this.#fetchOffsets(request.groupId, asked, false);
    return { topics: answers, errorCode: ErrorCode[error] };
  }

  async #fetchOffsets(
    groupId: string,
    topics: readonly { name: string; topicId: string; partitionIndexes: readonly number[] }[] | null,
    byId: boolean,
  ) {
    const found = await this.find(groupId, false);
    const error = typeof found === 'string' && found !== 'GROUP_ID_NOT_FOUND' ? found : 'NONE';
    const offsets = typeof found === 'string' ? new CommittedOffsets() : found.offsets;
    const describe = (partitionIndex: number, held: CommittedOffset | undefined, errorName: ErrorName) => ({
      partitionIndex,
      committedOffset: held?.offset ?? -1,
      committedLeaderEpoch: held?.leaderEpoch ?? -1,
      metadata: held?.metadata ?? '',
      errorCode: ErrorCode[errorName],
    });
    const all = () =>
      [...offsets.topics()].map((name) => ({
        name,
        topicId: this.#options.topicId(name) ?? zeroUuid,
        partitions: [...offsets.partitions(name)].map(([index, held]) => describe(index, held, 'NONE')),
      }));
    const answers =
      topics === null
        ? all()
        : topics.map(({ name, topicId, partitionIndexes }) => {
            const known = byId ? this.#options.topicName(topicId) : name;
            const partitions = partitionIndexes.map((index) =>
              known === undefined
                ? describe(index, undefined, 'UNKNOWN_TOPIC_ID')
                : describe(index, offsets.get(known, index), error),
            );
            return { name: known ?? name, topicId, partitions };
          });
    return { error, answers: error === 'NONE' ? answers : topics === null ? [] : answers };
  }

  /** Forgets what groups have read of a topic that is gone. */
  forgetTopic(topic: string): void {
    for (const shard of this.#loaded.values()) {
      for (const [id, { offsets }] of shard.held) {
        const partitions = [...offsets.partitions(topic)];
        this.#forget(
          shard,
          id,
          offsets,
          partitions.map(([partition]) => [topic, partition] as const),
        );
      }
    }
  }

  /** Forgets how far a group has read these partitions. @returns why not, null when it is done */
  async deleteOffsets(
    groupId: string,
    what: readonly (readonly [topic: string, partition: number])[],
  ): Promise<ErrorName | null> {
    const found = await this.find(groupId, false);
    if (typeof found === 'string') return found;
    const shard = this.#loaded.get(this.#partitionOf(groupId))!;
    const held = what.filter(([topic, partition]) => found.offsets.get(topic, partition) !== undefined);
    return new Promise((resolve) =>
      this.#forget(shard, groupId, found.offsets, held, (error) =>
        resolve(error === null ? null : coordinatorError(error)),
      ),
    );
  }

  #expireOffsets(): void {
    const { settings, clock } = this.#options;
    for (const shard of this.#loaded.values()) {
      for (const [id, { group, offsets, commitsInFlight }] of shard.held) {
        // A commit that is under way renews what would be forgotten now.
        if (commitsInFlight > 0) continue;
        const emptySince = group.isEmpty ? group.stateSince : null;
        this.#forget(shard, id, offsets, [...offsets.expired(settings.retentionMs, clock.now(), emptySince)]);
        if (group.state === 'Empty' && group.generation > 0 && offsets.isEmpty)
          this.#forgetGroup(shard, id, group);
      }
    }
  }

  #forget(
    shard: GroupShard,
    group: string,
    offsets: CommittedOffsets,
    what: readonly (readonly [string, number])[],
    done: (error: ErrorName | null) => void = () => {},
  ): void {
    const now = this.#options.clock.now();
    const records = what.map(([topic, partition]) => offsetRecord({ group, topic, partition }, null, now));
    shard.write(records, (error) => {
      if (error === null) for (const [topic, partition] of what) offsets.delete(topic, partition);
      done(error);
    });
  }

  /** Forgets a group without members, with its offsets. @returns why not, null when it is gone */
  async delete(groupId: string): Promise<ErrorName | null> {
    const found = await this.find(groupId, false);
    if (typeof found === 'string') return found;
    const { group, offsets, commitsInFlight } = found;
    if (group.state === 'Dead') return 'GROUP_ID_NOT_FOUND';
    if (group.state !== 'Empty' || commitsInFlight > 0) return 'NON_EMPTY_GROUP';
    const shard = this.#loaded.get(this.#partitionOf(groupId))!;
    const all = [...offsets.topics()].flatMap((topic) =>
      [...offsets.partitions(topic)].map(([partition]) => [topic, partition] as const),
    );
    this.#forget(shard, groupId, offsets, all);
    return new Promise((resolve) =>
      this.#forgetGroup(shard, groupId, group, (error) =>
        resolve(error === null ? null : coordinatorError(error)),
      ),
    );
  }

  #forgetGroup(
    shard: GroupShard,
    id: string,
    group: ClassicGroup,
    done: (error: ErrorName | null) => void = () => {},
  ): void {
    // From here on nobody can join it or commit to it: what came now would be forgotten with it.
    group.state = 'Dead';
    shard.write([groupTombstone(id, this.#options.clock.now())], (error) => {
      if (error === null) shard.held.delete(id);
      else group.state = 'Empty';
      done(error);
    });
  }

  /** A group that was only knocked at leaves nothing behind. */
  #maybeForget({ group, offsets, commitsInFlight }: HeldGroup): void {
    if (!group.isForgettable || !offsets.isEmpty || commitsInFlight > 0) return;
    const shard = this.#loaded.get(this.#partitionOf(group.id));
    if (shard?.held.get(group.id)?.group !== group) return;
    group.state = 'Dead';
    shard.held.delete(group.id);
  }

  // The log behind it ------------------------------------------------------------------------------

  /** The group, or why it cannot be had now. */
  async find(groupId: string, mayCreate: boolean): Promise<HeldGroup | ErrorName> {
    if (this.#isClosed) return 'NOT_COORDINATOR';
    if (groupId === '' || Buffer.byteLength(groupId) > textBytesMax) return 'INVALID_GROUP_ID';
    const { settings, clock } = this.#options;
    const shard = await this.#shard(this.#partitionOf(groupId));
    if (shard === null) return 'COORDINATOR_NOT_AVAILABLE';
    const held = shard.held.get(groupId);
    if (held !== undefined) return held;
    if (!mayCreate) return 'GROUP_ID_NOT_FOUND';
    if (this.groupCount >= groupsMax) return 'COORDINATOR_NOT_AVAILABLE';
    const group = new ClassicGroup(groupId, clock.now(), settings, this.#effects);
    const made = { group, offsets: new CommittedOffsets(), commitsInFlight: 0 };
    shard.held.set(groupId, made);
    return made;
  }

  #partitionOf(groupId: string): number {
    return partitionOf(groupId, this.#options.settings.partitions);
  }

  #shard(index: number): Promise<GroupShard | null> {
    let shard = this.#shards.get(index);
    if (shard === undefined) {
      shard = this.#open(index);
      this.#shards.set(index, shard);
      // A partition that cannot be had now may be had later.
      const forget = (): void => void this.#shards.delete(index);
      void shard.then((opened) => opened ?? this.#options.clock.after(retryAfterMs, forget));
    }
    return shard;
  }

  /** Null when the partition is not led here, or cannot be read: the groups of other partitions go on. */
  async #open(index: number): Promise<GroupShard | null> {
    const { clock, events, settings } = this.#options;
    try {
      const partition = await this.#options.partition(index);
      if (partition === null) return null;
      const shard = new GroupShard(partition, clock);
      await shard.load(settings, this.#effects);
      this.#loaded.set(index, shard);
      this.#loadFailures.delete(index);
      events.emit('groupsLoaded', { partition: index, groups: shard.held.size });
      for (const { group } of shard.held.values()) this.#arm(group);
      return shard;
    } catch (error) {
      // It is tried again as long as somebody asks; one word for each cause is enough.
      const reason = String(error);
      if (this.#loadFailures.get(index) !== reason)
        events.emit('backgroundFailed', { task: `loading the groups of partition ${index}`, error });
      this.#loadFailures.set(index, reason);
      return null;
    }
  }

  /**
   * @param apply what the records mean for the state; it runs when they are committed, in the order of the log
   * @returns null when they are committed, else why not
   */
  async #write(
    groupId: string,
    records: readonly NewRecord[],
    apply: () => void = () => {},
  ): Promise<ErrorName | null> {
    const shard = await this.#shard(this.#partitionOf(groupId));
    if (shard === null) return 'COORDINATOR_NOT_AVAILABLE';
    return new Promise((resolve) =>
      shard.write(records, (error) => {
        if (error === null) apply();
        resolve(error === null ? null : coordinatorError(error));
      }),
    );
  }

  async #persist(
    group: ClassicGroup,
    assignments: ReadonlyMap<string, Buffer>,
    done: (error: ErrorName | null) => void,
  ): Promise<void> {
    // The record is made now: the group may have moved on when the shard is at hand.
    const record = groupRecord(group, assignments, this.#options.clock.now());
    const error = await this.#write(group.id, [record]);
    // Members know no sizes of commits; that the group has outgrown the log they cannot mend.
    done(error === 'INVALID_COMMIT_OFFSET_SIZE' ? 'UNKNOWN_SERVER_ERROR' : error);
    this.#arm(group);
  }

  /** Has the one timer go off at the group's next deadline at the latest. One that goes off early costs little. */
  #arm(group: ClassicGroup): void {
    const at = group.nextDeadline;
    if (this.#isClosed || at === Infinity || (this.#timer !== null && this.#timer.at <= at)) return;
    this.#timer?.timer.cancel();
    const { clock } = this.#options;
    this.#timer = { at, timer: clock.after(Math.max(1, at - clock.now()), () => this.#expire()) };
  }

  #expire(): void {
    this.#timer = null;
    const now = this.#options.clock.now();
    for (const held of this.groups()) {
      if (held.group.nextDeadline <= now) held.group.expire(now);
      this.#maybeForget(held);
      this.#arm(held.group);
    }
  }

  *groups(): Generator<HeldGroup> {
    for (const shard of this.#loaded.values()) yield* shard.held.values();
  }

  get groupCount(): number {
    let count = 0;
    for (const shard of this.#loaded.values()) count += shard.held.size;
    return count;
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.timer.cancel();
    this.#retention.cancel();
    for (const { group } of this.groups()) group.abandon();
  }
}

/** More than a record of the log can hold, in one of its texts or as a whole. */
function isTooLarge({ groupInstanceId, protocolType, protocols }: Request<typeof joinGroup>): boolean {
  const bytes = protocols.reduce((sum, { name, metadata }) => sum + name.length + metadata.length, 0);
  // Room for what is put behind an instance id to make a member id of it.
  const texts = [
    `${groupInstanceId ?? ''}${' '.repeat(64)}`,
    protocolType,
    ...protocols.map(({ name }) => name),
  ];
  return bytes > memberBytesMax || texts.some((text) => Buffer.byteLength(text) > textBytesMax);
}

const unknownMember = (error: ErrorName): ErrorName =>
  error === 'GROUP_ID_NOT_FOUND' ? 'UNKNOWN_MEMBER_ID' : error;

/** What an append's failure means to the client of a coordinator, which knows nothing of partitions. */
function coordinatorError(error: ErrorName): ErrorName {
  switch (error) {
    case 'NOT_LEADER_OR_FOLLOWER':
    case 'KAFKA_STORAGE_ERROR':
      return 'NOT_COORDINATOR';
    case 'MESSAGE_TOO_LARGE':
    case 'RECORD_LIST_TOO_LARGE':
      return 'INVALID_COMMIT_OFFSET_SIZE';
    default:
      return 'COORDINATOR_NOT_AVAILABLE';
  }
}
