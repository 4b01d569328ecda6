import { hash } from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client } from '@rookery/client';
import { startSidecar } from '@rookery/testing';
import { deleteRecords, encodeBatch, ErrorCode, produce } from '@rookery/wire';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { finished, type Finished } from './support/finished-process.ts';
import { WireConnection } from './support/wire-connection.ts';

// `rookery log …` as an operator runs it: each command a process of its own, on the directory of a stopped broker.

const launcher = fileURLToPath(new URL('../sidecar/bin/rookery', import.meta.url));
const environment = { PATH: `${join(process.execPath, '..')}:${process.env['PATH'] ?? ''}` };
const log = (...args: string[]): Promise<Finished> => finished(launcher, ['log', ...args], { environment });

const place = mkdtempSync(join(tmpdir(), 'rookery-log-tools-'));
const whole = `${place}/whole`;
let copies = 0;

/** Thirty batches of one record of 300 bytes, ten or so a segment. */
beforeAll(async () => {
  const sidecar = await startSidecar({ dataDir: whole });
  const client = new Client({ brokers: [sidecar.kafka] });
  const configs = { 'internal.segment.bytes': '4000', 'index.interval.bytes': '500' };
  await client.admin().createTopics([
    { name: 'orders', partitions: 1, configs },
    { name: 'idle', partitions: 1 },
  ]);
  const producer = client.producer();
  for (let i = 0; i < 30; i++)
    await producer.send('orders', { value: Buffer.from(String(i).padEnd(300)), partition: 0 });
  await client.close();
  await sidecar.stop();
});

afterAll(() => rmSync(place, { recursive: true, force: true }));

function copied(): string {
  const copy = `${place}/copy-${copies++}`;
  cpSync(whole, copy, { recursive: true });
  return copy;
}

interface Batch {
  readonly file: string;
  readonly position: number;
  readonly sizeInBytes: number;
}

const logsIn = (dataDir: string): string[] =>
  readdirSync(`${dataDir}/orders-0`)
    .filter((name) => name.endsWith('.log'))
    .map((name) => `${dataDir}/orders-0/${name}`);

/** Where the batch of an offset stands. */
function batchAt(dataDir: string, offset: number): Batch {
  for (const file of logsIn(dataDir)) {
    const bytes = readFileSync(file);
    for (let position = 0; position < bytes.length;) {
      const sizeInBytes = 12 + bytes.readInt32BE(position + 8);
      if (Number(bytes.readBigInt64BE(position)) === offset) return { file, position, sizeInBytes };
      position += sizeInBytes;
    }
  }
  throw new Error(`no batch at ${offset}`);
}

function flip({ file, position }: Batch, at: number): void {
  const bytes = readFileSync(file);
  bytes[position + at]! ^= 0xff;
  writeFileSync(file, bytes);
}

/** A copy with the payload of the batch at offset 12 changed. */
function rotten(): string {
  const copy = copied();
  flip(batchAt(copy, 12), 100);
  return copy;
}

/** A copy in which idle-0 has the offsets 0 to 19 in two batches, and begins at 5, inside the first of them. */
async function startingInABatch(): Promise<string> {
  const sidecar = await startSidecar({ dataDir: copied() });
  const connection = await WireConnection.open(sidecar.kafka);
  for (const half of [upTo(10), upTo(20).slice(10)]) {
    const batch = encodeBatch(half.map((i) => ({ value: Buffer.from(String(i)), timestamp: Date.now() })));
    const partitionData = [{ index: 0, records: [batch] }];
    const topicData = [{ name: 'idle', partitionData }];
    const { responses } = await connection.ask(produce, 7, { acks: -1, timeoutMs: 10_000, topicData });
    expect(responses[0]!.partitionResponses[0]!.errorCode).toBe(ErrorCode.NONE);
  }
  const partitions = [{ partitionIndex: 0, offset: 5 }];
  const topics = [{ name: 'idle', partitions }];
  const { topics: deleted } = await connection.ask(deleteRecords, 1, { topics, timeoutMs: 10_000 });
  expect(deleted[0]!.partitions[0]!.errorCode).toBe(ErrorCode.NONE);
  connection.close();
  await sidecar.stop();
  return sidecar.dataDir;
}

const digest = (dataDir: string): string =>
  hash(
    'sha1',
    readdirSync(dataDir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => `${name} ${hash('sha1', readFileSync(`${parentPath}/${name}`))}`)
      .sort()
      .join('\n'),
  );

/** What a consumer gets, as the numbers that were sent. */
async function served(dataDir: string, count: number, topic = 'orders'): Promise<number[]> {
  const sidecar = await startSidecar({ dataDir });
  try {
    const args = ['consume', topic, '--from', 'earliest', '--count', String(count)];
    const { stdout } = await finished(launcher, [...args, '--broker', sidecar.kafka], { environment });
    return stdout.trimEnd().split('\n').map(Number);
  } finally {
    await sidecar.stop();
  }
}

const upTo = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

describe('log check', () => {
  test('says of every partition what is in it, ends with 0 where all is whole, and changes nothing', async () => {
    const copy = copied();
    const before = digest(copy);
    const { stdout, stderr, code } = await log('check', copy);
    expect(stdout.trimEnd().split('\n')).toEqual([
      'idle-0: offsets 0 to 0, 1 segments, 0 records in 0 bytes: whole',
      expect.stringMatching(/^orders-0: offsets 0 to 30, \d segments, 30 records in \d+ bytes: whole$/),
    ]);
    expect([stderr, code]).toEqual(['', 0]);
    expect((await log('check', `${copy}/orders-0`)).stdout).toBe(`${stdout.split('\n')[1]}\n`);
    expect(digest(copy)).toBe(before);
  });

  test('names what is damaged with its place, says what each repair would lose, and ends with 1', async () => {
    const copy = rotten();
    const before = digest(copy);
    const { position, sizeInBytes, file } = batchAt(copy, 12);
    const lost = upTo(30).slice(13);
    const bytes = lost.reduce((sum, offset) => sum + batchAt(copy, offset).sizeInBytes, 0);
    const segments = new Set(lost.map((offset) => batchAt(copy, offset).file)).size;
    const { stdout, stderr, code } = await log('check', `${copy}/orders-0`);
    expect(stdout.trimEnd().split('\n')).toEqual([
      expect.stringMatching(
        /^orders-0: offsets 0 to 30, \d segments, 29 records in \d+ bytes: DAMAGED from offset 12 on$/,
      ),
      `  ${file.slice(-24)}: ${sizeInBytes} bytes at position ${position}: a batch fails its CRC (offsets 12 to 12)`,
      `  repair --truncate-at 12: the log ends at offset 12; of what can be read, 17 records in 17 batches (${bytes} bytes, ${segments} segments) are lost`,
      '  repair --skip-batch: 1 offsets that cannot be read become empty; nothing that can be read is lost',
    ]);
    expect([stderr, code]).toEqual(['', 1]);
    expect(digest(copy)).toBe(before);
  });

  test('finds a base offset that has changed, which no CRC tells', async () => {
    const copy = copied();
    flip(batchAt(copy, 29), 3);
    const { stdout, code } = await log('check', copy);
    expect(stdout).toMatch(/orders-0: .*DAMAGED from offset 29 on\n.* base offset \d+ where 29 should be/);
    expect(code).toBe(1);
  });

  test('misses log files that are all gone', async () => {
    const copy = copied();
    for (const file of logsIn(copy)) rmSync(file);
    const { stdout, code } = await log('check', `${copy}/orders-0`);
    expect(stdout).toMatch(/^orders-0: offsets 0 to 0, 0 segments, 0 records .*: DAMAGED from offset 0 on$/m);
    expect(stdout).toMatch(/the log ends at 0, before its recovery point 30 \(offsets 0 to 29\)$/m);
    expect(stdout).toMatch(/^ {2}repair --skip-batch: 30 offsets that cannot be read become empty/m);
    expect(code).toBe(1);
  });

  test('goes on to the next partition behind one that is damaged where its log starts', async () => {
    const copy = await startingInABatch();
    flip({ file: `${copy}/idle-0/${'0'.repeat(20)}.log`, position: 0, sizeInBytes: 0 }, 100);
    const { stdout, stderr, code } = await log('check', copy);
    expect(stdout).toMatch(/^idle-0: offsets 5 to 20, 1 segments, 10 records .*: DAMAGED from offset 5 on$/m);
    expect(stdout).toMatch(/a batch fails its CRC \(offsets 5 to 9\)$/m);
    expect(stdout).toMatch(
      /^ {2}repair --truncate-at 5: the log ends at offset 5; .* 10 records in 1 batches/m,
    );
    expect(stdout).toMatch(/^ {2}repair --skip-batch: 5 offsets that cannot be read become empty/m);
    expect(stdout).toMatch(/^orders-0: offsets 0 to 30, .*: whole$/m);
    expect([stderr, code]).toEqual(['', 1]);
    expect((await log('repair', `${copy}/idle-0`)).code).toBe(2);
    expect((await log('repair', `${copy}/idle-0`, '--skip-batch')).code).toBe(0);
    expect(await served(copy, 10, 'idle')).toEqual(upTo(20).slice(10));
  });

  test('names files from which nothing is lost, and ends with 0', async () => {
    const copy = copied();
    const name = readdirSync(`${copy}/orders-0`).find((each) => each.endsWith('.index'))!;
    writeFileSync(`${copy}/orders-0/${name}`, Buffer.alloc(24, 0xa5));
    writeFileSync(`${copy}/orders-0/notes.txt`, 'of somebody');
    const { stdout, code } = await log('check', copy);
    expect(stdout).toMatch(new RegExp(`^  ${name}: entry 0 leads to no such batch; made again`, 'm'));
    expect(stdout).toMatch(/^ {2}notes\.txt: it is nothing that a log has; made again or left alone/m);
    expect(code).toBe(0);
  });

  test('reads beside a running broker', async () => {
    const sidecar = await startSidecar({ dataDir: copied() });
    const { stdout, code } = await log('check', sidecar.dataDir);
    await sidecar.stop();
    expect(stdout).toMatch(/orders-0: offsets 0 to 30, .* whole/);
    expect(code).toBe(0);
  });
});

describe('log repair', () => {
  test('without a choice changes nothing, says what could be done, and ends with 2', async () => {
    const copy = rotten();
    const before = digest(copy);
    const { stdout, stderr, code } = await log('repair', `${copy}/orders-0`);
    expect(stdout).toBe((await log('check', `${copy}/orders-0`)).stdout);
    expect(stderr).toMatch(
      /^rookery: RK0101 .*nothing was changed: choose --truncate-at OFFSET or --skip-batch\n$/,
    );
    expect(code).toBe(2);
    expect(digest(copy)).toBe(before);
  });

  test('--truncate-at says first what is lost, loses that, and the log goes on from there', async () => {
    const copy = rotten();
    const announced = /--truncate-at 12: (.*)/.exec((await log('check', copy)).stdout)![1]!;
    const { stdout, stderr, code } = await log('repair', `${copy}/orders-0`, '--truncate-at', '12');
    expect(stdout.split('\n')).toEqual([
      `orders-0: ${announced}`,
      expect.stringMatching(/^orders-0: offsets 0 to 12, 2 segments, 12 records in \d+ bytes: whole$/),
      '',
    ]);
    expect([stderr, code]).toEqual(['', 0]);
    expect(await served(copy, 12)).toEqual(upTo(12));
    expect((await log('check', copy)).code).toBe(0);
  });

  test('--skip-batch loses what cannot be read and nothing else', async () => {
    const copy = rotten();
    const { stdout, stderr, code } = await log('repair', `${copy}/orders-0`, '--skip-batch');
    expect(stdout.split('\n')).toEqual([
      'orders-0: 1 offsets that cannot be read become empty; nothing that can be read is lost',
      expect.stringMatching(/^orders-0: offsets 0 to 30, \d segments, 29 records in \d+ bytes: whole$/),
      '',
    ]);
    expect([stderr, code]).toEqual(['', 0]);
    expect(await served(copy, 29)).toEqual(upTo(30).filter((offset) => offset !== 12));
  });

  test.each(['--truncate-at=30', '--skip-batch'])(
    '%s takes strange bytes off the end of a log that was left in order, and no record',
    async (choice) => {
      const copy = copied();
      appendFileSync(logsIn(copy).at(-1)!, 'of nobody knows whom');
      const { stdout, code } = await log('check', `${copy}/orders-0`);
      expect(stdout).toMatch(/: DAMAGED from offset 30 on\n.*: 20 bytes .* \(what follows offset 30\)\n/);
      expect(stdout).toMatch(/--truncate-at 30: the log ends at offset 30; .* 0 records in 0 batches/);
      expect(code).toBe(1);
      const repaired = await log('repair', `${copy}/orders-0`, choice);
      expect([repaired.stderr, repaired.code]).toEqual(['', 0]);
      expect(await served(copy, 30)).toEqual(upTo(30));
    },
  );

  test('leaves the end of a log that a crash has torn to the next start', async () => {
    const copy = rotten();
    rmSync(`${copy}/.kafka_cleanshutdown`);
    appendFileSync(logsIn(copy).at(-1)!, 'of nobody knows whom');
    const { stderr, code } = await log('repair', `${copy}/orders-0`, '--skip-batch');
    expect([stderr, code]).toEqual(['', 0]);
    expect(await served(copy, 29)).toHaveLength(29);
  });

  test('--truncate-at inside the batch in which the log starts ends it there, and it goes on', async () => {
    const copy = await startingInABatch();
    const { stdout, stderr, code } = await log('repair', `${copy}/idle-0`, '--truncate-at', '7');
    expect(stdout).toMatch(/^idle-0: the log ends at offset 5; .* 15 records in 2 batches /);
    expect(stdout).toMatch(/^idle-0: offsets 5 to 5, 1 segments, 0 records in 0 bytes: whole$/m);
    expect([stderr, code]).toEqual(['', 0]);
    const sidecar = await startSidecar({ dataDir: copy });
    const client = new Client({ brokers: [sidecar.kafka] });
    const sent = await client.producer().send('idle', { value: Buffer.from('more'), partition: 0 });
    await client.close();
    await sidecar.stop();
    expect(sent.offset).toBe(5);
  });

  test('ends the quarantine that a broker has left word of', async () => {
    const copy = rotten();
    rmSync(`${copy}/.kafka_cleanshutdown`);
    rmSync(`${copy}/recovery-point-offset-checkpoint`);
    const sick = await startSidecar({ dataDir: copy });
    await sick.stop();
    expect(readFileSync(`${copy}/rookery.json`, 'utf8')).toMatch(/"orders-0":\{.*"offset":12/);
    expect((await log('repair', `${copy}/orders-0`, '--skip-batch')).code).toBe(0);
    expect(readFileSync(`${copy}/rookery.json`, 'utf8')).toMatch(/"quarantined":\{\}/);
    expect(await served(copy, 29)).toHaveLength(29);
  });

  test('what a start will cut is told before it does, with the good records behind it', async () => {
    const copy = rotten();
    rmSync(`${copy}/.kafka_cleanshutdown`);
    const points = `${copy}/recovery-point-offset-checkpoint`;
    writeFileSync(points, readFileSync(points, 'utf8').replace(/^orders 0 \d+$/m, 'orders 0 5'));
    const { stdout, code } = await log('check', `${copy}/orders-0`);
    expect(stdout).toMatch(/^orders-0: .*: DAMAGED from offset 12 on$/m);
    expect(stdout).toMatch(
      /\(offsets 12 to 12\); a start cuts the log here, and loses 17 records in 17 batches that can be read$/m,
    );
    expect(code).toBe(1);
    expect(await served(copy, 12)).toEqual(upTo(12));
    expect((await log('check', `${copy}/orders-0`)).stdout).toMatch(
      /^orders-0: offsets 0 to 12, .*: whole$/m,
    );
  });

  test('a quarantine is told, and ended, also where the bytes read well by now', async () => {
    const copy = copied();
    const word = { segment: 0, position: 61, offset: 7, reason: 'a batch fails its CRC' };
    const facts = JSON.parse(readFileSync(`${copy}/rookery.json`, 'utf8')) as object;
    const told = { ...facts, quarantined: { 'orders-0': word }, distrusted: { 'idle-0': 3 } };
    writeFileSync(`${copy}/rookery.json`, JSON.stringify(told));
    const check = await log('check', copy);
    expect(check.stdout).toMatch(
      /^orders-0: .*: QUARANTINED from offset 7 on\n  reads well now, but was damaged from offset 7 on, at position 61 of segment 0: a batch fails its CRC$/m,
    );
    expect(check.stdout).toMatch(
      /^idle-0: .*: whole\n  a sync failed: what stands from offset 3 on may not be on the disk; a start cuts it$/m,
    );
    expect(check.code).toBe(1);
    const repair = await log('repair', `${copy}/orders-0`, '--skip-batch');
    expect(repair.stdout).toMatch(/^orders-0: 0 offsets that cannot be read become empty/);
    expect(repair.stdout).toMatch(/^orders-0: .*: whole$/m);
    expect((await log('check', copy)).code).toBe(0);
  });

  test.each(['--skip-batch', '--truncate-at=12'])(
    '%s is refused while a broker has the directory',
    async (choice) => {
      const copy = rotten();
      const sidecar = await startSidecar({ dataDir: copy });
      const files = logsIn(copy).map((file) => hash('sha1', readFileSync(file)));
      const { stderr, code } = await log('repair', `${copy}/orders-0`, choice);
      expect(stderr).toMatch(/^rookery: RK0302 .*stop the broker first\n$/);
      expect(code).toBe(1);
      expect(logsIn(copy).map((file) => hash('sha1', readFileSync(file)))).toEqual(files);
      await sidecar.stop();
    },
  );

  test.each([
    ['no number', ['--truncate-at', 'x'], 2, /RK0101 .*--truncate-at x: an offset is expected/],
    ['a negative one', ['--truncate-at=-1'], 2, /RK0101 .*an offset is expected/],
    ['nothing, as of an unset variable', ['--truncate-at', ''], 2, /RK0101 .*an offset is expected/],
    ['a blank', ['--truncate-at', ' '], 2, /RK0101 .*an offset is expected/],
    ['a hexadecimal number', ['--truncate-at', '0xc'], 2, /RK0101 .*--truncate-at 0xc: an offset is/],
    ['an exponent', ['--truncate-at', '1e1'], 2, /RK0101 .*--truncate-at 1e1: an offset is expected/],
    ['more than an offset can be', ['--truncate-at', '9'.repeat(20)], 2, /RK0101 .*an offset is expected/],
    ['both', ['--truncate-at', '12', '--skip-batch'], 2, /RK0101 .*either --truncate-at or --skip-batch/],
    ['an offset behind the damage', ['--truncate-at', '20'], 1, /RK0307 .*damage at offset 12 would stay/],
    ['an unknown option', ['--mend'], 2, /RK0101 .*--mend/],
  ])('with %s is refused in one line, and changes nothing', async (_, options, expected, message) => {
    const copy = rotten();
    const before = digest(copy);
    const { stdout, stderr, code } = await log('repair', `${copy}/orders-0`, ...options);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect([stdout, code]).toEqual(['', expected]);
    expect(digest(copy)).toBe(before);
  });

  test('of a data directory is refused: it mends one partition', async () => {
    const { stderr, code } = await log('repair', copied(), '--skip-batch');
    expect(stderr).toMatch(/^rookery: RK0101 .*name the directory of one partition\n$/);
    expect(code).toBe(2);
  });
});

describe('log dump', () => {
  test('decodes every kind of file', async () => {
    const copy = copied();
    const names = readdirSync(`${copy}/orders-0`).map((name) => `${copy}/orders-0/${name}`);
    const { stdout, stderr, code } = await log('dump', ...names, `${copy}/recovery-point-offset-checkpoint`);
    for (const name of names) expect(stdout).toContain(`${name}:\n`);
    expect(stdout.match(/^position \d+ baseOffset \d+ .* crc ok$/gm)).toHaveLength(30);
    expect(stdout).toMatch(/^offset \d+ position \d+$/m);
    expect(stdout).toMatch(/^timestamp \d+ offset \d+$/m);
    expect(stdout).toMatch(/^producerId \d+ producerEpoch 0 lastSequence 29 lastOffset 29 /m);
    expect(stdout).toMatch(/^orders 0 30$/m);
    expect([stderr, code]).toEqual(['', 0]);
  });

  test('shows as much as it can of a broken one', async () => {
    const copy = rotten();
    const { stdout, code } = await log('dump', batchAt(copy, 12).file);
    expect(stdout).toMatch(/ baseOffset 12 .*! crc WRONG$/m);
    expect(stdout).toMatch(/ baseOffset 13 .* crc ok$/m);
    expect(code).toBe(0);
  });
});

test.each([
  ['check', 'no-such-directory', /RK0101 .*no-such-directory is no directory/],
  ['check', 'file', /RK0101 .*file is no directory/],
  ['check', 'empty', /RK0101 .*neither a data directory nor a partition's/],
  ['repair', 'no-such-directory', /RK0101 .*no-such-directory is no directory/],
  ['repair', 'empty', /RK0101 .*neither a data directory nor a partition's/],
  ['dump', 'no-such-file', /RK0101 .*no-such-file is no file/],
  ['dump', 'empty', /RK0101 .*empty is no file/],
])('log %s of %s is refused in one line', async (command, name, message) => {
  const dir = mkdtempSync(join(place, 'bare-'));
  writeFileSync(`${dir}/file`, 'x');
  mkdirSync(`${dir}/empty`);
  const { stdout, stderr, code } = await log(command, `${dir}/${name}`);
  expect(stderr).toMatch(message);
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect([stdout, code]).toEqual(['', 2]);
});

test.each([['check'], ['repair'], ['dump']])('log %s without an argument is refused', async (command) => {
  const { stdout, stderr, code } = await log(command);
  expect(stderr).toMatch(/^rookery: RK0101 .*missing required argument.*\n$/);
  expect([stdout, code]).toEqual(['', 2]);
});
