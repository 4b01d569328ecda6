import { keys } from './cluster-image.ts';
import type { MetaStore } from './meta-store.ts';

/** Ids taken from the store at once. What is left of a block at a stop is never given. */
const blockSize = 1_000;

/** Producer ids that nobody else gets, also after a crash. */
export class ProducerIds {
  readonly #store: MetaStore;
  #next = 0;
  #end = 0;
  #refill: Promise<void> | null = null;

  constructor(store: MetaStore) {
    this.#store = store;
  }

  async next(): Promise<number> {
    while (this.#next === this.#end) {
      this.#refill ??= this.#takeBlock().finally(() => (this.#refill = null));
      await this.#refill;
    }
    return this.#next++;
  }

  async #takeBlock(): Promise<void> {
    for (;;) {
      const entry = await this.#store.get(keys.nextProducerId);
      const start = Number(entry?.value ?? 0);
      const { succeeded } = await this.#store.commit({
        compare: [{ key: keys.nextProducerId, revision: entry?.revision ?? null }],
        put: [{ key: keys.nextProducerId, value: String(start + blockSize) }],
      });
      if (!succeeded) continue;
      this.#next = start;
      this.#end = start + blockSize;
      return;
    }
  }
}
