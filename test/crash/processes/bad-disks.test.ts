import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { WireConnection } from '../../support/wire-connection.ts';
import { Ledger } from './ledger.ts';

// Real disks that fail in the ways of real disks. Mounting needs root; where there is no root these tests say so.

const isRoot = process.getuid?.() === 0;
const canMount = isRoot && spawnSync('mount', ['--version']).status === 0;
const isSkipped = !canMount && process.env['CI'] === undefined;

/** Small enough that a few hundred writes fill them. */
const tmpfsBytes = 8 * 1024 * 1024;
const kibibyte = 1024;
/** The guard against full disks is off: the writes themselves meet the end of the disk. */
const unguarded = { 'disk.min.free.bytes': 0, 'disk.reserve.bytes': 0 };

/** What has to go when the test is over, the latest first. */
let cleanups: (() => void | Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  cleanups = [];
});

function workplace(): string {
  const directory = mkdtempSync(join(tmpdir(), 'rookery-disk-'));
  cleanups.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function mount(args: readonly string[], at: string): void {
  mkdirSync(at, { recursive: true });
  execFileSync('mount', [...args, at]);
  cleanups.push(() => void spawnSync('umount', ['-l', at]));
}

async function start(dataDir: string, settings: Record<string, string | number>): Promise<SidecarProcess> {
  const sidecar = await startSidecar({ dataDir, settings });
  cleanups.push(() => sidecar.kill());
  return sidecar;
}

async function connect(sidecar: SidecarProcess): Promise<WireConnection> {
  const connection = await WireConnection.open(sidecar.kafka);
  cleanups.push(() => connection.close());
  return connection;
}

/** Writes until the broker refuses. @returns its answer */
async function writeUntilRefused(ledger: Ledger, connection: WireConnection, size: number): Promise<string> {
  for (let i = 0; i < 2_000; i++) {
    const answer = await ledger.write(connection, size);
    if (answer !== 'NONE') return answer;
  }
  throw new Error('it was never refused');
}

describe.skipIf(isSkipped)('a full disk', () => {
  const full = { 'internal.segment.bytes': '300000' };

  test.each(['sync', 'os'])(
    'refuses what does not fit and takes more once there is room, in flush mode %s',
    async (flushMode) => {
      const disk = workplace();
      mount(['-t', 'tmpfs', '-o', `size=${tmpfsBytes}`, 'tmpfs'], disk);
      const sidecar = await start(`${disk}/data`, unguarded);
      const connection = await connect(sidecar);
      const ledger = new Ledger('orders', { ...full, 'flush.mode': flushMode });
      await ledger.create(connection);
      writeFileSync(`${disk}/ballast`, Buffer.alloc(4 * 1024 * kibibyte));

      expect(await writeUntilRefused(ledger, connection, 20 * kibibyte)).toBe('KAFKA_STORAGE_ERROR');
      expect(await ledger.discrepancies(connection)).toEqual([]);

      rmSync(`${disk}/ballast`);
      expect(await ledger.write(connection)).toBe('NONE');
      expect(await ledger.discrepancies(connection)).toEqual([]);

      await sidecar.kill();
      const again = await start(`${disk}/data`, unguarded);
      expect(await ledger.discrepancies(await connect(again))).toEqual([]);
    },
  );

  test('is met before it is full, and the broker can still be stopped in order', async () => {
    const disk = workplace();
    mount(['-t', 'tmpfs', '-o', `size=${tmpfsBytes}`, 'tmpfs'], disk);
    const guard = { 'disk.min.free.bytes': 2_000_000, 'disk.reserve.bytes': 500_000 };
    const sidecar = await start(`${disk}/data`, guard);
    const connection = await connect(sidecar);
    const ledger = new Ledger('orders', full);
    await ledger.create(connection);
    writeFileSync(`${disk}/ballast`, Buffer.alloc(6 * 1024 * kibibyte));

    expect(await writeUntilRefused(ledger, connection, 20 * kibibyte)).toBe('KAFKA_STORAGE_ERROR');
    expect(await ledger.discrepancies(connection)).toEqual([]);
    expect(await sidecar.stop()).toBe(0);
    expect(existsSync(`${disk}/data/.kafka_cleanshutdown`)).toBe(true);
  });
});

describe.skipIf(isSkipped)('a disk that became read-only', () => {
  test('is refused at the start with a clear error, and nothing is lost by it', async () => {
    const disk = workplace();
    mount(['-t', 'tmpfs', '-o', `size=${tmpfsBytes}`, 'tmpfs'], disk);
    const sidecar = await start(`${disk}/data`, unguarded);
    const connection = await connect(sidecar);
    const ledger = new Ledger('orders', { 'internal.segment.bytes': '2000' });
    await ledger.create(connection);
    for (let i = 0; i < 20; i++) expect(await ledger.write(connection)).toBe('NONE');
    await sidecar.kill();
    execFileSync('mount', ['-o', 'remount,ro', disk]);
    await expect(start(`${disk}/data`, unguarded)).rejects.toThrow(/RK0301.*EROFS/);
    execFileSync('mount', ['-o', 'remount,rw', disk]);
    const again = await start(`${disk}/data`, unguarded);
    expect(await ledger.discrepancies(await connect(again))).toEqual([]);
  });
});

describe.skipIf(isSkipped)('a disk that becomes read-only under a broker', () => {
  test('can be read to the last record, also from files that nobody had open', async () => {
    const place = workplace();
    const image = `${place}/disk.img`;
    execFileSync('truncate', ['-s', '64m', image]);
    execFileSync('mkfs.ext4', ['-qF', image]);
    mount(['-o', 'loop,errors=remount-ro', image], `${place}/disk`);
    const sidecar = await start(`${place}/disk/data`, unguarded);
    const connection = await connect(sidecar);
    const ledger = new Ledger('orders', { 'internal.segment.bytes': '2000', 'flush.mode': 'sync' });
    await ledger.create(connection);
    for (let i = 0; i < 20; i++) expect(await ledger.write(connection)).toBe('NONE');

    const mounted = readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' '));
    const [device] = mounted.find(([, at]) => at === `${place}/disk`)!;
    const trigger = `/sys/fs/ext4/${basename(device!)}/trigger_fs_error`;
    writeFileSync(trigger, '1');
    expect(await ledger.write(connection)).toBe('KAFKA_STORAGE_ERROR');
    expect(await ledger.discrepancies(connection)).toEqual([]);
  });
});

describe.skipIf(isSkipped)('a disk whose sync fails', () => {
  test('is never synced again: the partition goes offline, and what was acknowledged is on the platter', async () => {
    // ext4 on a file that cannot grow any more: the page cache takes the bytes, and the sync has nowhere to put them.
    const place = workplace();
    mount(['-t', 'tmpfs', '-o', 'size=6m', 'tmpfs'], `${place}/small`);
    const image = `${place}/small/disk.img`;
    execFileSync('truncate', ['-s', '32m', image]);
    execFileSync('mkfs.ext4', ['-qF', '-m', '0', image]);
    mount(['-o', 'loop', image], `${place}/disk`);
    const sidecar = await start(`${place}/disk/data`, unguarded);
    const connection = await connect(sidecar);
    const ledger = new Ledger('orders', { 'flush.mode': 'sync' });
    await ledger.create(connection);

    expect(await writeUntilRefused(ledger, connection, 100 * kibibyte)).toBe('KAFKA_STORAGE_ERROR');
    expect(ledger.acknowledged).toBeGreaterThan(5);
    // The kernel would now report success for the same bytes: whoever asks again is lied to.
    expect(await ledger.write(connection)).toBe('KAFKA_STORAGE_ERROR');
    await vi.waitFor(() => expect(sidecar.log()).toMatch(/a partition is offline/));
    expect(await ledger.discrepancies(connection)).toEqual([]);
    await sidecar.kill();

    // What is on the platter, without what the page cache still shows.
    spawnSync('umount', ['-l', `${place}/disk`]);
    execFileSync('mount', ['-o', 'remount,size=64m', `${place}/small`]);
    mount(['-o', 'loop', image], `${place}/again`);
    cpSync(`${place}/again/data`, `${place}/rescued`, { recursive: true });
    expect(readdirSync(`${place}/rescued`)).toContain('orders-0');
    const again = await start(`${place}/rescued`, {});
    expect(await ledger.discrepancies(await connect(again))).toEqual([]);
  });
});
