import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const demo = fileURLToPath(new URL('../dist/demo.js', import.meta.url));

/** Runs the demo with a tenth of its events; `seen` is told everything that it has said so far. */
function run(seen: (output: string, stop: () => void) => void = () => {}) {
  const child = spawn(process.execPath, [demo], { env: { ...process.env, FLIGHTS_ROUNDS: '1' } });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      seen(output, () => child.kill('SIGINT'));
    });
  return new Promise<{ code: number | null; output: string }>((resolve) =>
    child.once('close', (code) => resolve({ code, output })),
  );
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Its sidecar is gone, and so is its directory. */
async function expectNothingLeft(output: string): Promise<void> {
  const [, pid, directory] = /^sidecar (\d+) at \S+, its log in (\S+)$/m.exec(output)!;
  // A process that was killed goes as soon as the system has time for it.
  await expect.poll(() => isRunning(Number(pid)), { timeout: 30_000 }).toBe(false);
  expect(existsSync(directory!)).toBe(false);
}

test('every departure is handled in order, and again after a restart of the sidecar', async () => {
  const { code, output } = await run();
  expect(output).toMatch(/published and handled: 20,000 of 20,000\n/);
  expect(output).toMatch(/\nairport +departures[^\n]+\nDFW +1103 /);
  expect(output).toMatch(/read again by a new group: 20,000 of 20,000\n/);
  expect(output).toMatch(/the same table, every event in order per airport, both times\n/);
  expect(output).toMatch(/\npublish to handler +[\d,]+ events\/s/);
  expect(code).toBe(0);
  await expectNothingLeft(output);
});

test.each([1, 2])('stopped in the middle by %i signals, it leaves nothing behind', async (signals) => {
  let sent = 0;
  const { code, output } = await run((said, stop) => {
    if (said.includes('published and handled') && sent++ === 0) for (let i = 0; i < signals; i++) stop();
  });
  expect(code).toBe(130);
  expect(output).not.toContain('FAILED');
  await expectNothingLeft(output);
});
