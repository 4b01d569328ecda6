import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startSidecar } from '@rookery/testing';
import { expect, test } from 'vitest';
import { WireConnection } from '../../support/wire-connection.ts';
import { Ledger } from './ledger.ts';
import { hasStrace, startTraced } from './traced-sidecar.ts';

test.skipIf(!hasStrace && process.env['CI'] === undefined).each([
  // Written in turns, neither log is alone, so the pool syncs: its seventh sync of the segment fails.
  { where: 'on the pool', failing: 7, isAlone: false },
  // The pool syncs a new file once. Then the log is alone and the loop syncs it, unless the disk is slow: the second
  // sync of either fails.
  { where: 'on the loop', failing: 2, isAlone: true },
])(
  'a sync that failed $where is not tried again, the other partitions serve on, and nothing unsynced is trusted',
  { timeout: 120_000 },
  async ({ failing, isAlone }) => {
    expect(hasStrace, 'strace works here').toBe(true);
    const directory = await mkdtemp(join(tmpdir(), 'rookery-sync-'));
    const dataDir = `${directory}/data`;
    const trace = `${directory}/trace`;
    const segment = `${dataDir}/orders-0/00000000000000000000.log`;
    try {
      const inject = `inject=fdatasync:error=EIO:when=${failing}`;
      const traced = ['-y', '-o', trace, '-P', segment, '-e', 'trace=fdatasync', '-e', inject];
      const broker = await startTraced(dataDir, traced);
      const connection = await WireConnection.open(broker.kafka!);
      const orders = new Ledger('orders', { 'flush.mode': 'sync' });
      const others = new Ledger('others', { 'flush.mode': 'sync' });
      await orders.create(connection);
      await others.create(connection);
      const answers: string[] = [];
      for (let i = 0; i < failing + 3; i++) {
        if (!isAlone) expect(await others.write(connection)).toBe('NONE');
        answers.push(await orders.write(connection));
        if (isAlone && i === 0) await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const acknowledged = answers.indexOf('KAFKA_STORAGE_ERROR');
      expect(acknowledged).toBeGreaterThanOrEqual(isAlone ? 1 : failing - 1);
      expect(new Set(answers.slice(0, acknowledged))).toEqual(new Set(['NONE']));
      expect(new Set(answers.slice(acknowledged))).toEqual(new Set(['KAFKA_STORAGE_ERROR']));
      for (let i = 0; i < 3; i++) expect(await others.write(connection)).toBe('NONE');
      await broker.kill();

      const syncs = (await readFile(trace, 'utf8')).split('\n').filter((line) => line.includes('fdatasync('));
      expect(syncs.filter((line) => line.includes('EIO'))).toHaveLength(1);
      expect(syncs.at(-1)).toContain('EIO');

      // The bytes of the failed group read back fine; that means nothing, so they are cut.
      const again = await startSidecar({ dataDir });
      const after = await WireConnection.open(again.kafka);
      expect(await orders.read(after)).toHaveLength(acknowledged);
      for (const ledger of [orders, others]) expect(await ledger.discrepancies(after)).toEqual([]);
      expect(await orders.write(after)).toBe('NONE');
      after.close();
      await again.kill();
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
);
