import { ErrorCode, fetch, type Request } from '@rookery/wire';
import type { Clock } from '../../clock.ts';
import { IndexLies, OffsetOutOfRange } from '../../log/log-reader.ts';
import { NotServed, type Isolation, type Partition } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { releaseSpans } from '../../vfs/file-region.ts';
import { isSystemError } from '../../vfs/file-system.ts';
import { handler, type Answer, type Call, type Handler } from '../handler.ts';

// Fetch — whole record batches from each partition named, straight from the log.
//
// Behaviour
//   · An offset inside a batch gets that batch whole: the client skips what it has.
//   · Too little data (fetch.min.bytes) parks the request until there is enough, or until max wait is over.
//   · The first batch of an answer comes whole, however large; after it max bytes holds, and what stands at
//     the end may be cut in the middle of a batch.
//   · Nothing at or past the high watermark is read; read_committed stops at the last stable offset and is told
//     which transactions below it were aborted.
//   · A reader that says which epoch it has read last, and has read what this log does not hold, is told where
//     the two part (divergingEpoch) and gets no records.
// Version notes
//   v7 sessions are declined: session id 0 in the answer makes every client send full requests; an id that is
//   not 0 is FETCH_SESSION_ID_NOT_FOUND. v13 names topics by id.

const readCommitted = 1;

type FetchRequest = Request<typeof fetch>;
type TopicAsked = FetchRequest['topics'][number];
type PartitionAsked = TopicAsked['partitions'][number];
type FetchAnswer = Answer<typeof fetch>;
type TopicAnswer = NonNullable<FetchAnswer['responses']>[number];
type PartitionAnswer = TopicAnswer['partitions'][number];

interface FetchDeps {
  readonly replicas: ReplicaManager;
  readonly clock: Clock;
  /** `fetch.max.bytes`: the most bytes of records in one answer. */
  readonly bytesMax: number;
}

export function fetchHandler(deps: FetchDeps): Handler {
  return handler<typeof fetch>({
    api: fetch,
    handle(request, call) {
      if (request.sessionId !== 0) return { errorCode: ErrorCode.FETCH_SESSION_ID_NOT_FOUND, responses: [] };
      const fetching = new Fetching(deps, request, call.version);
      if (fetching.read() || request.maxWaitMs <= 0) return fetching.answer();
      return new Promise((resolve, reject) => {
        park(deps.clock, fetching, request.maxWaitMs, call, resolve, reject);
      });
    },
  });
}

/** A partition that the client asked for, and what it would get now. */
interface Slot {
  readonly topic: TopicAsked;
  readonly asked: PartitionAsked;
  partition: Partition | null;
  answer: PartitionAnswer | null;
  sizeInBytes: number;
  /** It may have moved since it was read. */
  isDue: boolean;
}

/** One request: which partitions, and what there is in them so far. */
class Fetching {
  readonly #deps: FetchDeps;
  readonly #topics: { readonly topic: TopicAsked; readonly slots: Slot[] }[];
  /** In the order in which the client named them, which decides who gets what where max bytes is short. */
  readonly slots: readonly Slot[];
  readonly #version: number;
  readonly #isolation: Isolation;
  readonly #bytesMax: number;
  readonly #bytesMin: number;

  constructor(deps: FetchDeps, request: FetchRequest, version: number) {
    this.#deps = deps;
    this.#version = version;
    this.#isolation = request.isolationLevel === readCommitted ? 'committed' : 'uncommitted';
    this.#bytesMax = Math.min(request.maxBytes, deps.bytesMax);
    // Who wants more at least than may leave at most would wait in vain.
    this.#bytesMin = Math.min(request.minBytes, this.#bytesMax);
    this.#topics = request.topics.map((topic) => ({
      topic,
      slots: topic.partitions.map((asked) => ({
        topic,
        asked,
        partition: null,
        answer: null,
        sizeInBytes: 0,
        isDue: true,
      })),
    }));
    this.slots = this.#topics.flatMap(({ slots }) => slots);
  }

  /**
   * Reads what there is. A partition that had nothing, and has not moved, is not looked at again: a request may
   * name hundreds of which one moves.
   *
   * @returns whether the answer may leave: with enough bytes, with an error, with a reader that must go back, or because nothing was asked for
   */
  read(): boolean {
    let bytes = 0;
    let hasError = this.slots.length === 0;
    try {
      for (const slot of this.slots) {
        if (slot.isDue || slot.sizeInBytes > 0) this.#read(slot, bytes);
        bytes += slot.sizeInBytes;
        hasError ||= slot.answer!.errorCode !== 0 || slot.answer!.divergingEpoch !== undefined;
      }
    } catch (error) {
      this.letGo();
      throw error;
    }
    return hasError || bytes >= this.#bytesMin;
  }

  answer(): FetchAnswer {
    const responses = this.#topics.map(({ topic, slots }): TopicAnswer => ({
      topic: topic.topic,
      topicId: topic.topicId,
      partitions: slots.map(({ answer }) => answer!),
    }));
    return { responses };
  }

  /** While the request waits it holds neither files nor memory; what there was is read again. */
  letGo(): void {
    for (const { answer } of this.slots) {
      if (answer === null) continue;
      releaseSpans(answer.records ?? []);
      answer.records = [];
    }
  }

  #read(slot: Slot, bytesBefore: number): void {
    const { topic, asked } = slot;
    const { replicas } = this.#deps;
    const byId = this.#version >= 13;
    slot.isDue = false;
    slot.sizeInBytes = 0;
    slot.partition = byId
      ? replicas.findById(topic.topicId, asked.partition)
      : replicas.find(topic.topic, asked.partition);
    if (slot.partition === null) {
      const isUnknownId = byId && replicas.topicById(topic.topicId) === undefined;
      slot.answer = refused(asked.partition, isUnknownId ? 'UNKNOWN_TOPIC_ID' : 'UNKNOWN_TOPIC_OR_PARTITION');
      return;
    }
    const maxBytes = Math.max(0, Math.min(asked.partitionMaxBytes, this.#bytesMax - bytesBefore));
    const { answer, sizeInBytes } = readPartition(
      slot.partition,
      asked,
      this.#isolation,
      maxBytes,
      bytesBefore === 0,
    );
    slot.answer = answer;
    slot.sizeInBytes = sizeInBytes;
  }
}

function readPartition(
  partition: Partition,
  asked: PartitionAsked,
  isolation: Isolation,
  maxBytes: number,
  atLeastOne: boolean,
): { answer: PartitionAnswer; sizeInBytes: number } {
  const { log } = partition;
  try {
    // Taken once, before the read: a watermark that moves meanwhile must not promise what was not read.
    const { highWatermark, lastStableOffset } = partition;
    partition.checkLeader(asked.currentLeaderEpoch);
    const divergingEpoch = partition.divergence(asked.fetchOffset, asked.lastFetchedEpoch);
    if (divergingEpoch !== null) {
      const answer: PartitionAnswer = {
        partitionIndex: asked.partition,
        errorCode: 0,
        highWatermark,
        lastStableOffset,
        logStartOffset: log.logStartOffset,
        divergingEpoch,
        abortedTransactions: null,
        records: [],
      };
      return { answer, sizeInBytes: 0 };
    }
    // Before the read: who cannot be told what was aborted gets no records either.
    const abortedTransactions =
      isolation === 'committed' ? log.abortedTransactions(asked.fetchOffset, lastStableOffset) : null;
    const { spans, sizeInBytes } = partition.read({
      offset: asked.fetchOffset,
      maxBytes,
      atLeastOne,
      currentLeaderEpoch: asked.currentLeaderEpoch,
      isolation,
    });
    const answer: PartitionAnswer = {
      partitionIndex: asked.partition,
      errorCode: 0,
      highWatermark,
      lastStableOffset,
      logStartOffset: log.logStartOffset,
      abortedTransactions,
      records: spans,
    };
    return { answer, sizeInBytes };
  } catch (error) {
    if (error instanceof NotServed) return { answer: refused(asked.partition, error.error), sizeInBytes: 0 };
    if (error instanceof OffsetOutOfRange) {
      const { highWatermark, lastStableOffset } = partition;
      const answer = {
        ...refused(asked.partition, 'OFFSET_OUT_OF_RANGE'),
        highWatermark,
        lastStableOffset,
        logStartOffset: log.logStartOffset,
      };
      return { answer, sizeInBytes: 0 };
    }
    // A file that cannot be read is this partition's trouble alone.
    if (error instanceof IndexLies || isSystemError(error))
      return { answer: refused(asked.partition, 'KAFKA_STORAGE_ERROR'), sizeInBytes: 0 };
    throw error;
  }
}

const refused = (partitionIndex: number, error: keyof typeof ErrorCode): PartitionAnswer => ({
  partitionIndex,
  errorCode: ErrorCode[error],
  highWatermark: -1,
  abortedTransactions: null,
  records: [],
});

/** Holds the request until its partitions have moved far enough, or its time is up. */
function park(
  clock: Clock,
  fetching: Fetching,
  maxWaitMs: number,
  call: Call,
  resolve: (answer: FetchAnswer) => void,
  reject: (error: unknown) => void,
): void {
  let isOver = false;
  /** Something has moved that was not looked at. */
  let isLookDue = false;
  let hasLooked = false;
  const watched: (readonly [Partition, () => void])[] = [];
  const leave = (settle: () => void): void => {
    isOver = true;
    timer.cancel();
    forget();
    for (const [partition, wake] of watched) partition.removeReader(wake);
    settle();
  };
  const read = (isLast: boolean): void => {
    let isEnough: boolean;
    try {
      isEnough = fetching.read();
    } catch (error) {
      return leave(() => reject(error));
    }
    if (isEnough || isLast) leave(() => resolve(fetching.answer()));
    else fetching.letGo();
  };
  const look = (): void => {
    if (isOver || !isLookDue) return;
    isLookDue = false;
    read(false);
    if (isOver) return;
    hasLooked = true;
    clock.nextTurn(() => {
      hasLooked = false;
      look();
    });
  };
  const wake = (slot: Slot): void => {
    slot.isDue = true;
    if (isLookDue) return;
    isLookDue = true;
    // Several partitions move at once, and the answer should have them all. One look a turn is enough.
    if (!hasLooked) queueMicrotask(look);
  };
  const over = (): void => {
    if (!isOver) read(true);
  };
  fetching.letGo();
  const timer = clock.after(maxWaitMs, over);
  const forget = call.whenClosed(over);
  for (const slot of fetching.slots) {
    const { partition } = slot;
    if (partition === null) continue;
    const woken = (): void => wake(slot);
    watched.push([partition, woken]);
    partition.addReader(woken);
  }
}
