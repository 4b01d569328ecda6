import {
  consumerProtocolAssignment,
  consumerProtocolSubscription,
  decodeMessage,
  encodeMessage,
  ErrorCode,
  errorName,
  heartbeat,
  joinGroup,
  leaveGroup,
  syncGroup,
  type Api,
  type ErrorName,
  type Response,
} from '@rookery/wire';
import { assignRanges, type GroupMember, type TopicPartitions } from './assignor.ts';
import { Backoff, sleep } from './backoff.ts';
import type { ClusterView } from './cluster-view.ts';
import type { Body } from './connection.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';

export interface MembershipOptions {
  /** Names the connection that only this member uses. */
  readonly purpose: string;
  readonly group: string;
  readonly topics: readonly string[];
  /** A name that survives restarts: a member that comes back under it within its session keeps its partitions. */
  readonly instanceId: string | null;
  readonly sessionTimeoutMs: number;
  /** How long the others wait for this member to hand over its partitions. */
  readonly rebalanceTimeoutMs: number;
  readonly heartbeatMs: number;
}

/** Who this member is in its group, as commits must say it. */
export interface Generation {
  readonly id: number;
  readonly memberId: string;
  readonly instanceId: string | null;
}

export interface MembershipEvents {
  /** The member has these partitions until `revoking` or `lost`. */
  assigned(generation: Generation, partitions: readonly TopicPartitions[]): Promise<void>;
  /** Awaited before the member joins again: finish, commit, let go. Heartbeats go on meanwhile. */
  revoking(generation: Generation): Promise<void>;
  /** The group has given the partitions to others already; nothing can be committed any more. */
  lost(generation: Generation): void;
  /** Something went wrong that is tried again. */
  troubled(error: Error): void;
  /** It cannot go on: another process has this instance id, or the group refuses us. */
  failed(error: Error): void;
}

const protocolType = 'consumer';
const protocolName = 'range';
const subscriptionVersion = 1;
const assignmentVersion = 1;
/** How often the leader looks whether a topic has more partitions than it assigned. */
const watchMs = 30_000;
/** The same while a topic is not there yet. */
const watchMissingMs = 1_000;
const requestSlackMs = 5_000;

/** Why a generation is over. */
type End = 'rebalance' | 'lost' | 'stopped';

/**
 * One member of a consumer group of the classic protocol: joins, assigns where it leads, keeps its session, and
 * joins again whenever the group asks for it.
 */
export class Membership {
  readonly #view: ClusterView;
  readonly #options: MembershipOptions;
  readonly #events: MembershipEvents;
  readonly #stopping = new AbortController();
  #memberId = '';
  #generation: Generation | null = null;
  #running: Promise<void> | null = null;
  /** Cuts the wait between two heartbeats short. */
  #wake = new AbortController();
  #isOutOfDate = false;
  #fenced: BrokerError | null = null;

  constructor(view: ClusterView, options: MembershipOptions, events: MembershipEvents) {
    this.#view = view;
    this.#options = options;
    this.#events = events;
  }

  get generation(): Generation | null {
    return this.#generation;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** A commit or a fetch of offsets was told that the generation is over: the group is asked what is the matter. */
  suspect(): void {
    this.#wake.abort();
  }

  /** Hands over the partitions and leaves the group. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(50, 1_000);
    while (!this.#isStopped) {
      try {
        const { generation, assignment, watched } = await this.#join();
        this.#generation = generation;
        backoff.reset();
        await this.#serve(generation, assignment, watched);
        if (this.#fenced !== null) return this.#events.failed(this.#fenced);
      } catch (error) {
        if (this.#isStopped) break;
        if (!this.#mayTryAgain(error as Error)) {
          this.#events.failed(error as Error);
          return;
        }
        this.#events.troubled(error as Error);
        this.#view.forgetCoordinator(this.#options.group);
        await sleep(backoff.next(), this.#stopping.signal);
      }
    }
    await this.#leave();
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted || this.#view.signal.aborted;
  }

  #mayTryAgain(error: Error): boolean {
    if (
      error instanceof BrokerError &&
      (error.error === 'UNKNOWN_MEMBER_ID' || error.error === 'ILLEGAL_GENERATION')
    ) {
      this.#memberId = '';
      return true;
    }
    if (error instanceof BrokerError && error.error === 'REBALANCE_IN_PROGRESS') return true;
    return isRetriableError(error) || !(error instanceof ClientError);
  }

  /** One generation: from its assignment to the end of it. */
  async #serve(
    generation: Generation,
    assignment: readonly TopicPartitions[],
    watched: ReadonlyMap<string, number> | null,
  ): Promise<void> {
    const watch = watched === null ? null : this.#watchTopics(watched);
    const assigning = this.#events.assigned(generation, assignment);
    const end = await this.#keepAlive(generation);
    clearTimeout(watch?.timer);
    if (watch !== null) watch.isOver = true;
    await assigning;
    if (end === 'lost') {
      this.#events.lost(generation);
      this.#generation = null;
      return;
    }
    await this.#revoke(generation);
  }

  /** Lets the owner finish, alive in the group for as long as that takes. */
  async #revoke(generation: Generation): Promise<void> {
    let isLost = false;
    let isDone = false;
    const beat = async (): Promise<void> => {
      while (!isDone && !isLost) {
        await sleep(this.#options.heartbeatMs, this.#wake.signal);
        if (!isDone) isLost = (await this.#heartbeat(generation)) === 'lost';
      }
    };
    this.#wake = new AbortController();
    const beating = beat();
    await this.#events.revoking(generation);
    isDone = true;
    this.#wake.abort();
    await beating;
    this.#generation = null;
  }

  /** Heartbeats until the generation ends. */
  async #keepAlive(generation: Generation): Promise<End> {
    let lastHeard = performance.now();
    for (;;) {
      this.#wake = new AbortController();
      if (!this.#isStopped && !this.#isOutOfDate) await sleep(this.#options.heartbeatMs, this.#wake.signal);
      if (this.#isStopped) return 'stopped';
      if (this.#isOutOfDate) {
        this.#isOutOfDate = false;
        return 'rebalance';
      }
      const heard = await this.#heartbeat(generation);
      if (heard === 'alive') lastHeard = performance.now();
      else if (heard !== 'unheard') return heard;
      // Whoever was not heard for a session has lost its partitions, whether or not it was told.
      else if (performance.now() - lastHeard > this.#options.sessionTimeoutMs) return 'lost';
    }
  }

  async #heartbeat({ id, memberId }: Generation): Promise<'alive' | 'unheard' | 'rebalance' | 'lost'> {
    const { group, instanceId } = this.#options;
    try {
      const { errorCode } = await this.#ask(heartbeat, {
        groupId: group,
        generationId: id,
        memberId,
        groupInstanceId: instanceId,
      });
      switch (errorName(errorCode)) {
        case 'NONE':
          return 'alive';
        case 'REBALANCE_IN_PROGRESS':
          return 'rebalance';
        case 'UNKNOWN_MEMBER_ID':
        case 'ILLEGAL_GENERATION':
          this.#memberId = '';
          return 'lost';
        case 'FENCED_INSTANCE_ID':
          // Another process has our name. To join again would fence that one in turn, for ever.
          this.#fenced = new BrokerError(
            'FENCED_INSTANCE_ID',
            `instance '${instanceId}' of group '${group}'`,
          );
          return 'lost';
        default:
          this.#view.forgetCoordinator(group);
          return 'unheard';
      }
    } catch (error) {
      this.#events.troubled(error as Error);
      return 'unheard';
    }
  }

  async #join(): Promise<{
    generation: Generation;
    assignment: readonly TopicPartitions[];
    watched: ReadonlyMap<string, number> | null;
  }> {
    const { group, topics, instanceId, sessionTimeoutMs, rebalanceTimeoutMs } = this.#options;
    const metadata = versioned(
      subscriptionVersion,
      encodeMessage(consumerProtocolSubscription, subscriptionVersion, { topics, ownedPartitions: [] }),
    );
    const joined = await this.#ask(
      joinGroup,
      {
        groupId: group,
        sessionTimeoutMs,
        rebalanceTimeoutMs,
        memberId: this.#memberId,
        groupInstanceId: instanceId,
        protocolType,
        protocols: [{ name: protocolName, metadata }],
      },
      rebalanceTimeoutMs + requestSlackMs,
    );
    if (joined.errorCode === ErrorCode.MEMBER_ID_REQUIRED) {
      this.#memberId = joined.memberId;
      return this.#join();
    }
    this.#check(joined.errorCode, 'JoinGroup');
    this.#memberId = joined.memberId;
    const isLeader = joined.leader === joined.memberId;
    // A leader that came back under its instance id may be told to leave the assignment as it is.
    const plan = isLeader && joined.skipAssignment !== true ? await this.#plan(joined) : null;
    const synced = await this.#ask(
      syncGroup,
      {
        groupId: group,
        generationId: joined.generationId,
        memberId: joined.memberId,
        groupInstanceId: instanceId,
        protocolType,
        protocolName: joined.protocolName ?? protocolName,
        assignments: plan?.assignments ?? [],
      },
      rebalanceTimeoutMs + requestSlackMs,
    );
    this.#check(synced.errorCode, 'SyncGroup');
    return {
      generation: { id: joined.generationId, memberId: joined.memberId, instanceId },
      assignment: readAssignment(synced.assignment),
      watched: plan?.counts ?? null,
    };
  }

  /** The leader's work: who gets what. */
  async #plan({ members }: Response<typeof joinGroup>): Promise<{
    assignments: { memberId: string; assignment: Buffer }[];
    counts: ReadonlyMap<string, number>;
  }> {
    const subscribed = members.map(({ memberId, groupInstanceId, metadata }): GroupMember => ({
      id: memberId,
      instanceId: groupInstanceId ?? null,
      topics: readTopics(metadata),
    }));
    const counts = await this.#countPartitions(new Set(subscribed.flatMap(({ topics }) => topics)));
    const ranges = assignRanges(subscribed, counts);
    const assignments = [...ranges].map(([memberId, assignedPartitions]) => ({
      memberId,
      assignment: versioned(
        assignmentVersion,
        encodeMessage(consumerProtocolAssignment, assignmentVersion, { assignedPartitions }),
      ),
    }));
    return { assignments, counts };
  }

  /** Partitions of each topic now; 0 for a topic that is not there. */
  async #countPartitions(topics: ReadonlySet<string>): Promise<Map<string, number>> {
    this.#view.want(topics);
    await this.#view.refresh(this.#stopping.signal);
    return new Map([...topics].map((name) => [name, this.#view.topic(name)?.partitions.length ?? 0]));
  }

  /** Asks for a rebalance when topics have other partitions than they were assigned with. */
  #watchTopics(counts: ReadonlyMap<string, number>): { timer?: NodeJS.Timeout; isOver: boolean } {
    const state: { timer?: NodeJS.Timeout; isOver: boolean } = { isOver: false };
    const isMissing = [...counts.values()].includes(0);
    const look = async (): Promise<void> => {
      try {
        const now = await this.#countPartitions(new Set(counts.keys()));
        if (state.isOver) return;
        if ([...now].some(([topic, count]) => count !== counts.get(topic))) {
          this.#isOutOfDate = true;
          return this.#wake.abort();
        }
      } catch {
        // The next look will see it.
      }
      if (!state.isOver) arm();
    };
    const arm = (): void => {
      state.timer = setTimeout(() => void look(), isMissing ? watchMissingMs : watchMs);
    };
    arm();
    return state;
  }

  async #leave(): Promise<void> {
    const memberId = this.#memberId;
    const { group, instanceId } = this.#options;
    // A static member leaves nothing behind but its name: it is coming back.
    if (memberId === '' || instanceId !== null || this.#view.signal.aborted) return;
    this.#memberId = '';
    try {
      await this.#ask(leaveGroup, (version) =>
        version >= 3
          ? { groupId: group, members: [{ memberId, groupInstanceId: null, reason: 'the consumer closes' }] }
          : { groupId: group, memberId },
      );
    } catch {
      // The session will run out instead.
    }
  }

  async #ask<A extends Api>(api: A, body: Body<A>, timeoutMs?: number): Promise<Response<A>> {
    const coordinator = await this.#view.coordinator(this.#options.group, this.#options.purpose);
    return coordinator.request(api, body, timeoutMs === undefined ? {} : { timeoutMs });
  }

  #check(errorCode: number, what: string): void {
    if (errorCode === 0) return;
    const error: ErrorName = errorName(errorCode);
    throw new BrokerError(error, `${what} of group '${this.#options.group}'`);
  }
}

function versioned(version: number, body: Buffer): Buffer {
  const bytes = Buffer.alloc(2 + body.length);
  bytes.writeInt16BE(version, 0);
  body.copy(bytes, 2);
  return bytes;
}

function readTopics(metadata: Buffer): string[] {
  const version = Math.min(metadata.readInt16BE(0), 3);
  return decodeMessage(consumerProtocolSubscription, version, metadata.subarray(2), 'allow').topics;
}

function readAssignment(bytes: Buffer): TopicPartitions[] {
  if (bytes.length === 0) return [];
  const version = Math.min(bytes.readInt16BE(0), 3);
  return decodeMessage(consumerProtocolAssignment, version, bytes.subarray(2), 'allow').assignedPartitions;
}
