import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string): string => fileURLToPath(new URL(`./${path}/src/index.ts`, import.meta.url));

// The tests alone read the sources; everything else runs what the build left in dist/.
const alias = {
  '@rookery/wire': source('libs/wire'),
  '@rookery/client': source('libs/client'),
  '@rookery/engine': source('libs/engine'),
  '@rookery/kafka': source('libs/kafka'),
  '@rookery/nest': source('libs/nest'),
  '@rookery/testing': source('libs/testing'),
  '@rookery/sidecar': source('sidecar'),
};

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
      project('whole', ['test/*.test.ts', 'test/{interop,client}/**/*.test.ts'], 120_000),
    ],
  },
});
