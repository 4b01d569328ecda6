/** How far a group has read a partition: the next offset that it wants. */
export interface CommittedOffset {
  readonly offset: number;
  /** The leader epoch of the last record that was read, −1 when the client does not say. */
  readonly leaderEpoch: number;
  /** Whatever the client likes to keep beside it. */
  readonly metadata: string;
  /** Milliseconds, when it was committed. */
  readonly committedAt: number;
}

/** The committed offsets of one group, by topic and partition. */
export class CommittedOffsets {
  readonly #topics = new Map<string, Map<number, CommittedOffset>>();

  get(topic: string, partition: number): CommittedOffset | undefined {
    return this.#topics.get(topic)?.get(partition);
  }

  set(topic: string, partition: number, offset: CommittedOffset): void {
    const partitions = this.#topics.get(topic) ?? new Map<number, CommittedOffset>();
    this.#topics.set(topic, partitions.set(partition, offset));
  }

  delete(topic: string, partition: number): void {
    const partitions = this.#topics.get(topic);
    partitions?.delete(partition);
    if (partitions?.size === 0) this.#topics.delete(topic);
  }

  topics(): Iterable<string> {
    return this.#topics.keys();
  }

  *partitions(topic: string): Generator<[partition: number, offset: CommittedOffset]> {
    yield* this.#topics.get(topic) ?? [];
  }

  get isEmpty(): boolean {
    return this.#topics.size === 0;
  }

  /**
   * Offsets that nobody has wanted for so long. They are kept while the group has members, however old they
   * are: a consumer that reads a quiet topic commits seldom.
   *
   * @param emptySince when the group lost its last member; null while it has members
   */
  *expired(
    retentionMs: number,
    now: number,
    emptySince: number | null,
  ): Generator<[topic: string, partition: number]> {
    if (emptySince === null) return;
    for (const [topic, partitions] of this.#topics) {
      for (const [partition, { committedAt }] of partitions) {
        if (Math.max(committedAt, emptySince) + retentionMs <= now) yield [topic, partition];
      }
    }
  }
}
