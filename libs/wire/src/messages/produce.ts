import { api, array, int16, int32, int64, records, string, struct, uuid } from '../schema.ts';

// Produce — appends one record batch to each partition named.
//   v9 flexible · v10 leader hint in the answer · v13 topics by id
export const produce = api({
  key: 0,
  name: 'Produce',
  versions: [3, 13],
  flexibleFrom: 9,
  request: {
    transactionalId: string.nullable().default(null),
    acks: int16,
    timeoutMs: int32,
    topicData: array({
      name: string.until(12),
      topicId: uuid.since(13),
      partitionData: array({ index: int32, records: records.nullable() }),
    }),
  },
  response: {
    responses: array({
      name: string.until(12),
      topicId: uuid.since(13),
      partitionResponses: array({
        index: int32,
        errorCode: int16,
        baseOffset: int64,
        logAppendTimeMs: int64.default(-1),
        logStartOffset: int64.since(5).default(-1),
        recordErrors: array({
          batchIndex: int32,
          batchIndexErrorMessage: string.nullable().default(null),
        }).since(8),
        errorMessage: string.since(8).nullable(8).default(null),
        currentLeader: struct({ leaderId: int32.default(-1), leaderEpoch: int32.default(-1) })
          .since(10)
          .tagged(0, 10),
      }),
    }),
    throttleTimeMs: int32.default(0),
    nodeEndpoints: array({ nodeId: int32, host: string, port: int32, rack: string.nullable().default(null) })
      .since(10)
      .tagged(0, 10),
  },
});

// Produce below its first version, as far as it takes to refuse it: old librdkafka must see version 0 offered,
// or it sends batches uncompressed without a word.
export const legacyProduce = api({
  key: 0,
  name: 'LegacyProduce',
  versions: [0, 2],
  request: {
    acks: int16,
    timeoutMs: int32,
    topicData: array({ name: string, partitionData: array({ index: int32, records: records.nullable() }) }),
  },
  response: {
    responses: array({
      name: string,
      partitionResponses: array({
        index: int32,
        errorCode: int16,
        baseOffset: int64.default(-1),
        logAppendTimeMs: int64.since(2).default(-1),
      }),
    }),
    throttleTimeMs: int32.since(1),
  },
});
