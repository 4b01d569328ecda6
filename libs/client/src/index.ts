export { Admin, type GroupDescription, type GroupListing, type NewTopic, type TopicResult } from './admin.ts';
export { assignRanges, type GroupMember, type TopicPartitions } from './assignor.ts';
export { Client, type ClientOptions } from './client.ts';
export { ClusterView, type Status, type TopicView } from './cluster-view.ts';
export { AssignedPartition, Consumer, type ConsumerEvents, type ConsumerOptions } from './consumer.ts';
export { BrokerError, ClientError, clientErrors, isRetriableError, type ClientErrorCode } from './errors.ts';
export { Fetcher, type FetchedPartition, type FetcherEvents, type FetcherOptions } from './fetcher.ts';
export type { Receipt } from './producer-lane.ts';
export { Producer, type Delivery, type ProducerOptions } from './producer.ts';
