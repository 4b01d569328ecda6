import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { expect, test } from 'vitest';
import { WireConnection } from '../../support/wire-connection.ts';
import { Ledger } from './ledger.ts';
import { changes, hasStrace, startTraced } from './traced-sidecar.ts';

/** Kills at the n-th change of the disk, for n from 1 on. */
const killsMax = Number(process.env['ROOKERY_KILLS'] ?? 60);
/** More than a life of that many changes can take. */
const writesMax = 2 * killsMax;

test.skipIf(!hasStrace && process.env['CI'] === undefined)(
  `killed at its n-th write, for n up to ${killsMax}, the broker has everything it acknowledged`,
  { timeout: 1_200_000 },
  async () => {
    expect(hasStrace, 'strace works here').toBe(true);
    const dataDir = await mkdtemp(join(tmpdir(), 'rookery-kill-'));
    // One boot of the machine: what is in the page cache is as safe from a kill as what is on the disk.
    const ledgers = [
      new Ledger('synced', { 'flush.mode': 'sync', 'internal.segment.bytes': '2000' }),
      new Ledger('cached', { 'flush.mode': 'os', 'internal.segment.bytes': '2000' }),
    ];
    try {
      for (let n = 1; n <= killsMax; n++) {
        await liveUntil(n, dataDir, ledgers);
        const after = await startSidecar({ dataDir });
        const connection = await WireConnection.open(after.kafka);
        for (const ledger of ledgers) {
          await ledger.create(connection);
          expect(await ledger.discrepancies(connection), `${ledger.topic} after write ${n}`).toEqual([]);
        }
        connection.close();
        // Every other life begins after an orderly stop.
        if (n % 2 === 0) await after.kill();
        else await after.stop();
      }
      for (const ledger of ledgers) expect(ledger.acknowledged).toBeGreaterThan(killsMax / 2);
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  },
);

/** A broker that serves until the n-th change that one of its threads makes to the disk, which it does not live to make. */
async function liveUntil(n: number, dataDir: string, ledgers: readonly Ledger[]): Promise<void> {
  const broker = await startTraced(dataDir, [
    '-o',
    '/dev/null',
    '-e',
    `trace=${changes}`,
    '-e',
    `inject=${changes}:signal=KILL:when=${n}`,
  ]);
  try {
    if (broker.kafka === null) return;
    const connection = await WireConnection.open(broker.kafka);
    for (let i = 0; i < writesMax; i++) for (const ledger of ledgers) await ledger.write(connection);
    connection.close();
  } catch {
    // The connection broke: it is dead.
  } finally {
    await broker.kill();
  }
}
