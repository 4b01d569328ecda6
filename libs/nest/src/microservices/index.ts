export { RookeryClient } from './rookery-client.ts';
export { RookeryRecord } from './rookery-record.ts';
export { RookeryServer, rookeryTransport, type EventExtras } from './rookery-server.ts';
