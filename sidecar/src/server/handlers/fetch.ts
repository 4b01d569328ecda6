import { ErrorCode, fetch, type Request } from '@rookery/wire';
import type { Clock } from '../../clock.ts';
import { OffsetOutOfRange } from '../../log/partition-log.ts';
import { NotServed, type Isolation, type Partition } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { releaseSpans } from '../../vfs/file-region.ts';
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
// Version notes
//   v7 sessions are declined: session id 0 in the answer makes every client send full requests; an id that is
//   not 0 is FETCH_SESSION_ID_NOT_FOUND. v13 names topics by id.

const readCommitted = 1;

type FetchRequest = Request<typeof fetch>;
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
      const gathered = gather(deps, request, call.version);
      if (gathered.mayLeave || gathered.bytes >= request.minBytes || request.maxWaitMs <= 0)
        return gathered.answer;
      return new Promise((resolve) => park(deps, request, call, gathered, resolve));
    },
  });
}

interface Gathered {
  readonly answer: FetchAnswer;
  readonly bytes: number;
  /** An error is in it, or nothing was asked for: waiting would not help. */
  readonly mayLeave: boolean;
  readonly partitions: readonly Partition[];
}

/** Reads what there is, in the order in which the client named it. */
function gather(deps: FetchDeps, request: FetchRequest, version: number): Gathered {
  const partitions: Partition[] = [];
  const limit = Math.min(request.maxBytes, deps.bytesMax);
  const isolation = request.isolationLevel === readCommitted ? 'committed' : 'uncommitted';
  let bytes = 0;
  let hasError = false;
  const responses = request.topics.map((topic): TopicAnswer => {
    const answers = topic.partitions.map((asked): PartitionAnswer => {
      const partition =
        version >= 13
          ? deps.replicas.findById(topic.topicId, asked.partition)
          : deps.replicas.find(topic.topic, asked.partition);
      if (partition === null) {
        hasError = true;
        const isUnknownId = version >= 13 && deps.replicas.topicById(topic.topicId) === undefined;
        return refused(asked.partition, isUnknownId ? 'UNKNOWN_TOPIC_ID' : 'UNKNOWN_TOPIC_OR_PARTITION');
      }
      partitions.push(partition);
      const maxBytes = Math.max(0, Math.min(asked.partitionMaxBytes, limit - bytes));
      const answer = readPartition(partition, asked, isolation, maxBytes, bytes === 0);
      hasError ||= answer.errorCode !== 0;
      bytes += answer.size;
      return answer;
    });
    return { topic: topic.topic, topicId: topic.topicId, partitions: answers };
  });
  return { answer: { responses }, bytes, mayLeave: hasError || partitions.length === 0, partitions };
}

function readPartition(
  partition: Partition,
  asked: FetchRequest['topics'][number]['partitions'][number],
  isolation: Isolation,
  maxBytes: number,
  atLeastOne: boolean,
): PartitionAnswer & { size: number } {
  const { log } = partition;
  try {
    // Taken once, before the read: a watermark that moves meanwhile must not promise what was not read.
    const { highWatermark, lastStableOffset } = partition;
    const { spans, sizeInBytes } = partition.read({
      offset: asked.fetchOffset,
      maxBytes,
      atLeastOne,
      currentLeaderEpoch: asked.currentLeaderEpoch,
      isolation,
    });
    return {
      partitionIndex: asked.partition,
      errorCode: 0,
      highWatermark,
      lastStableOffset,
      logStartOffset: log.logStartOffset,
      abortedTransactions:
        isolation === 'committed' ? log.abortedTransactions(asked.fetchOffset, lastStableOffset) : null,
      records: spans,
      size: sizeInBytes,
    };
  } catch (error) {
    if (error instanceof NotServed) return refused(asked.partition, error.error);
    if (error instanceof OffsetOutOfRange) {
      const { highWatermark, lastStableOffset } = partition;
      return {
        ...refused(asked.partition, 'OFFSET_OUT_OF_RANGE'),
        highWatermark,
        lastStableOffset,
        logStartOffset: log.logStartOffset,
      };
    }
    throw error;
  }
}

const refused = (
  partitionIndex: number,
  error: keyof typeof ErrorCode,
): PartitionAnswer & { size: number } => ({
  partitionIndex,
  errorCode: ErrorCode[error],
  highWatermark: -1,
  abortedTransactions: null,
  records: [],
  size: 0,
});

/** Holds the request until one of its partitions moves far enough, or its time is up. */
function park(
  deps: FetchDeps,
  request: FetchRequest,
  call: Call,
  first: Gathered,
  resolve: (answer: FetchAnswer) => void,
): void {
  const { partitions } = first;
  let gathered = first;
  let isWoken = false;
  const finish = (): void => {
    timer.cancel();
    forget();
    for (const partition of partitions) partition.removeReader(wake);
    resolve(gathered.answer);
  };
  const look = (): void => {
    isWoken = false;
    if (isOver) return;
    releaseRecords(gathered.answer);
    gathered = gather(deps, request, call.version);
    if (gathered.mayLeave || gathered.bytes >= request.minBytes) over();
  };
  // Several partitions move in one turn: the answer should have them all.
  const wake = (): void => {
    if (isWoken) return;
    isWoken = true;
    queueMicrotask(look);
  };
  let isOver = false;
  const over = (): void => {
    if (isOver) return;
    isOver = true;
    finish();
  };
  const timer = deps.clock.after(request.maxWaitMs, over);
  const forget = call.whenClosed(over);
  for (const partition of partitions) partition.addReader(wake);
}

/** Lets go of the files behind an answer that is not sent. */
function releaseRecords(answer: FetchAnswer): void {
  for (const topic of answer.responses ?? []) {
    for (const { records } of topic.partitions) releaseSpans(records ?? []);
  }
}
