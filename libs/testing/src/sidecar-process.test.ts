import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { startSidecar } from './sidecar-process.ts';

test('a sidecar of its own serves until it is stopped, and its directory goes with it', async () => {
  const sidecar = await startSidecar();
  expect((await fetch(`${sidecar.admin}/health/ready`)).status).toBe(200);
  expect(existsSync(sidecar.dataDir)).toBe(true);
  expect(await sidecar.stop()).toBe(0);
  expect(existsSync(sidecar.dataDir)).toBe(false);
});

test('a sidecar that refuses its settings says why', async () => {
  await expect(startSidecar({ settings: { 'num.partition': 4 } })).rejects.toThrow(
    /RK0102.*did you mean 'num.partitions'/,
  );
});
