import { expect, test } from 'vitest';
import { Campaign, type CampaignOptions } from './campaign.ts';
import { BrokenPromise } from './broken-promise.ts';

/** One seed replays a run; CI gives it all the time that it has. */
const seed = Number(process.env['ROOKERY_SEED'] ?? 1);
const seconds = process.env['ROOKERY_CRASH_SECONDS'];
const enough: Pick<CampaignOptions, 'seconds' | 'states'> =
  seconds === undefined ? { states: 20_000 } : { seconds: Number(seconds) };

test('whatever a crash leaves, recovery keeps every promise', { timeout: 3_600_000 }, async () => {
  const campaign = new Campaign({ seed, ...enough });
  try {
    await campaign.run();
  } finally {
    console.log(`seed ${seed}: ${campaign.summary}`);
  }
  expect(campaign.tally.states).toBeGreaterThanOrEqual(enough.states ?? 1);
});

/** What was found wrong, when something was planted that must be found. */
async function found(planted: CampaignOptions['planted']): Promise<string> {
  const campaign = new Campaign({ seed, states: 5_000, planted: planted! });
  return campaign.run().then(
    () => 'nothing',
    (error: Error) => (error instanceof BrokenPromise ? error.message : String(error)),
  );
}

const isOfLog = (path: string): boolean => path.endsWith('.log');

test('who takes an acknowledgement from the page cache for one from the disk sees losses', async () => {
  expect(await found({ believes: 'sync' })).toMatch(
    /power cut.*\n.*(cached|periodic): (it ends at \d+, \d+ was promised|it is gone)/,
  );
});

test('a disk that only says it has synced a log is found out', async () => {
  const ignores = ({ name, path }: { name: string; path: string }): boolean =>
    name === 'sync' && isOfLog(path);
  expect(await found({ ignores })).toMatch(/power cut.*\n.*it ends at \d+, \d+ was promised/);
});

test('a disk that only says it has synced a directory is found out', async () => {
  expect(await found({ ignores: ({ name }) => name === 'syncDirectory' })).toMatch(/power cut.*\n/);
});

test('a recovery that leaves the torn tail in place is found out', async () => {
  const ignores = ({ name, path }: { name: string; path: string }): boolean =>
    name === 'truncate' && isOfLog(path);
  expect(await found({ ignores })).toMatch(/stands what nobody sent/);
});

test('a recovery that leaves loose segments in place is found out', async () => {
  const ignores = ({ name, path }: { name: string; path: string }): boolean =>
    name === 'remove' && isOfLog(path);
  expect(await found({ ignores })).toMatch(/its files|stands|recovered again|nobody sent|was ever appended/);
});

test('a disk that only says it has synced a time index misleads nobody: the log has the last word', async () => {
  const ignores = ({ name, path }: { name: string; path: string }): boolean =>
    name === 'sync' && path.endsWith('.timeindex');
  expect(await found({ ignores })).toBe('nothing');
});
