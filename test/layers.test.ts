import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Plant {
  readonly file: string;
  readonly line: string;
  /** What the linter must answer: what to import instead. Absent where the line is lawful. */
  readonly says?: RegExp | undefined;
}

const imports = (from: string): string => `import * as planted from '${from}';\nvoid planted;`;
const plant = (file: string, from: string, says?: RegExp): Plant => ({ file, line: imports(from), says });
const uses = (file: string, line: string, says?: RegExp): Plant => ({ file, line, says });

const packages: Plant[] = [
  plant('libs/wire/src', '@rookery/client', /imports none/),
  plant('libs/wire/src/messages', 'node:fs', /wire does no I\/O/),
  plant('libs/wire/src', 'node:net', /wire does no I\/O/),
  plant('libs/client/src', '@rookery/wire'),
  plant('libs/client/src', '@rookery/engine', /client sees '@rookery\/wire' alone/),
  plant('libs/client/src', 'node:tls', /import Connection from '.\/connection.ts'/),
  plant('libs/client/src', 'fs/promises', /client keeps no files/),
  plant('libs/engine/src', '@rookery/client', /engine knows no transport/),
  plant('libs/engine/src', '@rookery/wire', /engine knows no transport/),
  plant('libs/engine/src', 'node:net', /engine does no I\/O/),
  plant('libs/engine/src', '@nestjs/common', /does not know Nest/),
  plant('libs/kafka/src', '@rookery/client'),
  plant('libs/kafka/src', '@rookery/engine'),
  plant('libs/kafka/src', '@rookery/sidecar', /reached through its socket/),
  plant('libs/kafka/src', '@rookery/nest', /kafka sees/),
  plant('libs/nest/src', '@rookery/engine'),
  plant('libs/nest/src', '@rookery/kafka', /nest sees '@rookery\/engine' alone/),
  plant('libs/nest/src', 'node:fs', /nest does no I\/O/),
  plant('libs/kafka/src', '@rookery/client/dist/connection.js', /A package is its index.ts/),
  plant('libs/testing/src', '@rookery/sidecar'),
  plant('sidecar/src', '@rookery/engine', /SDK reaches it through its socket/),
  plant('sidecar/src/log', '@nestjs/common', /SDK reaches it through its socket/),
  plant('sidecar/src/server', '@rookery/client'),
];

/** From the ground up. A room sees what stands below it, and not its neighbours on the same floor. */
const floors = [
  ['vfs'],
  ['log', 'cluster'],
  ['replication'],
  ['groups', 'transactions'],
  ['server', 'admin'],
];
const top = ['broker', 'main'];

const rooms: Plant[] = floors.flatMap((floor, height) =>
  floor.flatMap((room) => [
    ...floors
      .slice(0, height)
      .flatMap((lower) => lower.map((seen) => plant(at(room), `../${seen}/planted.ts`))),
    ...floors
      .slice(height)
      .flat()
      .filter((seen) => seen !== room)
      .map((seen) => plant(at(room), `../${seen}/planted.ts`, new RegExp(`${room} is floor \\d: it sees`))),
    ...top.map((seen) => plant(at(room), `../${seen}.ts`, new RegExp(`${room} is floor \\d: it sees`))),
    plant(at(room), '../config.ts'),
    plant(at(room), '../cli/start.ts', new RegExp(`${room} is floor \\d: it sees`)),
    plant(`${at(room)}/deeper`, '../../broker.ts', new RegExp(`${room} is floor \\d: it sees`)),
  ]),
);

const edges: Plant[] = [
  plant('sidecar/src', './vfs/file-system.ts', /Floor 1 sees/),
  plant('sidecar/src', './log/partition-log.ts', /Floor 1 sees/),
  plant('sidecar/src/cli', '../server/listener.ts'),
  plant('sidecar/src/cli', 'node:fs', /take a FileSystem from 'vfs\/file-system.ts'/),
  plant('sidecar/src/log', 'node:fs', /take a FileSystem from 'vfs\/file-system.ts'/),
  plant('sidecar/src/vfs', 'node:fs/promises', /take a FileSystem from 'vfs\/file-system.ts'/),
  plant('sidecar/src/replication', 'node:net', /take a link as a parameter/),
  plant('sidecar/src/groups', 'tls', /take a link as a parameter/),
  plant('sidecar/src/server', 'node:net'),
  plant('sidecar/src/admin', 'node:http'),
  plant('sidecar/src/groups', 'node:timers/promises', /take one from 'clock.ts'/),
  plant('sidecar/src/server', 'node:crypto', /take one from 'clock.ts'/),
  uses('sidecar/src/log', 'setTimeout(() => {}, 1);', /clock\.after\(\)/),
  uses('sidecar/src/groups', 'setInterval(() => {}, 1);', /clock\.every\(\)/),
  uses('sidecar/src/server', 'setImmediate(() => {});', /clock\.nextTurn\(\)/),
  uses('sidecar/src', 'export const planted = Date.now();', /clock\.now\(\)/),
  uses('sidecar/src/cli', 'export const planted = new Date();', /clock\.now\(\)/),
  uses('sidecar/src/replication', 'export const planted = performance.now();', /clock\.monotonic\(\)/),
  uses('sidecar/src/cluster', 'export const planted = Math.random();', /clock\.randomBytes\(\)/),
  uses('sidecar/src/cluster', 'export const planted = crypto.randomUUID();', /clock\.randomBytes\(\)/),
  uses('sidecar/src/admin', 'export const planted = process.hrtime();', /clock\.monotonic\(\)/),
  uses('libs/client/src', 'export const planted = Date.now();'),
  uses('sidecar/src/log', "export type { Planted } from '../server/planted.ts';", /log is floor 3/),
  uses('sidecar/src/log', "export const planted = import('../admin/planted.ts');", /log is floor 3/),
];

function at(room: string): string {
  return `sidecar/src/${room}`;
}

interface Diagnostic {
  readonly filename: string;
  readonly message: string;
  readonly help?: string;
}

/** Plants every line in a file of its own under a copy of the rules, and asks the linter once. */
function lint(directory: string, plants: readonly Plant[]): string[] {
  cpSync(join(root, '.oxlintrc.json'), join(directory, '.oxlintrc.json'));
  const files = plants.map(({ file, line }, index) => {
    const path = join(file, `planted-${index}.ts`);
    mkdirSync(join(directory, dirname(path)), { recursive: true });
    writeFileSync(join(directory, path), `${line}\n`);
    return path;
  });
  const answer = run(directory);
  return files.map((path) =>
    answer
      .filter(({ filename }) => filename === path)
      .map(({ message, help = '' }) => `${message} ${help}`)
      .join('\n'),
  );
}

function run(directory: string): Diagnostic[] {
  const oxlint = join(root, 'node_modules/oxlint/bin/oxlint');
  try {
    execFileSync(process.execPath, [oxlint, '--format=json'], { cwd: directory, encoding: 'utf8' });
    return [];
  } catch (error) {
    return (JSON.parse((error as { stdout: string }).stdout) as { diagnostics: Diagnostic[] }).diagnostics;
  }
}

let directory: string;
beforeAll(() => (directory = mkdtempSync(join(tmpdir(), 'rookery-layers-'))));
afterAll(() => rmSync(directory, { recursive: true }));

describe('the linter holds the layering', () => {
  const plants = [...packages, ...rooms, ...edges];
  let answers: string[];
  beforeAll(() => (answers = lint(directory, plants)));

  test.each(plants.map(({ file, line, says }, index) => ({ file, line: line.split('\n')[0]!, says, index })))(
    '$file: $line',
    ({ says, index }) => {
      if (says === undefined) expect(answers[index]).toBe('');
      else expect(answers[index]).toMatch(says);
    },
  );

  test('a cycle of imports is caught', () => {
    const room = join(directory, 'sidecar/src/log');
    writeFileSync(
      join(room, 'hen.ts'),
      `import { egg } from './egg.ts';\nexport const hen = (): unknown => egg;\n`,
    );
    writeFileSync(
      join(room, 'egg.ts'),
      `import { hen } from './hen.ts';\nexport const egg = (): unknown => hen;\n`,
    );
    const found = run(directory).filter(({ filename }) => filename.endsWith('egg.ts'));
    expect(found.map(({ message }) => message)).toContainEqual(expect.stringContaining('cycle'));
  });

  test('the laws of tests are looser: they may open sockets and files, and wait', () => {
    const room = join(directory, 'sidecar/src/log');
    writeFileSync(join(room, 'planted.test.ts'), `${imports('node:net')}\nsetTimeout(() => {}, 1);\n`);
    expect(run(directory).filter(({ filename }) => filename.endsWith('planted.test.ts'))).toEqual([]);
  });

  test('a room of the sidecar that no law names does not exist', () => {
    const laws = readFileSync(join(root, '.oxlintrc.json'), 'utf8');
    const listed = execFileSync('git', ['ls-files', 'sidecar/src/*/*'], { cwd: root, encoding: 'utf8' });
    const names = new Set(listed.split('\n').flatMap((path) => path.split('/')[2] ?? []));
    for (const name of names)
      expect(laws, name).toMatch(new RegExp(`sidecar/src/(${name}/|\\{[^}]*\\b${name}\\b)`));
  });
});
