import * as configs from './messages/configs.ts';
import * as fetching from './messages/fetch.ts';
import * as groupAdmin from './messages/group-admin.ts';
import * as groupRecords from './messages/group-records.ts';
import * as groups from './messages/groups.ts';
import * as logDirs from './messages/log-dirs.ts';
import * as metadata from './messages/metadata.ts';
import * as offsets from './messages/offsets.ts';
import * as producing from './messages/produce.ts';
import * as topics from './messages/topics.ts';
import * as transactions from './messages/transactions.ts';
import type { Api, Message } from './schema.ts';

/** Every API that has a table, in the order of the keys: the protocol's table of contents. */
export const catalogue: readonly Api[] = [
  producing.produce, // 0
  fetching.fetch, // 1
  offsets.listOffsets, // 2
  metadata.metadata, // 3
  groups.offsetCommit, // 8
  groups.offsetFetch, // 9
  groups.findCoordinator, // 10
  groups.joinGroup, // 11
  groups.heartbeat, // 12
  groups.leaveGroup, // 13
  groups.syncGroup, // 14
  groupAdmin.describeGroups, // 15
  groupAdmin.listGroups, // 16
  metadata.apiVersions, // 18
  topics.createTopics, // 19
  topics.deleteTopics, // 20
  topics.deleteRecords, // 21
  transactions.initProducerId, // 22
  offsets.offsetForLeaderEpoch, // 23
  configs.describeConfigs, // 32
  configs.alterConfigs, // 33
  logDirs.describeLogDirs, // 35
  topics.createPartitions, // 37
  groupAdmin.deleteGroups, // 42
  configs.incrementalAlterConfigs, // 44
  groupAdmin.offsetDelete, // 47
  metadata.describeCluster, // 60
  transactions.describeProducers, // 61
];

/** Messages that are stored or carried inside others, rather than sent. */
export const dataMessages: readonly Message[] = Object.values(groupRecords);

export const apiOf = (key: number): Api | undefined => catalogue.find((api) => api.key === key);
