import { startSidecar, type SidecarProcess } from '@rookery/testing';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { DelayStatistics, type AirportDelays } from './delay-statistics.ts';
import { departures, flights } from './flights.ts';
import { ServiceProcess } from './service-process.ts';

/**
 * The whole way of 200,000 events: published by one service, kept by a sidecar, handled by another service;
 * then the sidecar restarts, and a new group reads everything again to the same table. Ends with 0 only when
 * every event was handled both times, in order per airport.
 */
const rounds = Number(process.env['FLIGHTS_ROUNDS'] ?? 10);
const airportsShown = 12;
/** Without any progress for so long, it has failed. */
const stallMs = 20_000;
const lookMs = 100;

interface Progress {
  readonly handled: number;
  readonly repeated: number;
  readonly skipped: number;
}

const services: ServiceProcess[] = [];
let sidecar: SidecarProcess | null = null;
let directory: string | null = null;
let countShown = 0;
const never = new Promise<never>(() => {});

let isInterrupted = false;
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.on(signal, () => {
    // Whoever asks twice does not want to wait.
    if (isInterrupted) process.exit(code);
    isInterrupted = true;
    void cleanUp().finally(() => process.exit(code));
  });
// Processes that are left then are killed by those who started them.
process.on('exit', () => {
  if (directory !== null) rmSync(directory, { recursive: true, force: true });
});

try {
  await demonstrate();
} catch (error) {
  if (!isInterrupted) console.error(`\nFAILED: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}

async function demonstrate(): Promise<void> {
  const { table: expected, total } = await whatMustComeOut();
  directory = await mkdtemp(join(tmpdir(), 'rookery-demo-'));
  sidecar = await startSidecar({ dataDir: directory });
  console.log(`sidecar ${sidecar.pid} at ${sidecar.kafka}, its log in ${directory}`);

  const first = await statistics(sidecar, 'flight-statistics');
  const started = performance.now();
  const publishing = publish(sidecar);
  const table = await handled(first, total, 'published and handled', publishing);
  const firstSeconds = secondsSince(started);
  const publishSeconds = await publishing;
  show(table);
  verify(table, expected);
  await first.service.stop();

  console.log('stopping the sidecar, and starting it again');
  const code = await sidecar.stop();
  if (code !== 0) throw new Error(`the sidecar ended with code ${code}: ${sidecar.log()}`);
  sidecar = await startSidecar({ dataDir: directory });

  const again = performance.now();
  const second = await statistics(sidecar, 'flight-statistics-again');
  const sameTable = await handled(second, total, 'read again by a new group');
  const secondSeconds = secondsSince(again);
  verify(sameTable, expected);
  await second.service.stop();

  console.log('the same table, every event in order per airport, both times\n');
  console.log(`published            ${rate(total, publishSeconds)}`);
  console.log(`publish to handler   ${rate(total, firstSeconds)}`);
  console.log(`read from offset 0   ${rate(total, secondSeconds)}, the start of the service included`);
}

/** The table as it comes without any messaging. */
async function whatMustComeOut(): Promise<{ table: AirportDelays[]; total: number }> {
  const local = new DelayStatistics();
  for (const departure of departures(await flights(), rounds)) local.record(departure);
  return { table: local.table(), total: local.progress().handled };
}

async function statistics({ url }: SidecarProcess, group: string) {
  const service = new ServiceProcess('./main.js', { FLIGHTS_SIDECAR: url, FLIGHTS_GROUP: group, PORT: '0' });
  services.push(service);
  return { service, url: await service.line('listening') };
}

/** @returns seconds that publishing took, the start of the service not included */
async function publish({ url }: SidecarProcess): Promise<number> {
  const service = new ServiceProcess('./publisher.js', {
    FLIGHTS_SIDECAR: url,
    FLIGHTS_ROUNDS: String(rounds),
  });
  services.push(service);
  const published = await service.line('published');
  await service.finished();
  return Number(/ in (\d+) ms/.exec(published)![1]) / 1_000;
}

/** The service's table, once it has handled everything. @throws Error when it does not come to that */
async function handled(
  { url, service }: { url: string; service: ServiceProcess },
  total: number,
  what: string,
  publishing: Promise<unknown> = Promise.resolve(),
): Promise<AirportDelays[]> {
  const failed = Promise.race([
    publishing.then(() => never),
    service.finished().then(() => Promise.reject(new Error('the service ended early'))),
  ]);
  failed.catch(() => {});
  let last: Progress = { handled: 0, repeated: 0, skipped: 0 };
  let movedAt = performance.now();
  while (last.handled < total) {
    await Promise.race([sleep(lookMs), failed]);
    const now = await get<Progress>(`${url}/progress`);
    if (now.handled !== last.handled) movedAt = performance.now();
    else if (performance.now() - movedAt > stallMs)
      throw new Error(`${what}: ${now.handled} of ${total}, then nothing for ${stallMs} ms`);
    last = now;
    progress(what, now.handled, total);
  }
  const { handled, repeated, skipped } = last;
  if (handled !== total || repeated > 0 || skipped > 0)
    throw new Error(`${what}: ${handled} of ${total}, ${repeated} repeated, ${skipped} skipped`);
  return get<AirportDelays[]>(`${url}/airports`);
}

function verify(table: readonly AirportDelays[], expected: readonly AirportDelays[]): void {
  if (!isDeepStrictEqual(table, expected))
    throw new Error('the table differs from the one that comes without messaging');
}

async function get<T>(url: string): Promise<T> {
  const response = await fetch(url, { signal: AbortSignal.timeout(stallMs) });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return (await response.json()) as T;
}

function show(table: readonly AirportDelays[]): void {
  console.log(
    `\n${'airport'.padEnd(9)}${'departures'.padStart(10)}${'mean delay'.padStart(12)}${'max'.padStart(6)}${'late'.padStart(7)}`,
  );
  for (const { origin, departures, meanDelay, maxDelay, late } of table.slice(0, airportsShown))
    console.log(
      `${origin.padEnd(9)}${String(departures).padStart(10)}${`${meanDelay.toFixed(1)} min`.padStart(12)}` +
        `${String(maxDelay).padStart(6)}${`${(late * 100).toFixed(0)} %`.padStart(7)}`,
    );
  console.log(`… and ${table.length - airportsShown} more airports\n`);
}

/** On a terminal in one line, elsewhere a line for each tenth. */
function progress(what: string, count: number, total: number): void {
  const line = `${what}: ${count.toLocaleString('en')} of ${total.toLocaleString('en')}`;
  if (process.stdout.isTTY) process.stdout.write(`\r${line}${count === total ? '\n' : ''}`);
  else if (count === total || count < countShown || count - countShown >= total / 10) {
    countShown = count;
    console.log(line);
  }
}

function secondsSince(started: number): number {
  return (performance.now() - started) / 1_000;
}

function rate(count: number, seconds: number): string {
  return `${Math.round(count / seconds).toLocaleString('en')} events/s (${seconds.toFixed(1)} s)`;
}

/** Stops whatever was started. */
async function cleanUp(): Promise<void> {
  await Promise.all(services.map((service) => service.stop()));
  await sidecar?.stop();
}
