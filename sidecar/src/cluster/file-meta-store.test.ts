import { crc32c } from '@rookery/wire';
import { expect, test } from 'vitest';
import { ManualClock } from '../manual-clock.ts';
import { MemoryFileSystem } from '../vfs/memory.ts';
import { loseSome, loseUnsynced } from '../vfs/power-cut.ts';
import { readFile } from '../vfs/file-system.ts';
import { FileMetaStore } from './file-meta-store.ts';
import { conformsToMetaStore } from './meta-store.conformance.ts';

const path = '/data/metadata.journal';

function emptyDisk(): MemoryFileSystem {
  const fs = new MemoryFileSystem();
  fs.makeDirectory('/data');
  fs.syncDirectoryNow('/');
  return fs;
}

conformsToMetaStore('a local file', async () => {
  const clock = new ManualClock();
  let fs = emptyDisk();
  let store = await FileMetaStore.open(fs, path, clock);
  return {
    store,
    clock,
    async reopen() {
      await store.close();
      return (store = await FileMetaStore.open(fs, path, clock));
    },
    async crash() {
      fs = fs.afterPowerCut(loseUnsynced);
      return (store = await FileMetaStore.open(fs, path, clock));
    },
    dispose: () => store.close(),
  };
});

/** A disk with nothing but the journal, as these bytes. */
function diskWith(bytes: Buffer): MemoryFileSystem {
  const fs = emptyDisk();
  const file = fs.open(path, 'create');
  file.writeNow([bytes], 0);
  file.syncNow();
  file.release();
  fs.syncDirectoryNow('/data');
  return fs;
}

const open = (bytes: Buffer): Promise<FileMetaStore> =>
  FileMetaStore.open(diskWith(bytes), path, new ManualClock());

/** A journal of three commits, and where each of its frames ends. */
async function journal(): Promise<{ bytes: Buffer; ends: number[] }> {
  const fs = emptyDisk();
  const store = await FileMetaStore.open(fs, path, new ManualClock());
  const ends = [fs.size(path)];
  for (const key of ['a', 'b', 'c']) {
    await store.commit({ put: [{ key, value: `value of ${key}` }] });
    ends.push(fs.size(path));
  }
  await store.close();
  return { bytes: readFile(fs, path)!, ends };
}

const keysOf = async (store: FileMetaStore): Promise<string[]> =>
  (await store.range('')).map(({ key }) => key);

test('a journal cut at any byte of its last frame opens with every commit before it, and goes on', async () => {
  const { bytes, ends } = await journal();
  for (let size = ends[2]!; size < bytes.length; size++) {
    const fs = diskWith(bytes.subarray(0, size));
    let store = await FileMetaStore.open(fs, path, new ManualClock());
    expect(await keysOf(store)).toEqual(['a', 'b']);
    await store.commit({ put: [{ key: 'd', value: 'd' }] });
    await store.close();
    store = await FileMetaStore.open(fs, path, new ManualClock());
    expect(await keysOf(store)).toEqual(['a', 'b', 'd']);
    await store.close();
  }
});

test('a last frame of which any byte is wrong, or whose end is zeros, is cut', async () => {
  const { bytes, ends } = await journal();
  for (let at = ends[2]!; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at]! ^= 0x40;
    expect(await keysOf(await open(flipped))).toEqual(['a', 'b']);
    const zeroed = Buffer.from(bytes);
    zeroed.fill(0, at);
    expect(await keysOf(await open(zeroed))).toEqual(['a', 'b']);
  }
});

test('a frame of which any byte has rotted below a sound one is refused, not dropped', async () => {
  const { bytes, ends } = await journal();
  for (let at = 0; at < ends[2]!; at++) {
    const rotten = Buffer.from(bytes);
    rotten[at]! ^= 0x01;
    await expect(open(rotten), `byte ${at}`).rejects.toThrow('RK0305');
  }
});

test('an empty journal and one that is not ours are refused', async () => {
  await expect(open(Buffer.alloc(0))).rejects.toThrow('RK0305');
  await expect(open(Buffer.from('this is somebody else, a long text of theirs'))).rejects.toThrow('RK0305');
  const notJson = Buffer.from('not json');
  const frame = Buffer.alloc(8 + notJson.length);
  frame.writeUInt32BE(notJson.length, 0);
  frame.writeUInt32BE(crc32c([notJson]), 4);
  notJson.copy(frame, 8);
  await expect(open(frame)).rejects.toThrow('RK0305');
});

test('a journal of a newer format is refused', async () => {
  const json = Buffer.from('{"format":2,"revision":0,"put":[],"remove":[]}');
  const head = Buffer.alloc(8);
  head.writeUInt32BE(json.length, 0);
  head.writeUInt32BE(crc32c([json]), 4);
  await expect(open(Buffer.concat([head, json]))).rejects.toThrow(/RK0303.*format 2, this version knows 1/);
});

test('a journal that is mostly history is written anew, and all is there after a crash', async () => {
  let fs = emptyDisk();
  const store = await FileMetaStore.open(fs, path, new ManualClock());
  const value = 'x'.repeat(10_000);
  let largest = 0;
  for (let i = 0; i < 300; i++) {
    await store.commit({ put: [{ key: `k${i % 7}`, value: `${i} ${value}` }] });
    largest = Math.max(largest, fs.size(path));
  }
  expect(largest).toBeLessThan(1.1 * 1024 * 1024);
  fs = fs.afterPowerCut(loseUnsynced);
  const again = await FileMetaStore.open(fs, path, new ManualClock());
  expect((await again.range('k')).map(({ value: held }) => held.split(' ')[0])).toEqual([
    '294',
    '295',
    '296',
    '297',
    '298',
    '299',
    '293',
  ]);
});

test('a crash at any operation keeps every commit that was told, and never half of one', async () => {
  const seed = 20_241;
  const random = new ManualClock({ seed });
  const chance = (): number => random.randomBytes(1)[0]! / 256;
  for (let round = 0; round < 60; round++) {
    const fs = emptyDisk();
    const store = await FileMetaStore.open(fs, path, new ManualClock());
    const told = new Map<string, string>();
    const tried: Map<string, string>[] = [new Map()];
    const stopAt = 3 + Math.floor(chance() * 40);
    fs.failWhen((_, index) => (index >= stopAt ? 'EIO' : null));
    for (let i = 0; i < 12; i++) {
      const value = `${i}`.repeat(1 + Math.floor(chance() * 50));
      const put = [
        { key: `k${i % 3}`, value },
        { key: 'pair', value },
      ];
      tried.push(new Map([...tried.at(-1)!, ...put.map((each) => [each.key, each.value] as const)]));
      const outcome = await store.commit({ put }).catch(() => null);
      if (outcome === null) break;
      for (const each of put) told.set(each.key, each.value);
    }
    const again = await FileMetaStore.open(fs.afterPowerCut(loseSome(chance)), path, new ManualClock());
    const found = new Map((await again.range('')).map(({ key, value }) => [key, value]));
    // What was told, or that and the one commit whose fate nobody was told.
    const [before, last] = [told, tried.at(-1)!];
    expect([[...before].sort(), [...last].sort()], `seed ${seed}, round ${round}`).toContainEqual(
      [...found].sort(),
    );
  }
});

test('after a failed sync nothing more is taken, and what was told is still there', async () => {
  const fs = emptyDisk();
  const store = await FileMetaStore.open(fs, path, new ManualClock());
  await store.commit({ put: [{ key: 'a', value: '1' }] });
  fs.failWhen(({ name }) => (name === 'sync' ? 'EIO' : null));
  const heard: unknown[] = [];
  store.watch('', (changes) => heard.push(changes));
  await expect(store.commit({ put: [{ key: 'b', value: '2' }] })).rejects.toThrow('RK0401');
  fs.failWhen(null);
  await expect(store.commit({ put: [{ key: 'c', value: '3' }] })).rejects.toThrow('RK0401');
  expect(await keysOf(store)).toEqual(['a']);
  expect(heard).toEqual([]);
});

test('a full disk refuses a commit, and takes the next one when there is room again', async () => {
  const fs = emptyDisk();
  const store = await FileMetaStore.open(fs, path, new ManualClock());
  await store.commit({ put: [{ key: 'a', value: '1' }] });
  fs.failWhen(({ name }) => (name === 'write' ? 'ENOSPC' : null));
  await expect(store.commit({ put: [{ key: 'b', value: '2' }] })).rejects.toThrow('RK0401');
  fs.failWhen(null);
  await store.commit({ put: [{ key: 'c', value: '3' }] });
  await store.close();
  expect(await keysOf(await FileMetaStore.open(fs, path, new ManualClock()))).toEqual(['a', 'c']);
});

test('a journal that cannot be written anew goes on as it is', async () => {
  const fs = emptyDisk();
  const store = await FileMetaStore.open(fs, path, new ManualClock());
  const value = 'x'.repeat(100_000);
  fs.failWhen(({ name, path: at }) => (name === 'write' && at.endsWith('.tmp') ? 'ENOSPC' : null));
  for (let i = 0; i < 15; i++) await store.commit({ put: [{ key: 'k', value: `${i} ${value}` }] });
  expect(fs.size(path)).toBeGreaterThan(1_400_000);
  await store.close();
  const again = await FileMetaStore.open(fs, path, new ManualClock());
  expect((await again.get('k'))!.value).toBe(`14 ${value}`);
});
