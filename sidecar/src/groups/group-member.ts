import type { Answer, JoinAnswer, SyncAnswer } from './group-answers.ts';

export interface Protocol {
  readonly name: string;
  readonly metadata: Buffer;
}

/** One member of a classic group. Times are milliseconds on the coordinator's clock. */
export interface Member {
  readonly id: string;
  /** Null for a dynamic member; a static one keeps its place through restarts. */
  readonly instanceId: string | null;
  clientId: string;
  clientHost: string;
  sessionTimeoutMs: number;
  rebalanceTimeoutMs: number;
  /** In the order of the member's preference. */
  protocols: readonly Protocol[];
  assignment: Buffer;
  /** When the session ends unless something is heard. A member that waits for an answer is alive. */
  sessionEndsAt: number;
  awaitsJoin: Answer<JoinAnswer> | null;
  awaitsSync: Answer<SyncAnswer> | null;
  /** It has asked for its assignment in this generation. */
  hasSynced: boolean;
}

export const isAlive = (member: Member, now: number): boolean =>
  member.awaitsJoin !== null || member.awaitsSync !== null || member.sessionEndsAt > now;

export const sameProtocols = (a: readonly Protocol[], b: readonly Protocol[]): boolean =>
  a.length === b.length &&
  a.every(({ name, metadata }, i) => name === b[i]!.name && metadata.equals(b[i]!.metadata));
