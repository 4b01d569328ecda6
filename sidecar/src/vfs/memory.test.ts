import { hash } from 'node:crypto';
import { expect, test } from 'vitest';
import { readFile, writeAtomicallyNow } from './file-system.ts';
import { MemoryFileSystem } from './memory.ts';
import { loseAfter, loseUnsynced, tear, tears } from './power-cut.ts';

const text = (fs: MemoryFileSystem, path: string): string | null =>
  readFile(fs, path)?.toString('latin1') ?? null;

function diskWith(path: string, content: string): MemoryFileSystem {
  const fs = new MemoryFileSystem();
  writeAtomicallyNow(fs, path, Buffer.from(content));
  return fs;
}

test('a kill leaves everything that was written', () => {
  const fs = diskWith('/a', 'synced');
  fs.open('/a', 'write').writeNow([Buffer.from(', not')], 6);
  fs.open('/b', 'create').writeNow([Buffer.from('new')], 0);
  const after = fs.afterKill();
  expect(text(after, '/a')).toBe('synced, not');
  expect(text(after, '/b')).toBe('new');
});

test('what a killed process had not synced is still not synced', () => {
  const fs = diskWith('/a', 'synced');
  fs.open('/a', 'write').writeNow([Buffer.from(', not')], 6);
  expect(text(fs.afterKill().afterPowerCut(loseUnsynced), '/a')).toBe('synced');
  const after = fs.afterKill();
  after.open('/a', 'write').syncNow();
  expect(text(after.afterPowerCut(loseUnsynced), '/a')).toBe('synced, not');
});

test('a power cut takes bytes and names that no sync has covered', () => {
  const fs = diskWith('/a', 'synced');
  fs.open('/a', 'write').writeNow([Buffer.from('SYNCED!')], 0);
  const b = fs.open('/b', 'create');
  b.writeNow([Buffer.from('bytes')], 0);
  b.syncNow();
  const after = fs.afterPowerCut(loseUnsynced);
  expect(text(after, '/a')).toBe('synced');
  expect(after.exists('/b')).toBe(false);
  fs.syncDirectoryNow('/');
  expect(text(fs.afterPowerCut(loseUnsynced), '/b')).toBe('bytes');
});

test('a later write that outlives an earlier one leaves a hole of zeros', () => {
  const fs = diskWith('/a', '');
  const file = fs.open('/a', 'write');
  file.writeNow([Buffer.from('one')], 0);
  const first = fs.lastChange!.sequence;
  file.writeNow([Buffer.from('two')], 3);
  expect(
    text(
      fs.afterPowerCut(({ sequence }) => sequence !== first),
      '/a',
    ),
  ).toBe('\0\0\0two');
  expect(text(fs.afterPowerCut(loseAfter(first)), '/a')).toBe('one');
});

test('the last write may be torn at any byte, by a kill as by a power cut', () => {
  const fs = diskWith('/a', '');
  fs.open('/a', 'write').writeNow([Buffer.from('abcdef')], 0);
  expect(text(fs.afterKill({ from: 0, to: 2 }), '/a')).toBe('ab');
  expect(text(fs.afterPowerCut(tear(fs.lastChange!.sequence, { from: 4, to: 6 })), '/a')).toBe('\0\0\0\0ef');
});

test('writes are torn at sectors, from either end, and at a stray byte', () => {
  expect(tears(1_100, () => 0.5)).toEqual([
    { from: 0, to: 512 },
    { from: 512, to: 1_100 },
    { from: 0, to: 1_024 },
    { from: 1_024, to: 1_100 },
    { from: 0, to: 550 },
  ]);
});

test('a truncation is a change like any other', () => {
  const fs = diskWith('/a', 'abcdef');
  const file = fs.open('/a', 'write');
  file.truncateNow(2);
  expect(text(fs, '/a')).toBe('ab');
  expect(text(fs.afterPowerCut(loseUnsynced), '/a')).toBe('abcdef');
  file.syncNow();
  expect(text(fs.afterPowerCut(loseUnsynced), '/a')).toBe('ab');
});

test('a sync covers what was written before it began, and only once it has ended', async () => {
  const fs = diskWith('/a', '');
  let end = (): void => {};
  fs.untilSynced = () => new Promise((resolve) => (end = resolve));
  const file = fs.open('/a', 'write');
  file.writeNow([Buffer.from('one')], 0);
  const syncing = file.sync();
  file.writeNow([Buffer.from('two')], 3);
  expect(text(fs.afterPowerCut(loseUnsynced), '/a')).toBe('');
  end();
  await syncing;
  expect(text(fs.afterPowerCut(loseUnsynced), '/a')).toBe('one');
});

test('bytes whose sync failed are read back until the power goes, and no later sync saves them', async () => {
  const fs = diskWith('/a', '');
  const file = fs.open('/a', 'write');
  file.writeNow([Buffer.from('lost')], 0);
  fs.failWhen(({ name }) => (name === 'sync' ? 'EIO' : null));
  await expect(file.sync()).rejects.toMatchObject({ code: 'EIO' });
  fs.failWhen(null);
  file.writeNow([Buffer.from('kept')], 4);
  await file.sync();
  expect(text(fs, '/a')).toBe('lostkept');
  expect(
    text(
      fs.afterPowerCut(() => true),
      '/a',
    ),
  ).toBe('\0\0\0\0kept');
});

test('a full disk takes what fits and then says so', () => {
  const fs = diskWith('/a', 'abc');
  fs.capacityBytes = 5;
  const file = fs.open('/a', 'write');
  expect(() => file.writeNow([Buffer.from('defg')], 3)).toThrow(/ENOSPC/);
  expect(text(fs, '/a')).toBe('abcde');
  file.writeNow([Buffer.from('ABCDE')], 0);
  file.truncateNow(0);
  fs.open('/b', 'create').writeNow([Buffer.from('room')], 0);
  expect(text(fs, '/b')).toBe('room');
});

test('a file used after its last release says so', () => {
  const fs = diskWith('/a', 'abc');
  const file = fs.open('/a', 'read');
  expect(fs.openFiles).toBe(1);
  file.retain();
  file.release();
  file.release();
  expect(fs.openFiles).toBe(0);
  expect(() => file.readNow(Buffer.alloc(1), 0)).toThrow(/EBADF/);
});

test('disks with the same names and bytes have the same fingerprint', () => {
  const sha1 = (content: Buffer | string): string => hash('sha1', content);
  const print = diskWith('/a', 'abc').fingerprint('/', sha1);
  expect(diskWith('/a', 'abc').fingerprint('/', sha1)).toBe(print);
  expect(diskWith('/a', 'abd').fingerprint('/', sha1)).not.toBe(print);
  expect(diskWith('/b', 'abc').fingerprint('/', sha1)).not.toBe(print);
});
