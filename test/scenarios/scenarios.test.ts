import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { Scenario } from './scenario.ts';

// Commands, and under ---- what they show. ROOKERY_REWRITE=1 writes what they show now; the diff is the review.
const rewrite = process.env['ROOKERY_REWRITE'] === '1';
const directory = fileURLToPath(new URL('.', import.meta.url));

for (const name of readdirSync(directory).filter((file) => file.endsWith('.txt'))) {
  test(`scenario ${name}`, async () => {
    const path = `${directory}/${name}`;
    const text = readFileSync(path, 'utf8');
    const shown = await play(text);
    if (rewrite) writeFileSync(path, shown);
    else expect(shown).toBe(text);
  });
}

/** The text with what its commands show now. A blank line ends a block; a line with # is kept as it is. */
async function play(text: string): Promise<string> {
  const scenario = await Scenario.boot();
  const blocks: string[] = [];
  for (const block of text.trimEnd().split(/\n\n+/)) {
    const lines = block.split('\n');
    const end = lines.indexOf('----');
    const commands = end < 0 ? lines : lines.slice(0, end);
    const shown: string[] = [];
    for (const line of commands) if (!line.startsWith('#')) shown.push(...(await scenario.run(line)));
    blocks.push([...commands, ...(shown.length > 0 ? ['----', ...shown] : [])].join('\n'));
  }
  return `${blocks.join('\n\n')}\n`;
}
