import { expect, test } from 'vitest';
import { batchOf, openMemoryLogs, type MemoryLogs } from './memory-logs.ts';

const second = '/data/orders-0/00000000000000000004.log';

/** Twelve batches of one record, four a segment. */
async function aLog(): Promise<MemoryLogs> {
  const logs = openMemoryLogs();
  for (let i = 0; i < 12; i++) logs.log().appendAsLeader([batchOf([String(i).padEnd(900, '.')])], 0);
  await logs.settle();
  return logs;
}

function rot({ fs }: MemoryLogs, position: number): void {
  const file = fs.open(second, 'write');
  const byte = Buffer.alloc(1);
  file.readNow(byte, position);
  byte[0]! ^= 0x41;
  file.writeNow([byte], position);
  file.release();
}

test('what nobody has changed stays in service', async () => {
  const logs = await aLog();
  await logs.logs.scrub();
  expect(logs.log().offlineReason).toBeNull();
});

test.each<[string, number]>([
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((at): [string, number] => [`byte ${at} of the base offset`, at]),
  ['batch length', 10],
  ['magic', 16],
  ['CRC', 18],
  ['attributes', 21],
  ['last offset delta', 25],
  ['max timestamp', 40],
  ['record count', 59],
  ['payload', 500],
])('a scrub finds a changed %s, and what stands before it is served on', async (_, position) => {
  const logs = await aLog();
  rot(logs, position);
  await logs.logs.scrub();
  const log = logs.log();
  expect(log.rot).toMatchObject({ segment: 4, position: 0, offset: 4 });
  expect(log.read(3, 1, Infinity, true).sizeInBytes).toBeGreaterThan(0);
  expect(() => log.read(4, 1, Infinity, true)).toThrow('damaged');
  expect(() => log.appendAsLeader([batchOf(['more'])], 0)).toThrow('damaged');
  expect(logs.directory.rotOf('orders-0')).toMatchObject({ offset: 4 });
});
