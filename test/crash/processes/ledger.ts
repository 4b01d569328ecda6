import {
  createTopics,
  decodeRecords,
  encodeBatch,
  ErrorCode,
  errorName,
  type ErrorName,
  fetch,
  produce,
  RecordBatch,
  type LogRecord,
} from '@rookery/wire';
import type { WireConnection } from '../../support/wire-connection.ts';

const bytesMax = 1 << 20;

/**
 * What the writer of one topic of one partition was told, to be held against what is in the log: every record
 * that was acknowledged stands at its offset, and nothing is there twice or came from nowhere.
 */
export class Ledger {
  readonly topic: string;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #acknowledged = new Map<number, string>();
  readonly #sent = new Set<string>();

  constructor(topic: string, settings: Readonly<Record<string, string>>) {
    this.topic = topic;
    this.#settings = settings;
  }

  get acknowledged(): number {
    return this.#acknowledged.size;
  }

  /** Makes the topic; fine when it is there. */
  async create(connection: WireConnection): Promise<void> {
    const configs = Object.entries(this.#settings).map(([name, value]) => ({ name, value }));
    const topic = { name: this.topic, numPartitions: 1, replicationFactor: 1, assignments: [], configs };
    const { topics } = await connection.ask(createTopics, 5, {
      topics: [topic],
      timeoutMs: 10_000,
      validateOnly: false,
    });
    const { errorCode } = topics[0]!;
    if (errorCode !== ErrorCode.NONE && errorCode !== ErrorCode.TOPIC_ALREADY_EXISTS)
      throw new Error(`making ${this.topic}: ${errorName(errorCode)}`);
  }

  /** Writes one record, never twice, whatever comes of it. @returns the name of the broker's answer */
  async write(connection: WireConnection, size = 300): Promise<string> {
    const value = `${this.topic} ${this.#sent.size} `.padEnd(size, 'x');
    this.#sent.add(value);
    const bytes = encodeBatch([{ value: Buffer.from(value), timestamp: Date.now() }]);
    const { responses } = await connection.ask(produce, 9, {
      acks: -1,
      timeoutMs: 10_000,
      topicData: [{ name: this.topic, partitionData: [{ index: 0, records: [bytes] }] }],
    });
    const { errorCode, baseOffset } = responses[0]!.partitionResponses[0]!;
    if (errorCode === ErrorCode.NONE) this.#acknowledged.set(baseOffset, value);
    return errorName(errorCode);
  }

  /** What the log has that it should not have, or lacks, in words. */
  async discrepancies(connection: WireConnection): Promise<string[]> {
    const found: string[] = [];
    const seen = new Set<string>();
    const records = await this.read(connection);
    for (const [index, { offset, value }] of records.entries()) {
      const text = value!.toString('utf8');
      if (index > 0 && offset !== records[index - 1]!.offset + 1) found.push(`offset ${offset} after a gap`);
      if (!this.#sent.has(text)) found.push(`offset ${offset} holds what nobody sent`);
      if (seen.has(text)) found.push(`offset ${offset} holds a record again`);
      seen.add(text);
    }
    const byOffset = new Map(records.map(({ offset, value }) => [offset, value!.toString('utf8')]));
    for (const [offset, value] of this.#acknowledged)
      if (byOffset.get(offset) !== value) found.push(`offset ${offset} was acknowledged and is not there`);
    return found;
  }

  /** Everything that readers may see, up to the end or the error that is expected there. */
  async read(connection: WireConnection, until: ErrorName | null = null): Promise<LogRecord[]> {
    const records: LogRecord[] = [];
    for (;;) {
      const fetchOffset = (records.at(-1)?.offset ?? -1) + 1;
      const partitions = [{ partition: 0, fetchOffset, partitionMaxBytes: bytesMax }];
      const { responses } = await connection.ask(fetch, 11, {
        maxWaitMs: 0,
        minBytes: 0,
        maxBytes: bytesMax,
        isolationLevel: 0,
        sessionId: 0,
        topics: [{ topic: this.topic, partitions }],
        forgottenTopicsData: [],
        rackId: '',
      });
      const answer = responses[0]!.partitions[0]!;
      if (errorName(answer.errorCode) === until) return records;
      if (answer.errorCode !== ErrorCode.NONE) throw new Error(`reading: ${errorName(answer.errorCode)}`);
      const bytes = Buffer.concat((answer.records ?? []) as Buffer[]);
      const before = records.length;
      for (let at = 0; ;) {
        const batch = RecordBatch.read(bytes, at);
        if (batch === null) break;
        records.push(...decodeRecords(batch).filter(({ offset }) => offset >= fetchOffset));
        at += batch.sizeInBytes;
      }
      if (records.length > before) continue;
      if (until !== null) throw new Error(`reading ended without ${until}`);
      return records;
    }
  }
}
