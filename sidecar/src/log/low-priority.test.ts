import { constants, getPriority } from 'node:os';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';

const script = `
  const { workerData, parentPort } = require('node:worker_threads');
  void (async () => {
    const { yieldToOtherThreads } = await import(workerData.lowPriority);
    const { nodeFileSystem } = await import(workerData.files);
    yieldToOtherThreads(nodeFileSystem);
    const thread = require('node:fs').readFileSync('/proc/thread-self/stat', 'latin1').split(' ')[0];
    parentPort.postMessage(require('node:os').getPriority(Number(thread)));
  })();
`;

test.runIf(process.platform === 'linux')(
  'a thread yields to others, and the process stays as it was',
  async () => {
    const before = getPriority();
    const workerData = {
      lowPriority: new URL('./low-priority.ts', import.meta.url).href,
      files: new URL('../vfs/node.ts', import.meta.url).href,
    };
    const worker = new Worker(script, { eval: true, workerData });
    const priority = await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    await worker.terminate();
    expect(priority).toBe(constants.priority.PRIORITY_LOW);
    expect(getPriority()).toBe(before);
  },
);
