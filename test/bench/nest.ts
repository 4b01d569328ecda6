import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { startSidecar } from '@rookery/testing';
import type { Figure } from './figures.ts';

const service = fileURLToPath(new URL('./nest-service.js', import.meta.url));

/** Events of 200 bytes from a Nest service that publishes to one that handles them, through one sidecar. */
export async function nestEndToEnd(count: number): Promise<Figure[]> {
  const sidecar = await startSidecar({ settings: { 'flush.mode': 'os' } });
  const services: ChildProcess[] = [];
  const start = async (role: 'handler' | 'publisher'): Promise<ChildProcess> => {
    const child = fork(service, [role, sidecar.url, `${count}`]);
    services.push(child);
    await said(child, 'ready');
    return child;
  };
  try {
    const handler = await start('handler');
    const publisher = await start('publisher');
    const started = performance.now();
    const perSecond = (): number => (count * 1_000) / (performance.now() - started);
    publisher.send('go');
    const [published, handled] = await Promise.all([
      said(publisher, 'done').then(perSecond),
      said(handler, 'done').then(perSecond),
    ]);
    return [
      { work: 'published by a Nest service', unit: 'events/s', value: published },
      { work: 'published to handled', unit: 'events/s', value: handled },
    ];
  } finally {
    await Promise.all(services.map(ended));
    await sidecar.stop();
  }
}

/** Waits for a word. @throws Error when the service ends before it says it */
function said(child: ChildProcess, word: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const heard = (message: unknown): void => {
      if (message !== word) return;
      child.off('message', heard);
      resolve();
    };
    child.on('message', heard);
    child.once('exit', (code) => reject(new Error(`a service ended with ${code} before it was ${word}`)));
  });
}

/** A service closes in an orderly way when nobody listens to it any more. */
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.disconnect();
  const late = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await exit;
  clearTimeout(late);
}
