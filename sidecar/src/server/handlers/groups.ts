import {
  ErrorCode,
  findCoordinator,
  heartbeat,
  joinGroup,
  leaveGroup,
  offsetCommit,
  offsetFetch,
  syncGroup,
} from '@rookery/wire';
import type { GroupCoordinator } from '../../groups/group-coordinator.ts';
import { handler, type Answer, type Handler } from '../handler.ts';
import type { Self } from '../self.ts';

// FindCoordinator — which broker looks after a group. One broker: this one, for every group.
//
// Behaviour
//   · Transactional ids and share groups have no coordinator here: INVALID_REQUEST, which no client retries.
// Version notes
//   v4 asks for several keys at once.

const groupKey = 0;

export function findCoordinatorHandler({ self }: { self: Self }): Handler {
  const here = { nodeId: self.nodeId, host: self.host, port: self.port };
  const nowhere = { nodeId: -1, host: '', port: -1 };
  const verdict = (keyType: number, key: string): { errorCode: number; errorMessage: string | null } => {
    if (keyType !== groupKey) {
      return {
        errorCode: ErrorCode.INVALID_REQUEST,
        errorMessage: `coordinators of key type ${keyType} are not served`,
      };
    }
    if (key === '')
      return { errorCode: ErrorCode.INVALID_GROUP_ID, errorMessage: 'a group id must not be empty' };
    return { errorCode: ErrorCode.NONE, errorMessage: null };
  };
  return handler<typeof findCoordinator>({
    api: findCoordinator,
    handle({ key, keyType, coordinatorKeys }, { version }): Answer<typeof findCoordinator> {
      if (version < 4) {
        const answer = verdict(keyType, key);
        return { ...answer, ...(answer.errorCode === ErrorCode.NONE ? here : nowhere) };
      }
      const coordinators = coordinatorKeys.map((each) => {
        const answer = verdict(keyType, each);
        return { key: each, ...answer, ...(answer.errorCode === ErrorCode.NONE ? here : nowhere) };
      });
      return { coordinators };
    },
  });
}

// JoinGroup, SyncGroup, Heartbeat, LeaveGroup — the classic group protocol; OffsetCommit and OffsetFetch — how
// far a group has read. The rules stand in groups/classic-group.ts and groups/committed-offsets.ts.

export function groupHandlers({ groups }: { groups: GroupCoordinator }): Handler[] {
  return [
    handler<typeof joinGroup>({
      api: joinGroup,
      handle: (request, { version, clientId, remoteAddress }) =>
        groups.joinGroup(request, { version, clientId: clientId ?? '', clientHost: `/${remoteAddress}` }),
    }),
    handler<typeof syncGroup>({
      api: syncGroup,
      handle: (request, { version }) => groups.syncGroup(request, { version }),
    }),
    handler<typeof heartbeat>({
      api: heartbeat,
      handle: (request, { version }) => groups.heartbeat(request, { version }),
    }),
    handler<typeof leaveGroup>({
      api: leaveGroup,
      handle: (request, { version }) => groups.leaveGroup(request, { version }),
    }),
    handler<typeof offsetCommit>({
      api: offsetCommit,
      handle: (request, { version }) => groups.offsetCommit(request, { version }),
    }),
    handler<typeof offsetFetch>({
      api: offsetFetch,
      handle: (request, { version }) => groups.offsetFetch(request, { version }),
    }),
  ];
}
