import { expect, test } from 'vitest';
import { Campaign } from './campaign.ts';

const seed = Number(process.env['ROOKERY_SEED'] ?? 1);
const seconds = Number(process.env['ROOKERY_CRASH_SECONDS'] ?? 20);

test(
  'whatever a crash leaves, recovery keeps every promise',
  { timeout: (seconds + 60) * 1_000 },
  async () => {
    const campaign = new Campaign({ seed, seconds });
    try {
      await campaign.run();
    } finally {
      console.log(`seed ${seed}: ${campaign.summary}`);
    }
    expect(campaign.tally.states).toBeGreaterThan(100);
  },
);
