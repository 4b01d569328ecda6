import { describeProducers, ErrorCode, initProducerId } from '@rookery/wire';
import type { ProducerIds } from '../../cluster/producer-ids.ts';
import { SidecarError } from '../../errors.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { handler, type Handler } from '../handler.ts';

// InitProducerId — an id of its own for every producer that asks.
//
// Behaviour
//   · Ids come in blocks from the metadata store, so none is ever given twice, also after a restart.
//   · A producer that names the id and epoch it has (version 3 on) gets a fresh id, as from Kafka: epochs are
//     for transactional producers.
//   · While the store cannot give a block: COORDINATOR_NOT_AVAILABLE, and the client asks again.
//   · A transactional id is refused: transactions are not served yet.

export function initProducerIdHandler(deps: { producerIds: ProducerIds }): Handler {
  return handler<typeof initProducerId>({
    api: initProducerId,
    async handle({ transactionalId }) {
      if (transactionalId !== null)
        return { errorCode: ErrorCode.INVALID_REQUEST, producerId: -1, producerEpoch: -1 };
      try {
        return { errorCode: ErrorCode.NONE, producerId: await deps.producerIds.next(), producerEpoch: 0 };
      } catch (error) {
        if (!(error instanceof SidecarError)) throw error;
        return { errorCode: ErrorCode.COORDINATOR_NOT_AVAILABLE, producerId: -1, producerEpoch: -1 };
      }
    },
  });
}

// DescribeProducers — what partitions remember of their producers: the last sequence, an open transaction.

export function describeProducersHandler(deps: { replicas: ReplicaManager }): Handler {
  return handler<typeof describeProducers>({
    api: describeProducers,
    handle: ({ topics }) => ({
      topics: topics.map(({ name, partitionIndexes }) => ({
        name,
        partitions: partitionIndexes.map((partitionIndex) => {
          const partition = deps.replicas.find(name, partitionIndex);
          if (partition === null) {
            const errorCode = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION;
            return { partitionIndex, errorCode, activeProducers: [] };
          }
          const activeProducers = partition.log.describeProducers().map((producer) => ({
            producerId: producer.producerId,
            producerEpoch: producer.producerEpoch,
            lastSequence: producer.lastSequence,
            lastTimestamp: producer.timestamp,
            coordinatorEpoch: producer.coordinatorEpoch,
            currentTxnStartOffset: producer.transactionFirstOffset,
          }));
          return { partitionIndex, errorCode: ErrorCode.NONE, activeProducers };
        }),
      })),
    }),
  });
}
