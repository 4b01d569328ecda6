import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`./${path}/src/index.ts`, import.meta.url));

const packages = {
  wire: 'libs/wire',
  client: 'libs/client',
  engine: 'libs/engine',
  kafka: 'libs/kafka',
  nest: 'libs/nest',
  testing: 'libs/testing',
  sidecar: 'sidecar',
};

// The tests alone read the sources; everything else runs what the build left in dist/.
const alias = [
  // What the crash tests take apart is no one else's business: the sidecar's rooms, one module each.
  {
    find: /^@rookery\/sidecar\/rooms\/(.*)$/,
    replacement: fileURLToPath(new URL('./sidecar/src/$1.ts', import.meta.url)),
  },
  ...Object.entries(packages).map(([name, path]) => ({
    find: new RegExp(`^@rookery/${name}$`),
    replacement: source(path),
  })),
];

const project = (name: string, include: string[], timeout = 20_000) => ({
  resolve: { alias },
  test: { name, include, testTimeout: timeout, hookTimeout: 60_000, env: { ROOKERY_VERIFY: '1' } },
});

export default defineConfig({
  test: {
    projects: [
      project('wire', ['libs/wire/src/**/*.test.ts', 'test/protocol/**/*.test.ts']),
      project('client', ['libs/client/src/**/*.test.ts'], 60_000),
      project('sdk', ['libs/{engine,kafka,nest,testing}/src/**/*.test.ts'], 60_000),
      project('sidecar', ['sidecar/src/**/*.test.ts'], 30_000),
      project('apps', ['apps/*/src/**/*.test.ts'], 60_000),
      project('crash', ['test/crash/**/*.test.ts', 'test/{scenarios,fixtures}/*.test.ts'], 240_000),
      project('whole', ['test/*.test.ts', 'test/{interop,client,bench}/**/*.test.ts'], 120_000),
    ],
  },
});
