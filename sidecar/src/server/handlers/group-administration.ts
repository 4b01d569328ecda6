import { deleteGroups, describeGroups, listGroups, offsetDelete } from '@rookery/wire';
import type { GroupAdministration } from '../../groups/group-administration.ts';
import { handler, type Handler } from '../handler.ts';
import { groupOperations } from './authorized-operations.ts';

// ListGroups, DescribeGroups, DeleteGroups, OffsetDelete — what operators and their tools ask of groups. The
// rules stand in groups/group-administration.ts.
//
// Version notes
//   DescribeGroups v6: a group that is not there is GROUP_ID_NOT_FOUND; before, it is a dead one without error.

export function groupAdministrationHandlers(administration: GroupAdministration): Handler[] {
  return [
    handler<typeof listGroups>({
      api: listGroups,
      handle: (request) => administration.listGroups(request),
    }),
    handler<typeof describeGroups>({
      api: describeGroups,
      handle: (request, { version }) =>
        administration.describeGroups(request, { version, operations: groupOperations }),
    }),
    handler<typeof deleteGroups>({
      api: deleteGroups,
      handle: (request) => administration.deleteGroups(request),
    }),
    handler<typeof offsetDelete>({
      api: offsetDelete,
      handle: (request) => administration.offsetDelete(request),
    }),
  ];
}
