import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(`${root}README.md`, 'utf8');

test("the README's service compiles against the packages as they were built", () => {
  const example = /```ts\n(.*?)```/s.exec(readme)![1]!;
  const { config } = ts.readConfigFile(`${root}tsconfig.base.json`, ts.sys.readFile) as {
    config: { compilerOptions: object };
  };
  const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
  Object.assign(options, { experimentalDecorators: true, emitDecoratorMetadata: true, noEmit: true });
  Object.assign(options, { composite: false, incremental: false, declaration: false, declarationMap: false });
  // In the folder of the tests, where its imports are found; the file itself is nowhere.
  const file = `${root}test/readme-example.ts`;
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (path) => path === file || fileExists(path);
  host.readFile = (path) => (path === file ? example : readFile(path));
  host.getSourceFile = (path, ...rest) =>
    path === file ? ts.createSourceFile(path, example, rest[0]) : getSourceFile(path, ...rest);
  const program = ts.createProgram([file], options, host);
  const problems = ts
    .getPreEmitDiagnostics(program)
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
  expect(problems).toEqual([]);
});

test('the README is short enough to be read', () => {
  expect(readme.split('\n').length).toBeLessThanOrEqual(121);
});
