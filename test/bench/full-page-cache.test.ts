import { readdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FullPageCache } from './full-page-cache.ts';

const homes = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('rookery-page-cache-'));

test('a page cache is filled until little memory is unused, and emptied', () => {
  const before = homes();
  const unused = [300, 200, 100];
  const cache = new FullPageCache(150, () => unused.shift()!);
  cache.fill();
  const [home] = homes().filter((name) => !before.includes(name));
  const sizes = readdirSync(join(tmpdir(), home!)).map((name) => statSync(join(tmpdir(), home!, name)).size);
  expect(sizes).toEqual([268_435_456, 268_435_456]);
  cache.empty();
  expect(homes()).not.toContain(home);
});
