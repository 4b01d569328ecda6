import type { Clock } from '../clock.ts';
import type { ClusterImage } from '../cluster/cluster-image.ts';
import type { ProducerIds } from '../cluster/producer-ids.ts';
import type { Topics } from '../cluster/topics.ts';
import type { Config } from '../config.ts';
import type { GroupAdministration } from '../groups/group-administration.ts';
import type { GroupCoordinator } from '../groups/group-coordinator.ts';
import type { ReplicaManager } from '../replication/replica-manager.ts';
import type { Handler } from './handler.ts';
import { apiVersionsHandler } from './handlers/api-versions.ts';
import { alterConfigsHandler, incrementalAlterConfigsHandler } from './handlers/alter-configs.ts';
import { describeConfigsHandler } from './handlers/configs.ts';
import { fetchHandler } from './handlers/fetch.ts';
import { groupAdministrationHandlers } from './handlers/group-administration.ts';
import { findCoordinatorHandler, groupHandlers } from './handlers/groups.ts';
import { describeClusterHandler, metadataHandler } from './handlers/metadata.ts';
import { describeLogDirsHandler } from './handlers/log-dirs.ts';
import { listOffsetsHandler, offsetForLeaderEpochHandler } from './handlers/offsets.ts';
import { produceHandler } from './handlers/produce.ts';
import { deleteRecordsHandler } from './handlers/records.ts';
import { createPartitionsHandler, createTopicsHandler, deleteTopicsHandler } from './handlers/topics.ts';
import { describeProducersHandler, initProducerIdHandler } from './handlers/transactions.ts';
import type { Self } from './self.ts';

export interface HandlersDeps {
  readonly self: Self;
  readonly config: Config;
  readonly image: () => ClusterImage;
  readonly topics: Topics;
  readonly replicas: ReplicaManager;
  readonly groups: GroupCoordinator;
  readonly groupAdministration: GroupAdministration;
  readonly producerIds: ProducerIds;
  readonly clock: Clock;
  readonly dataDir: string;
  /** Bytes that are left on the data directory's disk. */
  readonly freeBytes: () => number;
}

/** Every API that the broker serves. */
export function handlersOf({ self, config, ...deps }: HandlersDeps): Handler[] {
  const configs = { config, image: deps.image, nodeId: self.nodeId };
  const handlers = [
    produceHandler(deps),
    fetchHandler({ ...deps, bytesMax: config.int('fetch.max.bytes') }),
    listOffsetsHandler(deps),
    metadataHandler({ ...deps, self, autoCreate: config.bool('auto.create.topics.enable') }),
    findCoordinatorHandler({ self }),
    ...groupHandlers(deps),
    ...groupAdministrationHandlers(deps.groupAdministration),
    createTopicsHandler({ ...configs, topics: deps.topics }),
    deleteTopicsHandler({ ...deps, enabled: config.bool('delete.topic.enable') }),
    deleteRecordsHandler({ ...deps, config }),
    initProducerIdHandler(deps),
    describeProducersHandler(deps),
    offsetForLeaderEpochHandler(deps),
    createPartitionsHandler(deps),
    describeConfigsHandler(configs),
    alterConfigsHandler({ ...configs, topics: deps.topics }),
    incrementalAlterConfigsHandler({ ...configs, topics: deps.topics }),
    describeLogDirsHandler(deps),
    describeClusterHandler({ ...deps, self }),
  ];
  return [...handlers, apiVersionsHandler(handlers)];
}
