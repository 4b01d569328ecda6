import { api, bool, int16, int32, int64, string } from '../schema.ts';

// InitProducerId — an id of its own for a producer.
//   v2 flexible · v3 the producer names the id it has · v6 two-phase commit
export const initProducerId = api({
  key: 22,
  name: 'InitProducerId',
  versions: [0, 6],
  flexibleFrom: 2,
  request: {
    transactionalId: string.nullable(),
    transactionTimeoutMs: int32,
    producerId: int64.since(3).default(-1),
    producerEpoch: int16.since(3).default(-1),
    enable2Pc: bool.since(6),
    keepPreparedTxn: bool.since(6),
  },
  response: {
    throttleTimeMs: int32.default(0),
    errorCode: int16,
    producerId: int64.default(-1),
    producerEpoch: int16,
    ongoingTxnProducerId: int64.since(6).default(-1),
    ongoingTxnProducerEpoch: int16.since(6).default(-1),
  },
});
