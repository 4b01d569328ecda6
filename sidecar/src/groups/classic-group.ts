import type { ErrorName } from '@rookery/wire';
import { joinRefused, syncRefused, type Answer, type JoinAnswer, type SyncAnswer } from './group-answers.ts';
import { isAlive, sameProtocols, type Member, type Protocol } from './group-member.ts';

/**
 * One group of the classic protocol as a state machine: events come in with the time, answers and a request to
 * persist go out. It holds no timers; `nextDeadline` says when `expire` wants to be called.
 *
 *   Empty ──join──▶ PreparingRebalance ──all joined──▶ CompletingRebalance ──leader's sync, persisted──▶ Stable
 *     ▲                  ▲   │ nobody left                  │ join, leave, expiry                        │
 *     └──────────────────┼───┘                              │                                            │
 *                        └──────────────────────────────────┴────────────────────────────────────────────┘
 */
export type GroupState = 'Empty' | 'PreparingRebalance' | 'CompletingRebalance' | 'Stable' | 'Dead';

export interface GroupRules {
  readonly sizeMax: number;
  readonly initialDelayMs: number;
}

export interface GroupEffects {
  /**
   * Makes the group as it is about to be durable, then tells how it went.
   * @param assignments by member id; null for an empty group
   */
  persist(
    group: ClassicGroup,
    assignments: ReadonlyMap<string, Buffer>,
    done: (error: ErrorName | null) => void,
  ): void;
  newMemberId(clientId: string): string;
  rebalanced(group: ClassicGroup, reason: string): void;
  expired(group: ClassicGroup, memberId: string): void;
}

export interface JoinRequest {
  readonly memberId: string;
  readonly instanceId: string | null;
  readonly clientId: string;
  readonly clientHost: string;
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly protocolType: string;
  readonly protocols: readonly Protocol[];
  /** The member knows that it may be told an id and must come again with it. */
  readonly takesMemberId: boolean;
  /** The leader understands that it need not assign. */
  readonly maySkipAssignment: boolean;
}

interface Identity {
  readonly memberId: string;
  readonly instanceId: string | null;
}

const noAssignment = Buffer.alloc(0);

/** Member ids that were given and have not come back; beyond them the oldest is given up. */
const pendingMax = 10_000;

export class ClassicGroup {
  readonly id: string;
  state: GroupState = 'Empty';
  generation = 0;
  protocolType: string | null = null;
  protocol: string | null = null;
  leader: string | null = null;
  readonly members = new Map<string, Member>();
  /** When the state was last changed; from it offsets of an empty group expire. */
  stateSince: number;
  readonly #rules: GroupRules;
  readonly #effects: GroupEffects;
  /** Ids that were given and have not come back yet, with when they are given up. */
  readonly #pending = new Map<string, number>();
  readonly #staticIds = new Map<string, string>();
  /** PreparingRebalance ends then at the latest. */
  #joinUntil = Infinity;
  /** PreparingRebalance does not end before: more members may be starting up. */
  #joinNotBefore = 0;
  /** Members that have not asked for their assignment by then are let go, whoever else is content. */
  #syncUntil = Infinity;

  constructor(id: string, now: number, rules: GroupRules, effects: GroupEffects) {
    this.id = id;
    this.stateSince = now;
    this.#rules = rules;
    this.#effects = effects;
  }

  /** A member as the log has it, while the group is loaded. */
  restore(member: Member): void {
    this.members.set(member.id, member);
    if (member.instanceId !== null) this.#staticIds.set(member.instanceId, member.id);
  }

  get isEmpty(): boolean {
    return this.members.size === 0;
  }

  // Joining ----------------------------------------------------------------------------------------

  join(request: JoinRequest, now: number, answer: Answer<JoinAnswer>): void {
    const refuse = (error: ErrorName): void => answer(joinRefused(error, request.memberId));
    if (this.state === 'Dead') return refuse('COORDINATOR_NOT_AVAILABLE');
    if (!this.#fits(request)) return refuse('INCONSISTENT_GROUP_PROTOCOL');
    if (request.memberId === '') return this.#joinUnknown(request, now, answer);
    // The place was counted when the id was given.
    if (this.#pending.delete(request.memberId)) {
      return this.#add(request, request.memberId, now, answer);
    }
    const problem = this.#identityProblem(request);
    if (problem !== null) return refuse(problem);
    this.#rejoin(this.members.get(request.memberId)!, request, now, answer);
  }

  /** A member without an id: it is told one, takes over its static place, or is let in at once. */
  #joinUnknown(request: JoinRequest, now: number, answer: Answer<JoinAnswer>): void {
    const previous = request.instanceId === null ? undefined : this.#staticIds.get(request.instanceId);
    if (previous !== undefined) return this.#replaceStatic(this.members.get(previous)!, request, now, answer);
    if (this.#isFull()) return answer(joinRefused('GROUP_MAX_SIZE_REACHED', ''));
    const memberId = this.#effects.newMemberId(request.instanceId ?? request.clientId);
    if (request.instanceId === null && request.takesMemberId) {
      // Without this round trip every lost answer would leave a ghost in the group until its session ends.
      if (this.#pending.size === pendingMax) this.#pending.delete(this.#pending.keys().next().value!);
      this.#pending.set(memberId, now + request.sessionTimeoutMs);
      return answer(joinRefused('MEMBER_ID_REQUIRED', memberId));
    }
    this.#add(request, memberId, now, answer);
  }

  #add(request: JoinRequest, id: string, now: number, answer: Answer<JoinAnswer>): void {
    const member: Member = {
      id,
      instanceId: request.instanceId,
      assignment: noAssignment,
      awaitsSync: null,
      hasSynced: false,
      ...this.#told(request, now, answer),
    };
    this.members.set(id, member);
    if (member.instanceId !== null) this.#staticIds.set(member.instanceId, id);
    if (this.members.size === 1) this.protocolType = request.protocolType;
    // Whoever starts up now is seldom alone: the first generation waits as long again for the next.
    if (this.state === 'PreparingRebalance' && now < this.#joinNotBefore)
      this.#joinNotBefore = Math.min(now + this.#rules.initialDelayMs, this.#joinUntil);
    this.#prepareRebalance(`${id} joins`, now);
  }

  #told(request: JoinRequest, now: number, answer: Answer<JoinAnswer>) {
    const { clientId, clientHost, sessionTimeoutMs, rebalanceTimeoutMs, protocols } = request;
    const sessionEndsAt = now + sessionTimeoutMs;
    return {
      clientId,
      clientHost,
      sessionTimeoutMs,
      rebalanceTimeoutMs,
      protocols,
      sessionEndsAt,
      awaitsJoin: answer,
    };
  }

  /** A static member is back under a new id. If nothing has changed, the others need not notice. */
  #replaceStatic(old: Member, request: JoinRequest, now: number, answer: Answer<JoinAnswer>): void {
    const id = this.#effects.newMemberId(request.instanceId!);
    old.awaitsJoin?.(joinRefused('FENCED_INSTANCE_ID', old.id));
    old.awaitsSync?.(syncRefused('FENCED_INSTANCE_ID'));
    const unchanged = sameProtocols(old.protocols, request.protocols);
    this.members.delete(old.id);
    const member: Member = { ...old, id, awaitsSync: null, ...this.#told(request, now, answer) };
    this.members.set(id, member);
    this.#staticIds.set(request.instanceId!, id);
    const wasLeader = this.leader === old.id;
    if (wasLeader) this.leader = id;
    if (this.state !== 'Stable' || !unchanged) return this.#prepareRebalance(`${id} replaces ${old.id}`, now);
    // The new id must be known after a restart too, or the member would be unknown there.
    const { generation } = this;
    const assignments = new Map([...this.members.values()].map((each) => [each.id, each.assignment]));
    this.#effects.persist(this, assignments, (error) => {
      if (member.awaitsJoin !== answer) return;
      member.awaitsJoin = null;
      if (error !== null) return answer(joinRefused(error, id));
      if (this.generation !== generation || this.state !== 'Stable')
        return answer(joinRefused('REBALANCE_IN_PROGRESS', id));
      answer(this.#replaced(member, old.id, wasLeader, request.maySkipAssignment));
    });
  }

  /** A leader that does not know how to skip the assignment is told that its old self leads: so it makes none. */
  #replaced(member: Member, oldId: string, wasLeader: boolean, maySkipAssignment: boolean): JoinAnswer {
    const joined = this.#joined(member, wasLeader && maySkipAssignment);
    return wasLeader && !maySkipAssignment ? { ...joined, leader: oldId, members: [] } : joined;
  }

  #rejoin(member: Member, request: JoinRequest, now: number, answer: Answer<JoinAnswer>): void {
    const unchanged = sameProtocols(member.protocols, request.protocols);
    const isCurrent =
      (this.state === 'CompletingRebalance' && unchanged) ||
      (this.state === 'Stable' && unchanged && member.id !== this.leader);
    member.awaitsJoin?.(joinRefused('REBALANCE_IN_PROGRESS', member.id));
    Object.assign(member, this.#told(request, now, answer));
    if (isCurrent) {
      // The member has lost our answer, or asks out of caution: it gets it again.
      member.awaitsJoin = null;
      return answer(this.#joined(member, false));
    }
    if (this.state === 'PreparingRebalance') return this.#maybeCompleteJoin(now);
    this.#prepareRebalance(`${member.id} rejoins`, now);
  }

  #fits({ protocolType, protocols }: JoinRequest): boolean {
    if (protocolType === '' || protocols.length === 0) return false;
    if (this.isEmpty) return true;
    const common = this.#commonProtocols();
    return protocolType === this.protocolType && protocols.some(({ name }) => common.has(name));
  }

  #isFull(): boolean {
    return this.members.size + this.#pending.size >= this.#rules.sizeMax;
  }

  #prepareRebalance(reason: string, now: number): void {
    const wasEmpty = this.state === 'Empty';
    this.#refuseSyncs('REBALANCE_IN_PROGRESS', now);
    if (this.state !== 'PreparingRebalance') {
      this.#enter('PreparingRebalance', now);
      this.#joinUntil = now + this.#longestRebalance();
      this.#joinNotBefore = wasEmpty
        ? now + Math.min(this.#rules.initialDelayMs, this.#longestRebalance())
        : now;
      this.#effects.rebalanced(this, reason);
    }
    this.#maybeCompleteJoin(now);
  }

  #longestRebalance(): number {
    return Math.max(0, ...[...this.members.values()].map(({ rebalanceTimeoutMs }) => rebalanceTimeoutMs));
  }

  #maybeCompleteJoin(now: number): void {
    if (this.state !== 'PreparingRebalance' || now < this.#joinNotBefore) return;
    const allJoined = [...this.members.values()].every(({ awaitsJoin }) => awaitsJoin !== null);
    if ((allJoined && this.#pending.size === 0) || now >= this.#joinUntil) this.#completeJoin(now);
  }

  /** The next generation: whoever has joined. Static members keep their place until their session ends. */
  #completeJoin(now: number): void {
    for (const member of [...this.members.values()]) {
      if (member.awaitsJoin === null && member.instanceId === null) this.#forget(member);
    }
    const joined = [...this.members.values()].filter(({ awaitsJoin }) => awaitsJoin !== null);
    if (joined.length === 0 && !this.isEmpty) {
      // Only static members that are silent: nobody could lead yet.
      this.#joinUntil = now + this.#longestRebalance();
      return;
    }
    this.generation++;
    if (this.isEmpty) return this.#becomeEmpty(now);
    if (!joined.some(({ id }) => id === this.leader)) this.leader = joined[0]!.id;
    this.protocol = this.#electProtocol();
    this.#enter('CompletingRebalance', now);
    this.#syncUntil = now + this.#longestRebalance();
    for (const member of joined) {
      member.sessionEndsAt = now + member.sessionTimeoutMs;
      const answer = member.awaitsJoin!;
      member.awaitsJoin = null;
      member.hasSynced = false;
      answer(this.#joined(member, false));
    }
  }

  #becomeEmpty(now: number): void {
    this.protocol = null;
    this.leader = null;
    this.#enter('Empty', now);
    this.#effects.persist(this, new Map(), () => {});
  }

  #joined(member: Member, skipAssignment: boolean): JoinAnswer {
    const members = [...this.members.values()].map(({ id, instanceId, protocols }) => ({
      id,
      instanceId,
      metadata: protocols.find(({ name }) => name === this.protocol)?.metadata ?? noAssignment,
    }));
    return {
      error: 'NONE',
      generation: this.generation,
      protocolType: this.protocolType,
      protocol: this.protocol,
      leader: this.leader ?? '',
      memberId: member.id,
      skipAssignment,
      members: member.id === this.leader ? members : [],
    };
  }

  #commonProtocols(): Set<string> {
    const [first, ...others] = [...this.members.values()].map(({ protocols }) =>
      protocols.map(({ name }) => name),
    );
    return new Set((first ?? []).filter((name) => others.every((names) => names.includes(name))));
  }

  /** Each member votes for the first of its protocols that all have. */
  #electProtocol(): string {
    const common = this.#commonProtocols();
    const votes = new Map<string, number>();
    for (const { protocols } of this.members.values()) {
      const vote = protocols.find(({ name }) => common.has(name))!.name;
      votes.set(vote, (votes.get(vote) ?? 0) + 1);
    }
    return [...votes].reduce((best, next) => (next[1] > best[1] ? next : best))[0];
  }

  // Syncing ----------------------------------------------------------------------------------------

  sync(
    request: Identity & {
      generation: number;
      protocolType: string | null;
      protocol: string | null;
      assignments: ReadonlyMap<string, Buffer>;
    },
    now: number,
    answer: Answer<SyncAnswer>,
  ): void {
    const problem = this.#identityProblem(request) ?? this.#syncProblem(request);
    if (problem !== null) return answer(syncRefused(problem));
    const member = this.members.get(request.memberId)!;
    member.sessionEndsAt = now + member.sessionTimeoutMs;
    member.hasSynced = true;
    if (this.state === 'Stable') return answer(this.#synced(member));
    if (this.state === 'PreparingRebalance') return answer(syncRefused('REBALANCE_IN_PROGRESS'));
    member.awaitsSync?.(syncRefused('REBALANCE_IN_PROGRESS'));
    member.awaitsSync = answer;
    if (member.id === this.leader) this.#assign(request.assignments, now);
  }

  #syncProblem(request: {
    generation: number;
    protocolType: string | null;
    protocol: string | null;
  }): ErrorName | null {
    if (request.generation !== this.generation) return 'ILLEGAL_GENERATION';
    const sameType = request.protocolType === null || request.protocolType === this.protocolType;
    const sameName = request.protocol === null || request.protocol === this.protocol;
    if (!sameType || !sameName) return 'INCONSISTENT_GROUP_PROTOCOL';
    return this.state === 'Empty' || this.state === 'Dead' ? 'UNKNOWN_MEMBER_ID' : null;
  }

  /** The leader has decided. Nobody is told before it is durable: a restart must not forget it. */
  #assign(given: ReadonlyMap<string, Buffer>, now: number): void {
    const { generation } = this;
    const assignments = new Map([...this.members.keys()].map((id) => [id, given.get(id) ?? noAssignment]));
    this.#effects.persist(this, assignments, (error) => {
      if (this.state !== 'CompletingRebalance' || this.generation !== generation) return;
      if (error !== null) {
        this.#refuseSyncs(error, now);
        return this.#prepareRebalance(`the assignment could not be kept: ${error}`, now);
      }
      this.#enter('Stable', now);
      for (const member of this.members.values()) {
        member.assignment = assignments.get(member.id) ?? noAssignment;
        if (member.awaitsSync !== null) member.sessionEndsAt = now + member.sessionTimeoutMs;
        const waiting = member.awaitsSync;
        member.awaitsSync = null;
        waiting?.(this.#synced(member));
      }
    });
  }

  /** Whoever waited was alive all the while, however long the leader took: the session begins anew. */
  #refuseSyncs(error: ErrorName, now: number): void {
    for (const member of this.members.values()) {
      if (member.awaitsSync === null) continue;
      member.sessionEndsAt = now + member.sessionTimeoutMs;
      member.awaitsSync(syncRefused(error));
      member.awaitsSync = null;
    }
  }

  #synced = (member: Member): SyncAnswer => ({
    error: 'NONE',
    protocolType: this.protocolType,
    protocol: this.protocol,
    assignment: member.assignment,
  });

  // Staying and leaving ----------------------------------------------------------------------------

  heartbeat(request: Identity & { generation: number }, now: number): ErrorName {
    const problem = this.#identityProblem(request);
    if (problem !== null) return problem;
    if (request.generation !== this.generation) return 'ILLEGAL_GENERATION';
    const member = this.members.get(request.memberId)!;
    member.sessionEndsAt = now + member.sessionTimeoutMs;
    return this.state === 'PreparingRebalance' ? 'REBALANCE_IN_PROGRESS' : 'NONE';
  }

  /** Whether a member, or a consumer without a group, may commit now. A commit is a sign of life. */
  commitProblem(
    { memberId, instanceId, generation }: Identity & { generation: number },
    now: number,
  ): ErrorName | null {
    if (this.state === 'Dead') return 'COORDINATOR_NOT_AVAILABLE';
    if (generation < 0 && this.isEmpty) return null;
    if (generation < 0 && memberId === '' && instanceId === null) return 'UNKNOWN_MEMBER_ID';
    const problem = this.#identityProblem({ memberId, instanceId });
    if (problem !== null) return problem;
    if (generation !== this.generation) return 'ILLEGAL_GENERATION';
    const member = this.members.get(memberId)!;
    member.sessionEndsAt = now + member.sessionTimeoutMs;
    return this.state === 'CompletingRebalance' ? 'REBALANCE_IN_PROGRESS' : null;
  }

  leave({ memberId, instanceId }: Identity, now: number): ErrorName {
    if (this.#pending.delete(memberId)) {
      this.#maybeCompleteJoin(now);
      return 'NONE';
    }
    const id = memberId === '' && instanceId !== null ? (this.#staticIds.get(instanceId) ?? '') : memberId;
    const problem = this.#identityProblem({ memberId: id, instanceId });
    if (problem !== null) return problem;
    this.#remove(this.members.get(id)!, 'leaves', now);
    return 'NONE';
  }

  /** Does what is due by now. */
  expire(now: number): void {
    for (const [id, until] of [...this.#pending]) if (until <= now) this.#pending.delete(id);
    for (const member of [...this.members.values()]) {
      if (isAlive(member, now)) continue;
      this.#effects.expired(this, member.id);
      this.#remove(member, 'is silent', now);
    }
    if (this.#awaitsSyncs && now >= this.#syncUntil) {
      const silent = [...this.members.values()].filter(({ hasSynced }) => !hasSynced);
      this.#syncUntil = Infinity;
      for (const member of silent) this.#remove(member, 'does not sync', now);
    }
    this.#maybeCompleteJoin(now);
  }

  get #awaitsSyncs(): boolean {
    return this.state === 'CompletingRebalance' || this.state === 'Stable';
  }

  /** Nothing of it would be missed: it has never had a generation, and nobody is on the way to it. */
  get isForgettable(): boolean {
    return this.state === 'Empty' && this.generation === 0 && this.#pending.size === 0;
  }

  get nextDeadline(): number {
    let deadline = Infinity;
    if (this.state === 'PreparingRebalance') {
      const everyoneIsHere = [...this.members.values()].every(({ awaitsJoin }) => awaitsJoin !== null);
      deadline = everyoneIsHere && this.#pending.size === 0 ? this.#joinNotBefore : this.#joinUntil;
    }
    if (this.#awaitsSyncs && this.#someoneHasNotSynced()) deadline = this.#syncUntil;
    for (const until of this.#pending.values()) deadline = Math.min(deadline, until);
    for (const { sessionEndsAt, awaitsJoin, awaitsSync } of this.members.values()) {
      if (awaitsJoin === null && awaitsSync === null) deadline = Math.min(deadline, sessionEndsAt);
    }
    return deadline;
  }

  #someoneHasNotSynced(): boolean {
    for (const { hasSynced } of this.members.values()) if (!hasSynced) return true;
    return false;
  }

  /** The broker stops: whoever waits is told to look for another coordinator. */
  abandon(): void {
    for (const member of this.members.values()) {
      member.awaitsJoin?.(joinRefused('NOT_COORDINATOR', member.id));
      member.awaitsSync?.(syncRefused('NOT_COORDINATOR'));
      member.awaitsJoin = member.awaitsSync = null;
    }
    this.state = 'Dead';
  }

  #remove(member: Member, why: string, now: number): void {
    member.awaitsJoin?.(joinRefused('UNKNOWN_MEMBER_ID', member.id));
    member.awaitsSync?.(syncRefused('UNKNOWN_MEMBER_ID'));
    this.#forget(member);
    if (this.state === 'PreparingRebalance') this.#maybeCompleteJoin(now);
    else this.#prepareRebalance(`${member.id} ${why}`, now);
  }

  #forget(member: Member): void {
    this.members.delete(member.id);
    if (member.instanceId !== null) this.#staticIds.delete(member.instanceId);
    if (this.leader === member.id) this.leader = null;
  }

  #identityProblem({ memberId, instanceId }: Identity): ErrorName | null {
    if (instanceId !== null) {
      const current = this.#staticIds.get(instanceId);
      if (current === undefined) return 'UNKNOWN_MEMBER_ID';
      if (current !== memberId) return 'FENCED_INSTANCE_ID';
    }
    return this.members.has(memberId) ? null : 'UNKNOWN_MEMBER_ID';
  }

  #enter(state: GroupState, now: number): void {
    this.state = state;
    this.stateSince = now;
  }
}
