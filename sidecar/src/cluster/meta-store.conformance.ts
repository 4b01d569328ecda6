import { afterEach, describe, expect, test } from 'vitest';
import type { ManualClock } from '../manual-clock.ts';
import { operationsMax, type Change, type MetaStore } from './meta-store.ts';

/** A store under test: opened empty, opened again on what it left, on a clock that stands still until told. */
export interface StoreUnderTest {
  readonly store: MetaStore;
  readonly clock: ManualClock;
  /** Closes the store and opens what it has kept. */
  reopen(): Promise<MetaStore>;
  /** Ends the store as a crash of its process would, and opens what it has kept. */
  crash(): Promise<MetaStore>;
  dispose(): Promise<void>;
}

/** What every metadata store must do, whatever it is made of. */
export function conformsToMetaStore(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`${name} is a metadata store`, () => {
    let under: StoreUnderTest;
    const opened = async (): Promise<MetaStore> => (under = await open()).store;
    afterEach(() => under.dispose());

    const put = async (store: MetaStore, key: string, value: string): Promise<number> => {
      const { succeeded, revision } = await store.commit({ put: [{ key, value }] });
      expect(succeeded).toBe(true);
      return revision;
    };

    test('what is put is there, and what is not is null', async () => {
      const store = await opened();
      expect(await store.get('a')).toBeNull();
      const revision = await put(store, 'a', 'one');
      expect(await store.get('a')).toEqual({ key: 'a', value: 'one', revision });
    });

    test('every put gives the key a revision that it never had', async () => {
      const store = await opened();
      const seen = new Set<number>();
      for (let i = 0; i < 5; i++) seen.add(await put(store, 'a', 'same'));
      await store.commit({ remove: ['a'] });
      seen.add(await put(store, 'a', 'same'));
      expect(seen.size).toBe(6);
    });

    test('a range has the keys with the prefix alone, in order', async () => {
      const store = await opened();
      for (const key of ['b/2', 'a/1', 'b/10', 'b', 'b/1', 'c/1']) await put(store, key, key);
      expect((await store.range('b/')).map(({ key }) => key)).toEqual(['b/1', 'b/10', 'b/2']);
      expect(await store.range('d')).toEqual([]);
      expect((await store.range('')).length).toBe(6);
    });

    test('a transaction whose comparison holds changes everything under one revision', async () => {
      const store = await opened();
      const revision = await put(store, 'a', '1');
      await put(store, 'gone', 'x');
      const outcome = await store.commit({
        compare: [
          { key: 'a', revision },
          { key: 'b', revision: null },
        ],
        put: [
          { key: 'a', value: '2' },
          { key: 'b', value: '2' },
        ],
        remove: ['gone'],
      });
      expect(outcome.succeeded).toBe(true);
      const [a, b, gone] = await Promise.all(['a', 'b', 'gone'].map((key) => store.get(key)));
      expect([a!.value, b!.value, gone]).toEqual(['2', '2', null]);
      expect([a!.revision, b!.revision]).toEqual([outcome.revision, outcome.revision]);
    });

    test('a transaction one of whose comparisons fails changes nothing', async () => {
      const store = await opened();
      const revision = await put(store, 'a', '1');
      const before = await store.range('');
      for (const compare of [
        [{ key: 'a', revision: null }],
        [{ key: 'a', revision: revision + 1 }],
        [
          { key: 'a', revision },
          { key: 'none', revision: 1 },
        ],
      ]) {
        const outcome = await store.commit({ compare, put: [{ key: 'b', value: 'x' }], remove: ['a'] });
        expect(outcome.succeeded).toBe(false);
      }
      expect(await store.range('')).toEqual(before);
    });

    test('a comparison with the revision before a removal and a new put fails', async () => {
      const store = await opened();
      const revision = await put(store, 'a', '1');
      await store.commit({ remove: ['a'] });
      await put(store, 'a', '1');
      const outcome = await store.commit({ compare: [{ key: 'a', revision }], remove: ['a'] });
      expect(outcome.succeeded).toBe(false);
    });

    test('of writers that compare with the same revision one succeeds', async () => {
      const store = await opened();
      const outcomes = await Promise.all(
        Array.from({ length: 10 }, (_, i) =>
          store.commit({
            compare: [{ key: 'a', revision: null }],
            put: [{ key: 'a', value: String(i) }],
          }),
        ),
      );
      expect(outcomes.filter(({ succeeded }) => succeeded).length).toBe(1);
    });

    test('counters that are raised by compare and put lose no step', async () => {
      const store = await opened();
      const raise = async (): Promise<void> => {
        for (;;) {
          const now = await store.get('n');
          const { succeeded } = await store.commit({
            compare: [{ key: 'n', revision: now?.revision ?? null }],
            put: [{ key: 'n', value: String(Number(now?.value ?? 0) + 1) }],
          });
          if (succeeded) return;
        }
      };
      await Promise.all(Array.from({ length: 12 }, raise));
      expect((await store.get('n'))!.value).toBe('12');
    });

    test('a watcher hears of its prefix alone, in order, before the commit resolves', async () => {
      const store = await opened();
      const heard: Change[] = [];
      const stop = store.watch('a/', (changes) => heard.push(...changes));
      const first = await put(store, 'a/1', 'x');
      expect(heard).toEqual([{ key: 'a/1', value: 'x', revision: first }]);
      await put(store, 'b/1', 'not this one');
      const second = (
        await store.commit({
          put: [
            { key: 'a/2', value: 'y' },
            { key: 'b/2', value: 'z' },
          ],
          remove: ['a/1'],
        })
      ).revision;
      expect(heard.slice(1)).toEqual([
        { key: 'a/2', value: 'y', revision: second },
        { key: 'a/1', value: null, revision: second },
      ]);
      stop();
      await put(store, 'a/3', 'unheard');
      expect(heard.length).toBe(3);
    });

    test('a failed comparison and the removal of nothing are heard by nobody', async () => {
      const store = await opened();
      let heard = 0;
      store.watch('', () => heard++);
      await store.commit({ compare: [{ key: 'a', revision: 7 }], put: [{ key: 'a', value: 'x' }] });
      await store.commit({ remove: ['a'] });
      expect(heard).toBe(0);
    });

    test('everything is there again after a close and after a crash', async () => {
      let store = await opened();
      await put(store, 'a', 'ä€😀\n"');
      await put(store, 'b', '');
      await store.commit({ put: [{ key: 'c', value: 'c' }], remove: ['a'] });
      const values = async (): Promise<string[][]> =>
        (await store.range('')).map(({ key, value }) => [key, value]);
      const before = await values();
      store = await under.reopen();
      expect(await values()).toEqual(before);
      store = await under.crash();
      expect(await values()).toEqual(before);
    });

    test('a revision from before a restart is not given again', async () => {
      let store = await opened();
      const revision = await put(store, 'a', '1');
      store = await under.reopen();
      expect(await put(store, 'a', '2')).toBeGreaterThan(revision);
    });

    test('keys under a lease go when it is not renewed, and stay while it is', async () => {
      const store = await opened();
      const lease = await store.grantLease(1_000);
      await store.commit({ put: [{ key: 'a', value: 'x', lease }] });
      await put(store, 'b', 'without');
      const heard: Change[] = [];
      store.watch('', (changes) => heard.push(...changes));
      for (let i = 0; i < 5; i++) {
        under.clock.advance(900);
        expect(await lease.renew()).toBe(true);
      }
      expect(await store.get('a')).not.toBeNull();
      under.clock.advance(1_000);
      await expect.poll(() => store.get('a')).toBeNull();
      expect(await lease.renew()).toBe(false);
      expect(await store.get('b')).not.toBeNull();
      expect(heard.map(({ key, value }) => [key, value])).toEqual([['a', null]]);
    });

    test('a revoked lease takes its keys at once, but not those that were put again without it', async () => {
      const store = await opened();
      const lease = await store.grantLease(60_000);
      await store.commit({
        put: [
          { key: 'a', value: 'x', lease },
          { key: 'b', value: 'x', lease },
        ],
      });
      // Both at once: the put comes first, so its key is no longer the lease's.
      await Promise.all([store.commit({ put: [{ key: 'b', value: 'mine now' }] }), lease.revoke()]);
      expect((await store.range('')).map(({ key }) => key)).toEqual(['b']);
      await lease.revoke();
    });

    test('nothing can be put under a lease that has lapsed', async () => {
      const store = await opened();
      const lease = await store.grantLease(1_000);
      under.clock.advance(2_000);
      await expect(store.commit({ put: [{ key: 'a', value: 'x', lease }] })).rejects.toThrow('RK0401');
      expect(await store.get('a')).toBeNull();
    });

    test('a lease does not outlive the process that held it', async () => {
      const store = await opened();
      const lease = await store.grantLease(3_600_000);
      await store.commit({ put: [{ key: 'a', value: 'x', lease }] });
      await put(store, 'b', 'stays');
      const again = await under.crash();
      under.clock.advance(3_600_000);
      await expect.poll(async () => (await again.range('')).map(({ key }) => key)).toEqual(['b']);
    });

    test('a transaction may be as large as it is allowed to be, and no larger', async () => {
      const store = await opened();
      const many = (count: number) => Array.from({ length: count }, (_, i) => ({ key: `k${i}`, value: 'v' }));
      expect((await store.commit({ put: many(operationsMax) })).succeeded).toBe(true);
      expect(() => store.commit({ put: many(operationsMax + 1) })).toThrow('at most 128');
      expect(() => store.commit({ put: many(1), remove: ['k0'] })).toThrow('a key once');
      expect((await store.range('k')).length).toBe(operationsMax);
    });
  });
}
