import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Address } from '../listener-address.ts';
import { Metrics } from '../metrics.ts';
import { AdminServer } from './admin-server.ts';

let server: AdminServer;
let bound: Address;
let reasons: string[];
const sockets: Socket[] = [];

beforeEach(async () => {
  reasons = [];
  const metrics = new Metrics();
  metrics.gauge('a_gauge', 'A number.', () => 7);
  metrics.counters('a_counter_total', 'Numbers.', 'of', () => new Map([['x"\n', 3]]));
  server = new AdminServer({
    host: '127.0.0.1',
    port: 0,
    metrics,
    notReady: () => reasons,
    topic: (name) => (name === 'orders' ? { topic: name } : null),
  });
  bound = await server.listen();
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.close();
});

const get = (path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(`http://127.0.0.1:${bound.port}${path}`, init);

/** Sends bytes as they are; resolves with all that comes back until the other side closes. */
async function exchange(text: string): Promise<string> {
  const socket = connect(bound.port, '127.0.0.1');
  sockets.push(socket);
  let answer = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => (answer += chunk));
  socket.on('error', () => {});
  socket.write(text);
  await new Promise((resolve) => socket.once('close', resolve));
  return answer;
}

test('live is live, ready says what it waits for', async () => {
  expect(await (await get('/health/live')).json()).toEqual({ status: 'live' });
  expect((await get('/health/ready')).status).toBe(200);
  reasons = ['orders-0 is offline: EIO'];
  const response = await get('/health/ready?verbose');
  expect(response.status).toBe(503);
  expect(await response.json()).toEqual({ status: 'not ready', reasons });
  expect((await get('/health/live')).status).toBe(200);
});

test('metrics are in the text format of Prometheus, read anew each time', async () => {
  for (let i = 0; i < 2; i++) {
    const response = await get('/metrics');
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    const text = await response.text();
    expect(text).toContain('# TYPE a_gauge gauge\na_gauge 7\n');
    expect(text).toContain('a_counter_total{of="x\\"\\n"} 3\n');
  }
});

test('other paths and methods have their answers', async () => {
  for (const path of ['/', '/health', '/metrics/', '/../etc/passwd', '/%00', `/${'x'.repeat(8_000)}`])
    expect((await get(path)).status, path).toBe(404);
  const post = await get('/metrics', { method: 'POST', body: 'x'.repeat(100_000) });
  expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  const head = await get('/health/live', { method: 'HEAD' });
  expect([head.status, await head.text()]).toEqual([200, '']);
});

test('a name that is not ours is refused, because browsers carry it for others; no name is a probe', async () => {
  const asked = (host: string) => exchange(`GET /metrics HTTP/1.1\r\n${host}Connection: close\r\n\r\n`);
  expect(await asked('Host: rebound.example.org\r\n')).toMatch(/^HTTP\/1\.1 403/);
  expect(await asked(`Host: localhost:${bound.port}\r\n`)).toMatch(/^HTTP\/1\.1 200/);
  expect(await asked('Host: [::1]\r\n')).toMatch(/^HTTP\/1\.1 200/);
  expect(await exchange('GET /health/ready HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.[01] 200/);
});

test('what is no HTTP is refused, and the next one served', async () => {
  const garbage = [
    '\x16\x03\x01\x02\x00\x01',
    'GET\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'GET / HTTP/1.1\r\n\r\n',
    `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
    'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n',
    '\0'.repeat(1_000),
  ];
  for (const text of garbage)
    expect(await exchange(text), JSON.stringify(text.slice(0, 40))).toMatch(/^HTTP\/1\.1 4\d\d/);
  expect((await get('/health/live')).status).toBe(200);
});

test('more connections than it takes are closed, and when they end it serves again', async () => {
  const open = Array.from({ length: 120 }, () => {
    const socket = connect(bound.port, '127.0.0.1');
    socket.on('error', () => {});
    sockets.push(socket);
    return socket;
  });
  for (const socket of open) socket.resume();
  await expect
    .poll(() => open.filter(({ destroyed, readableEnded }) => destroyed || readableEnded).length)
    .toBe(20);
  for (const socket of open) socket.destroy();
  await expect
    .poll(() =>
      get('/health/live').then(
        ({ status }) => status,
        () => 0,
      ),
    )
    .toBe(200);
});

test(
  'a peer that sends half a request, or nothing, is closed after a while',
  { timeout: 30_000 },
  async () => {
    const answers = await Promise.all([exchange('GET /health/live HTTP/1.1\r\nHost: loc'), exchange('')]);
    for (const answer of answers) expect(answer).toMatch(/^(HTTP\/1\.1 408|$)/);
  },
);

test('figures that cannot be read are an error, and nothing else', async () => {
  await server.close();
  const metrics = new Metrics();
  metrics.gauge('broken', 'It throws.', () => {
    throw new Error('no figure');
  });
  server = new AdminServer({ host: '127.0.0.1', port: 0, metrics, notReady: () => [], topic: () => null });
  bound = await server.listen();
  expect((await get('/metrics')).status).toBe(500);
  expect((await get('/health/live')).status).toBe(200);
});

test('a topic is told by its name, and nothing else is', async () => {
  expect(await (await get('/topics/orders')).json()).toEqual({ topic: 'orders' });
  for (const path of ['/topics/others', '/topics/', '/topics/orders/0', '/topics/%6frders'])
    expect((await get(path)).status, path).toBe(404);
});
