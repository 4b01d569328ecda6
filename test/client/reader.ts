import type { AssignedPartition, Client, Consumer, ConsumerEvents, ConsumerOptions } from '@rookery/client';
import type { LogRecord } from '@rookery/wire';

export interface Read {
  readonly topic: string;
  readonly partition: number;
  readonly record: LogRecord;
}

/** A member of a group that keeps what it is given, and lets a test wait for it. */
export class Reader {
  readonly consumer: Consumer;
  readonly read: Read[] = [];
  readonly errors: Error[] = [];
  readonly failures: Error[] = [];
  lost = 0;
  partitions: readonly AssignedPartition[] = [];
  #waiting: (() => void)[] = [];

  constructor(
    client: Client,
    options: ConsumerOptions,
    /** Credits of each partition at first, and given back as they are used. */
    credits = 1_000,
    overrides: Partial<ConsumerEvents> = {},
  ) {
    const events: ConsumerEvents = {
      assigned: (partitions) => {
        this.partitions = partitions;
        for (const partition of partitions) if (credits > 0) this.consumer.request(partition, credits);
        this.#look();
      },
      revoking: async () => {
        this.partitions = [];
        this.#look();
      },
      lost: () => {
        this.lost++;
        this.partitions = [];
        this.#look();
      },
      records: (partition, records) => {
        const { topic } = partition;
        for (const record of records) this.read.push({ topic, partition: partition.partition, record });
        if (credits > 0) this.consumer.request(partition, records.length);
        this.#look();
      },
      troubled: (error) => this.errors.push(error),
      failed: (error) => {
        this.failures.push(error);
        this.#look();
      },
      ...overrides,
    };
    this.consumer = client.consumer({ sessionTimeoutMs: 10_000, heartbeatMs: 200, ...options }, events);
    this.consumer.start();
  }

  /** Resolves as soon as the condition holds after something has come; the test's own timeout ends the wait. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** What each partition gave, in order. */
  valuesOf(partition: number): string[] {
    return this.read
      .filter((each) => each.partition === partition)
      .map(({ record }) => record.value!.toString());
  }

  get values(): string[] {
    return this.read.map(({ record }) => record.value!.toString());
  }

  #look(): void {
    for (const look of this.#waiting.splice(0)) look();
  }
}
