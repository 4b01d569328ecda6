import {
  consumerProtocolSubscription,
  decodeMessage,
  ErrorCode,
  WireError,
  type deleteGroups,
  type describeGroups,
  type Encodable,
  type ErrorName,
  type listGroups,
  type offsetDelete,
  type Request,
} from '@rookery/wire';
import type { ClassicGroup } from './classic-group.ts';
import type { GroupCoordinator } from './group-coordinator.ts';
import type { Member } from './group-member.ts';

const consumerProtocol = 'consumer';
const classic = 'classic';
const nothing = Buffer.alloc(0);

/** What operators ask of groups: which there are, who is in them, and to forget them. */
export class GroupAdministration {
  readonly #groups: GroupCoordinator;
  readonly #hasPartition: (topic: string, partition: number) => boolean;

  constructor(groups: GroupCoordinator, hasPartition: (topic: string, partition: number) => boolean) {
    this.#groups = groups;
    this.#hasPartition = hasPartition;
  }

  listGroups({
    statesFilter,
    typesFilter,
  }: Request<typeof listGroups>): Encodable<(typeof listGroups)['response']> {
    const states = statesFilter.map((state) => state.toLowerCase());
    const types = typesFilter.map((type) => type.toLowerCase());
    const groups = [];
    for (const { group } of this.#groups.groups()) {
      if (group.state === 'Dead') continue;
      if (states.length > 0 && !states.includes(group.state.toLowerCase())) continue;
      if (types.length > 0 && !types.includes(classic)) continue;
      const { id: groupId, state: groupState, protocolType } = group;
      groups.push({ groupId, groupState, groupType: classic, protocolType: protocolType ?? '' });
    }
    return { errorCode: ErrorCode.NONE, groups };
  }

  /** @param version from 6 on a group that is not there is an error; before, it is a dead one */
  async describeGroups(
    { groups, includeAuthorizedOperations }: Request<typeof describeGroups>,
    { version, operations }: { version: number; operations: number },
  ): Promise<Encodable<(typeof describeGroups)['response']>> {
    const describe = async (groupId: string) => {
      const found = await this.#groups.find(groupId, false);
      const absent = { groupId, protocolType: '', protocolData: '', members: [] };
      if (typeof found === 'string' && found !== 'GROUP_ID_NOT_FOUND')
        return { ...absent, errorCode: ErrorCode[found], groupState: '' };
      if (typeof found === 'string' || found.group.state === 'Dead') {
        return version >= 6
          ? {
              ...absent,
              errorCode: ErrorCode.GROUP_ID_NOT_FOUND,
              errorMessage: `there is no group '${groupId}'`,
              groupState: 'Dead',
            }
          : { ...absent, errorCode: ErrorCode.NONE, groupState: 'Dead' };
      }
      return {
        errorCode: ErrorCode.NONE,
        groupId,
        groupState: found.group.state,
        protocolType: found.group.protocolType ?? '',
        protocolData: isStable(found.group) ? (found.group.protocol ?? '') : '',
        members: [...found.group.members.values()].map((member) => describeMember(found.group, member)),
        ...(includeAuthorizedOperations ? { authorizedOperations: operations } : {}),
      };
    };
    return { groups: await Promise.all(groups.map(describe)) };
  }

  async deleteGroups({
    groupsNames,
  }: Request<typeof deleteGroups>): Promise<Encodable<(typeof deleteGroups)['response']>> {
    const results = groupsNames.map(async (groupId) => ({
      groupId,
      errorCode: ErrorCode[(await this.#groups.delete(groupId)) ?? 'NONE'],
    }));
    return { results: await Promise.all(results) };
  }

  /** Offsets of topics that the group's members read now are kept: they would only come back. */
  async offsetDelete({
    groupId,
    topics,
  }: Request<typeof offsetDelete>): Promise<Encodable<(typeof offsetDelete)['response']>> {
    const refused = (error: ErrorName) => ({ errorCode: ErrorCode[error], topics: [] });
    const found = await this.#groups.find(groupId, false);
    if (typeof found === 'string') return refused(found);
    const { group } = found;
    if (group.state === 'Dead') return refused('GROUP_ID_NOT_FOUND');
    if (!group.isEmpty && group.protocolType !== consumerProtocol) return refused('NON_EMPTY_GROUP');
    const subscribed = subscribedTopics(group);
    const problem = (topic: string, partition: number): ErrorName => {
      if (!this.#hasPartition(topic, partition)) return 'UNKNOWN_TOPIC_OR_PARTITION';
      return subscribed.has(topic) ? 'GROUP_SUBSCRIBED_TO_TOPIC' : 'NONE';
    };
    const answers = topics.map(({ name, partitions }) => ({
      name,
      partitions: partitions.map(({ partitionIndex }) => ({
        partitionIndex,
        errorCode: ErrorCode[problem(name, partitionIndex)] as number,
      })),
    }));
    const allowed = answers.flatMap(({ name, partitions }) =>
      partitions
        .filter(({ errorCode }) => errorCode === ErrorCode.NONE)
        .map(({ partitionIndex }) => [name, partitionIndex] as const),
    );
    const failure = await this.#groups.deleteOffsets(groupId, allowed);
    return failure === null ? { errorCode: ErrorCode.NONE, topics: answers } : refused(failure);
  }
}

/** While a group rebalances, what its members had says nothing. */
const isStable = (group: ClassicGroup): boolean => group.state === 'Stable';

function describeMember(group: ClassicGroup, member: Member) {
  const chosen = member.protocols.find(({ name }) => name === group.protocol);
  return {
    memberId: member.id,
    groupInstanceId: member.instanceId,
    clientId: member.clientId,
    clientHost: member.clientHost,
    memberMetadata: isStable(group) ? (chosen?.metadata ?? nothing) : nothing,
    memberAssignment: isStable(group) ? member.assignment : nothing,
  };
}

/** The topics that members of a consumer group say they read, whichever protocol they say it in. */
function subscribedTopics(group: ClassicGroup): Set<string> {
  const topics = new Set<string>();
  if (group.protocolType !== consumerProtocol) return topics;
  for (const { protocols } of group.members.values())
    for (const { metadata } of protocols) for (const topic of topicsIn(metadata)) topics.add(topic);
  return topics;
}

/** A subscription that is not one says nothing; a newer version keeps the fields of ours in front. */
function topicsIn(metadata: Buffer): readonly string[] {
  if (metadata.length < 2) return [];
  const version = metadata.readInt16BE(0);
  if (version < 0) return [];
  const known = Math.min(version, consumerProtocolSubscription.versions[1]);
  try {
    return decodeMessage(consumerProtocolSubscription, known, metadata.subarray(2), 'allow').topics;
  } catch (error) {
    if (error instanceof WireError) return [];
    throw error;
  }
}
