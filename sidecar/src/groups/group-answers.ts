import type { ErrorName } from '@rookery/wire';

/** Called once with what the member is told. */
export type Answer<T> = (answer: T) => void;

export interface JoinAnswer {
  readonly error: ErrorName;
  readonly generation: number;
  readonly protocolType: string | null;
  readonly protocol: string | null;
  readonly leader: string;
  readonly memberId: string;
  /** The leader need not assign: nothing has changed since it last did. */
  readonly skipAssignment: boolean;
  /** For the leader alone: who is there, with the metadata of the chosen protocol. */
  readonly members: readonly {
    readonly id: string;
    readonly instanceId: string | null;
    readonly metadata: Buffer;
  }[];
}

export interface SyncAnswer {
  readonly error: ErrorName;
  readonly protocolType: string | null;
  readonly protocol: string | null;
  readonly assignment: Buffer;
}

export const joinRefused = (error: ErrorName, memberId: string): JoinAnswer => ({
  error,
  generation: -1,
  protocolType: null,
  protocol: null,
  leader: '',
  memberId,
  skipAssignment: false,
  members: [],
});

export const syncRefused = (error: ErrorName): SyncAnswer => ({
  error,
  protocolType: null,
  protocol: null,
  assignment: Buffer.alloc(0),
});
