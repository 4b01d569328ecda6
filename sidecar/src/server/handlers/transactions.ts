import { ErrorCode, initProducerId } from '@rookery/wire';
import type { ProducerIds } from '../../cluster/producer-ids.ts';
import { handler, type Handler } from '../handler.ts';

// InitProducerId — an id of its own for every producer that asks.
//
// Behaviour
//   · Ids come in blocks from the metadata store, so none is ever given twice, also after a restart.
//   · A producer that names the id and epoch it has (version 3 on) gets a fresh id: nothing is fenced by
//     epochs that no log has checked.
//   · A transactional id is refused: transactions are not served yet.

export function initProducerIdHandler(deps: { producerIds: ProducerIds }): Handler {
  return handler<typeof initProducerId>({
    api: initProducerId,
    async handle({ transactionalId }) {
      if (transactionalId !== null)
        return { errorCode: ErrorCode.INVALID_REQUEST, producerId: -1, producerEpoch: -1 };
      return { errorCode: ErrorCode.NONE, producerId: await deps.producerIds.next(), producerEpoch: 0 };
    },
  });
}
