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
  type Response,
} from '@rookery/wire';
import { assignRanges, type GroupMember, type TopicPartitions } from './assignor.ts';
import { Backoff } from './backoff.ts';
import type { ClusterView } from './cluster-view.ts';
import type { Body } from './connection.ts';
import { BrokerError, ClientError, isRetriableError } from './errors.ts';
import { sleep, until, within } from './waiting.ts';

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
  /**
   * The member has these partitions until `revoking` or `lost`. When it rejects, the member gives them back.
   * @param signal aborts when the generation is about to end
   */
  assigned(
    generation: Generation,
    partitions: readonly TopicPartitions[],
    signal: AbortSignal,
  ): Promise<void>;
  /** Awaited before the member joins again: finish, commit, let go. Heartbeats go on meanwhile. */
  revoking(generation: Generation): Promise<void>;
  /** The group has given the partitions to others already, perhaps while they were being revoked. */
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
/** How long a member that goes waits for its farewell to be heard. */
const leaveMs = 2_000;

interface Joined {
  readonly generation: Generation;
  readonly assignment: readonly TopicPartitions[];
  /** Of a leader: the topics of the group and how many partitions each had. */
  readonly counts: ReadonlyMap<string, number> | null;
}

/** What a heartbeat tells. */
type Pulse = 'alive' | 'unheard' | 'rebalance' | 'lost';

/**
 * One member of a consumer group of the classic protocol: joins, assigns where it leads, keeps its session, and
 * joins again whenever the group asks for it.
 */
export class Membership {
  readonly #view: ClusterView;
  readonly #options: MembershipOptions;
  readonly #events: MembershipEvents;
  readonly #stopping = new AbortController();
  /** Aborts when the member stops, and when the client closes over its head. */
  readonly #stopped: AbortSignal;
  #memberId = '';
  #generation: Generation | null = null;
  #running: Promise<void> | null = null;
  #lastHeard = 0;
  /** Cuts the wait between two heartbeats short. */
  #wake: () => void = () => {};
  #isOutOfDate = false;
  #fenced: BrokerError | null = null;

  constructor(view: ClusterView, options: MembershipOptions, events: MembershipEvents) {
    this.#view = view;
    this.#options = options;
    this.#events = events;
    this.#stopped = AbortSignal.any([this.#stopping.signal, view.signal]);
    this.#stopped.addEventListener('abort', () => this.#wake());
  }

  get generation(): Generation | null {
    return this.#generation;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** A commit or a fetch of offsets was told that the generation is over: the group is asked what is the matter. */
  suspect(): void {
    this.#wake();
  }

  /** Hands over the partitions and leaves the group. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(50, 1_000);
    while (!this.#stopped.aborted) {
      try {
        await this.#serve(await this.#join());
        backoff.reset();
        if (this.#fenced === null) continue;
        return this.#events.failed(this.#fenced);
      } catch (error) {
        if (this.#stopped.aborted) break;
        const refusal = error instanceof BrokerError ? error.error : null;
        if (refusal === 'FENCED_INSTANCE_ID') return this.#events.failed(error as Error);
        if (refusal === 'UNKNOWN_MEMBER_ID') this.#memberId = '';
        else if (refusal !== 'ILLEGAL_GENERATION' && refusal !== 'REBALANCE_IN_PROGRESS') {
          if (error instanceof ClientError && !isRetriableError(error)) {
            this.#events.failed(error);
            break;
          }
          this.#events.troubled(error as Error);
          this.#view.forgetCoordinator(this.#options.group);
        }
        await sleep(backoff.next(), this.#stopped);
      }
    }
    await this.#leave();
  }

  /** One generation: from its assignment to the end of it. */
  async #serve({ generation, assignment, counts }: Joined): Promise<void> {
    const ending = new AbortController();
    this.#generation = generation;
    this.#lastHeard = performance.now();
    this.#isOutOfDate = false;
    const watch = counts === null ? null : this.#watchTopics(counts);
    let failure: unknown = null;
    const assigning = this.#events.assigned(generation, assignment, ending.signal).catch((error: unknown) => {
      if (ending.signal.aborted) return;
      failure = error;
      this.#isOutOfDate = true;
      this.#wake();
    });
    const end = await this.#keepAlive(generation);
    ending.abort();
    watch?.stop();
    if (end === 'lost') {
      this.#generation = null;
      this.#events.lost(generation);
      await assigning;
    } else {
      await assigning;
      await this.#revoke(generation);
    }
    if (failure !== null) throw failure as Error;
  }

  /** Lets the owner finish, alive in the group for as long as that takes. */
  async #revoke(generation: Generation): Promise<void> {
    const done = new AbortController();
    const revoking = this.#events
      .revoking(generation)
      .catch((error: unknown) => this.#events.troubled(error as Error))
      .finally(() => {
        done.abort();
        this.#wake();
      });
    while (!done.signal.aborted) {
      await this.#pause();
      if (done.signal.aborted) break;
      // That the group rebalances is known; only the loss of the membership is news.
      if ((await this.#heartbeat(generation, done.signal)) !== 'lost' && this.#isHeard) continue;
      this.#generation = null;
      this.#events.lost(generation);
      break;
    }
    await revoking;
    this.#generation = null;
  }

  /** Heartbeats until the generation ends. */
  async #keepAlive(generation: Generation): Promise<'rebalance' | 'lost'> {
    for (;;) {
      if (!this.#stopped.aborted && !this.#isOutOfDate) await this.#pause();
      if (this.#stopped.aborted || this.#isOutOfDate) return 'rebalance';
      const heard = await this.#heartbeat(generation, this.#stopped);
      if (heard === 'rebalance' || heard === 'lost') return heard;
      // Whoever was not heard for a session has lost its partitions, whether or not it was told.
      if (!this.#isHeard) return 'lost';
    }
  }

  get #isHeard(): boolean {
    return performance.now() - this.#lastHeard < this.#options.sessionTimeoutMs;
  }

  /** Until the next heartbeat is due, or somebody cannot wait for it. */
  async #pause(): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await sleep(this.#options.heartbeatMs, woken.signal);
  }

  async #heartbeat({ id, memberId }: Generation, signal: AbortSignal): Promise<Pulse> {
    const { group, instanceId, sessionTimeoutMs } = this.#options;
    const leftMs = Math.max(1, Math.ceil(this.#lastHeard + sessionTimeoutMs - performance.now()));
    const body = { groupId: group, generationId: id, memberId, groupInstanceId: instanceId };
    try {
      const { errorCode } = await within(leftMs, signal, (inTime) => this.#ask(heartbeat, body, inTime));
      const error = errorName(errorCode);
      switch (error) {
        case 'NONE':
          this.#lastHeard = performance.now();
          return 'alive';
        case 'REBALANCE_IN_PROGRESS':
          this.#lastHeard = performance.now();
          return 'rebalance';
        case 'UNKNOWN_MEMBER_ID':
          this.#memberId = '';
          return 'lost';
        case 'ILLEGAL_GENERATION':
          // The group still knows this member: under another name it would have to wait for itself.
          return 'lost';
        case 'FENCED_INSTANCE_ID':
          // Another process has our name. To join again would fence that one in turn, for ever.
          this.#fenced = new BrokerError(error, `instance '${instanceId}' of group '${group}'`);
          return 'lost';
        default:
          this.#view.forgetCoordinator(group);
          this.#events.troubled(new BrokerError(error, `Heartbeat of group '${group}'`));
          return 'unheard';
      }
    } catch (error) {
      if (!signal.aborted && error instanceof ClientError) this.#events.troubled(error);
      return 'unheard';
    }
  }

  async #join(): Promise<Joined> {
    const { group, instanceId } = this.#options;
    let joined = await this.#askToJoin();
    if (joined.errorCode === ErrorCode.MEMBER_ID_REQUIRED) {
      this.#memberId = joined.memberId;
      joined = await this.#askToJoin();
    }
    check(joined.errorCode, `JoinGroup of group '${group}'`);
    this.#memberId = joined.memberId;
    const plan = joined.leader === joined.memberId ? await this.#plan(joined) : null;
    // A leader that came back under its instance id may be told to leave the assignment as it is.
    const assignments = joined.skipAssignment === true ? [] : (plan?.assignments ?? []);
    const synced = await this.#ask(
      syncGroup,
      {
        groupId: group,
        generationId: joined.generationId,
        memberId: joined.memberId,
        groupInstanceId: instanceId,
        protocolType,
        protocolName: joined.protocolName ?? protocolName,
        assignments,
      },
      this.#stopped,
      this.#options.rebalanceTimeoutMs + requestSlackMs,
    );
    check(synced.errorCode, `SyncGroup of group '${group}'`);
    return {
      generation: { id: joined.generationId, memberId: joined.memberId, instanceId },
      assignment: readAssignment(synced.assignment),
      counts: plan?.counts ?? null,
    };
  }

  #askToJoin(): Promise<Response<typeof joinGroup>> {
    const { group, topics, instanceId, sessionTimeoutMs, rebalanceTimeoutMs } = this.#options;
    const metadata = versioned(
      subscriptionVersion,
      encodeMessage(consumerProtocolSubscription, subscriptionVersion, { topics, ownedPartitions: [] }),
    );
    return this.#ask(
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
      this.#stopped,
      rebalanceTimeoutMs + requestSlackMs,
    );
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
    await this.#view.refresh(this.#stopped);
    return new Map([...topics].map((name) => [name, this.#view.topic(name)?.partitions.length ?? 0]));
  }

  /** Asks for a rebalance when topics have other partitions than they were assigned with. */
  #watchTopics(counts: ReadonlyMap<string, number>): { stop(): void } {
    const isMissing = [...counts.values()].includes(0);
    let isOver = false;
    let timer: NodeJS.Timeout;
    const look = async (): Promise<void> => {
      try {
        const now = await this.#countPartitions(new Set(counts.keys()));
        if (isOver) return;
        if ([...now].some(([topic, count]) => count !== counts.get(topic))) {
          this.#isOutOfDate = true;
          return this.#wake();
        }
      } catch {
        // The next look will see it.
      }
      if (!isOver) arm();
    };
    const arm = (): void => {
      timer = setTimeout(() => void look(), isMissing ? watchMissingMs : watchMs);
    };
    arm();
    return {
      stop() {
        isOver = true;
        clearTimeout(timer);
      },
    };
  }

  async #leave(): Promise<void> {
    const memberId = this.#memberId;
    const { group, instanceId, purpose } = this.#options;
    // A join that was given up may still hold the connection; the farewell must not wait behind it.
    this.#view.release(purpose);
    // A static member leaves nothing behind but its name: it is coming back.
    if (memberId === '' || instanceId !== null || this.#view.signal.aborted) return;
    this.#memberId = '';
    const body: Body<typeof leaveGroup> = (version) =>
      version >= 3
        ? { groupId: group, members: [{ memberId, groupInstanceId: null, reason: 'the consumer closes' }] }
        : { groupId: group, memberId };
    try {
      await within(leaveMs, this.#view.signal, (inTime) => this.#ask(leaveGroup, body, inTime));
    } catch {
      // The session will run out instead.
    }
  }

  async #ask<A extends Api>(
    api: A,
    body: Body<A>,
    signal: AbortSignal,
    timeoutMs?: number,
  ): Promise<Response<A>> {
    const coordinator = await this.#view.coordinator(this.#options.group, this.#options.purpose, signal);
    return until(coordinator.request(api, body, timeoutMs === undefined ? {} : { timeoutMs }), signal);
  }
}

function check(errorCode: number, what: string): void {
  if (errorCode !== 0) throw new BrokerError(errorName(errorCode), what);
}

function versioned(version: number, body: Buffer): Buffer {
  const bytes = Buffer.alloc(2 + body.length);
  bytes.writeInt16BE(version, 0);
  body.copy(bytes, 2);
  return bytes;
}

/** What a member reads; nothing where it cannot be read, for one bad member must not stop the whole group. */
function readTopics(metadata: Buffer): string[] {
  try {
    const version = Math.min(metadata.readInt16BE(0), 3);
    return decodeMessage(consumerProtocolSubscription, version, metadata.subarray(2), 'allow').topics;
  } catch {
    return [];
  }
}

export function readAssignment(bytes: Buffer): TopicPartitions[] {
  if (bytes.length === 0) return [];
  const version = Math.min(bytes.readInt16BE(0), 3);
  return decodeMessage(consumerProtocolAssignment, version, bytes.subarray(2), 'allow').assignedPartitions;
}
