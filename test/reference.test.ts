import { readFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { clientErrors } from '@rookery/client';
import { engineErrors } from '@rookery/engine';
import { sidecarErrors } from '@rookery/sidecar';
import { wireErrors } from '@rookery/wire';
import { beforeAll, describe, expect, test } from 'vitest';
// @ts-expect-error: a script of the repository, without types
import { referencePages } from '../scripts/reference.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const tracked = (...patterns: string[]): string[] =>
  execFileSync('git', ['ls-files', ...patterns], { cwd: root, encoding: 'utf8' })
    .trim()
    .split('\n');

const documents = ['README.md', 'CHANGELOG.md', 'docs/*.md', 'docs/**/*.md'];

test('the generated pages say what the code says: `npm run docs` after changing a table', async () => {
  const pages = (await referencePages()) as Record<string, string>;
  for (const [path, text] of Object.entries(pages)) expect(read(path), path).toBe(text);
});

test('what is served does not stand among what is not', () => {
  const [served, gaps] = read('docs/compatibility.md').split('## Not served yet');
  const names = [...served!.matchAll(/^\| \d+ +\| (\w+)/gm)].map(([, name]) => name!);
  expect(names.length).toBeGreaterThan(15);
  expect(names.filter((name) => new RegExp(`\\b${name}\\b`).test(gaps!))).toEqual([]);
});

describe('error codes', () => {
  const tables = { ...wireErrors, ...clientErrors, ...engineErrors, ...sidecarErrors };
  const used = new Set<string>();
  beforeAll(() => {
    const sources = tracked('libs/*/src/*.ts', 'sidecar/src/*.ts').filter(
      (path) => !path.endsWith('.test.ts') && !path.endsWith('/errors.ts'),
    );
    for (const path of sources) for (const [code] of read(path).matchAll(/\bRK\d{4}\b/g)) used.add(code);
  });

  test('every code that is raised stands in a table', () => {
    expect([...used].filter((code) => !(code in tables))).toEqual([]);
  });

  test('every code in a table is raised somewhere', () => {
    expect(Object.keys(tables).filter((code) => !used.has(code))).toEqual([]);
  });

  test('no document names a code that does not exist', () => {
    const named = tracked(...documents).flatMap((path) => read(path).match(/\bRK\d{4}\b/g) ?? []);
    expect(named.filter((code) => !(code in tables))).toEqual([]);
  });
});

test('every event that is listed happens: a room emits it', () => {
  const listed = [...read('docs/reference/events.md').matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name!);
  const rooms = tracked('sidecar/src/*.ts').map(read).join('\n');
  expect(listed.length).toBeGreaterThan(10);
  expect(listed.filter((name) => !rooms.includes(`emit('${name}'`))).toEqual([]);
});

describe('documents and code name each other truly', () => {
  const sources = tracked('libs/*.ts', 'sidecar/*.ts', 'apps/*.ts', 'test/*.ts', 'scripts/*');

  test('every page that a source file names exists', () => {
    const pages = new Set(tracked('docs'));
    const missing = sources.flatMap((path) =>
      (read(path).match(/\bdocs\/[\w/-]+\.md\b/g) ?? [])
        .filter((page) => !pages.has(page))
        .map((page) => `${path} names ${page}`),
    );
    expect(missing).toEqual([]);
  });

  test('every link between documents leads somewhere', () => {
    const everything = new Set(tracked());
    for (const path of tracked(...documents)) {
      for (const [, target] of read(path).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
        const there = join(path, '..', target!).replace(/\/$/, '');
        const exists = everything.has(there) || [...everything].some((file) => file.startsWith(`${there}/`));
        expect(exists, `${path} links to ${target}`).toBe(true);
      }
    }
  });

  test('every file and function that a tour names is there', () => {
    const steps = tracked('docs/*.md', 'docs/tour/*.md').flatMap((path) =>
      [...read(path).matchAll(/`((?:libs|sidecar)\/[\w./-]+\.ts)` → ([^.:;|\n]*)/g)].map((match) => ({
        path,
        file: match[1]!,
        functions: [...match[2]!.matchAll(/`([\w.#]+)(?:\(\))?`/g)].map(([, name]) =>
          name!.split('.').at(-1)!,
        ),
      })),
    );
    expect(steps.length).toBeGreaterThan(20);
    for (const { path, file, functions } of steps) {
      const text = read(file);
      for (const name of functions) {
        expect(text, `${path} names ${name} in ${file}`).toMatch(
          new RegExp(`(^|[\\s#.])${name.replace('#', '')}\\b`, 'm'),
        );
      }
    }
  });

  test('every npm script that a document names is there, and hacking.md names them all', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = (text: string): string[] =>
      [...text.matchAll(/npm (?:run )?(test|(?<=run )[\w:]+)/g)].map(([, script]) => script!);
    for (const path of tracked(...documents))
      for (const script of named(read(path))) expect(Object.keys(scripts), path).toContain(script);
    const lifecycle = ['prepare', 'clean'];
    const missing = Object.keys(scripts).filter((script) => !lifecycle.includes(script));
    expect(missing.filter((script) => !named(read('docs/hacking.md')).includes(script))).toEqual([]);
  });

  test('every path that a document names in code is there', () => {
    const everything = tracked();
    for (const path of tracked('README.md', 'docs/*.md', 'docs/**/*.md')) {
      const named = read(path).match(/`(?:libs|sidecar|apps|test|scripts|docs)\/[\w./-]*\w`/g) ?? [];
      for (const name of named) {
        const file = name.slice(1, -1);
        const exists = everything.some((each) => each === file || each.startsWith(`${file}/`));
        expect(exists, `${path} names ${file}`).toBe(true);
      }
    }
  });
});
