/** What a client may do, as bits of Kafka's operation numbers. Nobody is refused anything yet: all that apply. */

const bits = (...operations: number[]): number =>
  operations.reduce((mask, operation) => mask | (1 << operation), 0);

const [
  read,
  write,
  create,
  remove,
  alter,
  describe,
  clusterAction,
  describeConfigs,
  alterConfigs,
  idempotentWrite,
] = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12] as const;

export const topicOperations = bits(
  read,
  write,
  create,
  remove,
  alter,
  describe,
  describeConfigs,
  alterConfigs,
);

export const groupOperations = bits(read, remove, describe, describeConfigs, alterConfigs);

export const clusterOperations = bits(
  create,
  alter,
  describe,
  clusterAction,
  describeConfigs,
  alterConfigs,
  idempotentWrite,
);
