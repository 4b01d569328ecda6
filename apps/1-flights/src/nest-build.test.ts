import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const app = fileURLToPath(new URL('..', import.meta.url));
let directory: string;
beforeAll(async () => {
  // Below the application, so that the compiler finds its packages; in dist, which nothing keeps.
  await mkdir(join(app, 'dist'), { recursive: true });
  directory = await mkdtemp(join(app, 'dist', 'nest-build-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

test('nest build makes the application out of its sources alone', async () => {
  const tsconfig = join(directory, 'tsconfig.json');
  await writeFile(
    tsconfig,
    JSON.stringify({
      extends: join(app, 'tsconfig.json'),
      compilerOptions: {
        rootDir: join(app, 'src'),
        outDir: join(directory, 'out'),
        tsBuildInfoFile: join(directory, 'out', '.tsbuildinfo'),
      },
      include: [join(app, 'src')],
    }),
  );
  const nest = createRequire(join(root, 'package.json')).resolve('@nestjs/cli/bin/nest.js');
  await promisify(execFile)(
    process.execPath,
    [nest, 'build', 'flights', '--path', relative(root, tsconfig)],
    {
      cwd: root,
    },
  );
  expect(existsSync(join(directory, 'out', 'main.js'))).toBe(true);
});
