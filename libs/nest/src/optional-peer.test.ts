import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const built = (path: string): string => new URL(`../dist/${path}`, import.meta.url).href;

/** Imports a module where `@nestjs/microservices` is not installed. */
async function importAlone(path: string): Promise<string> {
  const script = `
    import { registerHooks } from 'node:module';
    registerHooks({
      resolve(specifier, context, next) {
        if (specifier.startsWith('@nestjs/microservices')) throw new Error('not installed: ' + specifier);
        return next(specifier, context);
      },
    });
    const { Ctx, Subscribe, RookeryServer } = await import(${JSON.stringify(built(path))});
    console.log(typeof Ctx, typeof Subscribe, typeof RookeryServer);
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
  });
  return stdout.trim();
}

test('the module and its decorators do without @nestjs/microservices', async () => {
  expect(await importAlone('index.js')).toBe('function function undefined');
});

test('the transport does not', async () => {
  await expect(importAlone('microservices/index.js')).rejects.toThrow(
    /not installed: @nestjs\/microservices/,
  );
});
