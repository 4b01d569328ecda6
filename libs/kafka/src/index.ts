export type { KafkaOptions } from './driver.ts';
export { kafka, sidecar } from './sidecar.ts';
