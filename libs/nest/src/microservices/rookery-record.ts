import type { PublishTo } from '@rookery/engine';

/** What a client emits when the payload alone does not say it all: `emit(pattern, new RookeryRecord(payload, { key }))`. */
export class RookeryRecord<T = unknown> {
  readonly payload: T;
  readonly options: PublishTo;

  constructor(payload: T, options: PublishTo) {
    this.payload = payload;
    this.options = options;
  }
}
