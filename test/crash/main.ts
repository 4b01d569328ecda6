import { parseArgs } from 'node:util';
import { Campaign } from './campaign.ts';

// npm run crash -- --seconds 3600 --seed 7
const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    steps: { type: 'string', default: '160' },
  },
});
const seed = Number(values.seed);
const seconds = Number(values.seconds);
console.log(`crashing for ${seconds} s, lives from seed ${seed} on`);
const campaign = new Campaign({ seed, seconds, steps: Number(values.steps) });
const report = setInterval(() => console.log(campaign.summary), 10_000);
try {
  await campaign.run();
} finally {
  clearInterval(report);
  console.log(campaign.summary);
}
