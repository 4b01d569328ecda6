import {
  ErrorCode,
  produce,
  RecordBatch,
  WireError,
  type Decoded,
  type Encodable,
  type ErrorName,
  type legacyProduce,
  type Request,
} from '@rookery/wire';
import type { Clock } from '../../clock.ts';
import { AppendRefused } from '../../log/append-checks.ts';
import type { Appended } from '../../log/partition-log.ts';
import { NotServed, type Partition } from '../../replication/partition.ts';
import type { ReplicaManager } from '../../replication/replica-manager.ts';
import { isSystemError } from '../../vfs/file-system.ts';
import { Deadlines, type Deadline } from '../deadlines.ts';
import { FrameRefused } from '../frame-refused.ts';
import { handler, type Answer, type Call, type Handler } from '../handler.ts';

// Produce — appends one record batch to each partition named.
//
// Behaviour
//   · acks=all answers when the batch is below the high watermark, acks=1 when it is as durable on this
//     broker as flush.mode says, acks=0 never: there an error closes the connection, so that the client looks
//     for the leader again.
//   · Batches are appended in the order of their arrival on a connection; an answer waits for the slowest of
//     its partitions, others are not held up.
//   · Topics that the broker keeps for itself are INVALID_TOPIC_EXCEPTION.
//   · Records are not decoded, and the batch's base offset and leader epoch are patched where they lie, unless the
//     topic asks for more: another codec (compression.type), keys, times. Then the batch is appended later, and
//     what follows it to the same partition waits behind it.
// Version notes
//   v0–v2 are advertised and refused: librdkafka up to 2.11 stops compressing when version 0 is not offered.
//   v7 is the first that may carry zstd. v13 names topics by id.

type PartitionAnswer = Answer<typeof produce>['responses'][number]['partitionResponses'][number];

const zstdFrom = 7;

interface ProduceDeps {
  readonly replicas: ReplicaManager;
  readonly clock: Clock;
}

export function produceHandler(deps: ProduceDeps): Handler {
  const deadlines = new Deadlines(deps.clock);
  return handler<typeof produce>({
    api: produce,
    advertisedFrom: 0,
    handle: (request, call) => {
      if (request.acks === 0) return appendUnacknowledged(deps, request, call);
      return new Promise((resolve, reject) => new Appending(deps, deadlines, request, call, resolve, reject));
    },
  });
}

/** One request on its way: appended at once, answered when every partition has been told. */
class Appending {
  readonly #answer: { topic: TopicOf<typeof produce>; partitions: PartitionAnswer[] }[] = [];
  readonly #resolve: (answer: Answer<typeof produce>) => void;
  readonly #reject: (mistake: unknown) => void;
  readonly #call: Call;
  /** Everything was appended, and is in its file; readers do not get it from the memory in which it came. */
  #isSpent = true;
  #pending = 1;
  readonly #deadlines: Deadlines;
  #deadline: Deadline | null = null;

  constructor(
    deps: ProduceDeps,
    deadlines: Deadlines,
    request: Request<typeof produce>,
    call: Call,
    resolve: (answer: Answer<typeof produce>) => void,
    reject: (mistake: unknown) => void,
  ) {
    this.#deadlines = deadlines;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#call = call;
    const acksValid = request.acks === 1 || request.acks === -1;
    for (const topic of request.topicData) {
      const partitions: PartitionAnswer[] = [];
      this.#answer.push({ topic, partitions });
      for (const { index, records } of topic.partitionData) {
        const answer: PartitionAnswer = {
          index,
          errorCode: 0,
          baseOffset: -1,
          logAppendTimeMs: -1,
          logStartOffset: -1,
        };
        partitions.push(answer);
        if (!acksValid) answer.errorCode = ErrorCode.INVALID_REQUIRED_ACKS;
        else this.#append(deps, request, call, topic, index, records, answer);
      }
    }
    this.#settle();
    // The promise is kept when the log answers, whatever the client's patience: only a stuck disk gets here.
    if (this.#pending > 0) this.#deadline = deadlines.add(request.timeoutMs, () => this.#expire());
  }

  #append(
    deps: ProduceDeps,
    request: Request<typeof produce>,
    call: Call,
    topic: TopicOf<typeof produce>,
    index: number,
    records: readonly Buffer[] | null,
    answer: PartitionAnswer,
  ): void {
    try {
      const partition = partitionOf(deps.replicas, topic, index, call.version);
      const appended = partition.appendFromClient(batchOf(records, call.version, request), request.acks);
      this.#pending++;
      // Until the log has answered, an answer that leaves early (a timeout) must say so.
      answer.errorCode = ErrorCode.REQUEST_TIMED_OUT;
      if (!(appended instanceof Promise)) return this.#appended(partition, request.acks, appended, answer);
      appended
        .then((late) => this.#appended(partition, request.acks, late, answer))
        .catch((error: unknown) => this.#refused(answer, error));
    } catch (error) {
      refuse(answer, error);
    }
  }

  #appended(partition: Partition, acks: number, appended: Appended, answer: PartitionAnswer): void {
    answer.logAppendTimeMs = appended.logAppendTime;
    answer.logStartOffset = appended.logStartOffset;
    if (appended.isKept) this.#isSpent = false;
    const settled = (error: ErrorName | null): void => {
      answer.errorCode = codeOf(error);
      if (error === null) answer.baseOffset = appended.baseOffset;
      this.#settle();
    };
    if (acks === 1) partition.whenDurable(appended.lastOffset, settled);
    else partition.whenCommitted(appended.lastOffset, settled);
  }

  #refused(answer: PartitionAnswer, error: unknown): void {
    try {
      refuse(answer, error);
      this.#settle();
    } catch (mistake) {
      this.#reject(mistake);
    }
  }

  #settle(): void {
    if (--this.#pending > 0) return;
    if (this.#deadline !== null) this.#deadlines.met(this.#deadline);
    this.#finish();
  }

  #expire(): void {
    this.#pending = Infinity;
    this.#isSpent = false;
    this.#finish();
  }

  #finish(): void {
    // What was refused has had it all, or it is with somebody who has not told.
    const isWhole = this.#answer.every(({ partitions }) => partitions.every((each) => each.errorCode === 0));
    if (this.#isSpent && isWhole) this.#call.bytesSpent();
    this.#resolve({
      responses: this.#answer.map(({ topic, partitions }) => ({
        name: topic.name,
        topicId: topic.topicId,
        // A copy: answers that are settled after a timeout must not change what is being encoded.
        partitionResponses: partitions.map((partition) => ({ ...partition })),
      })),
    });
  }
}

type TopicOf<A extends typeof produce> = Request<A>['topicData'][number];

/** Answers nobody, and not before everything is appended: until then the request counts as unanswered. */
function appendUnacknowledged(
  deps: ProduceDeps,
  request: Request<typeof produce>,
  call: Call,
): null | Promise<null> {
  const late: Promise<unknown>[] = [];
  for (const topic of request.topicData) {
    for (const { index, records } of topic.partitionData) {
      const where = `${topic.name || topic.topicId}-${index}`;
      try {
        const partition = partitionOf(deps.replicas, topic, index, call.version);
        const appended = partition.appendFromClient(batchOf(records, call.version, request), 0);
        if (!(appended instanceof Promise)) continue;
        const told = appended.catch((error: unknown) => refuseUnacknowledged(where, error));
        // Where a later partition is refused at once, nobody waits for this one any more.
        told.catch(() => {});
        late.push(told);
      } catch (error) {
        refuseUnacknowledged(where, error);
      }
    }
  }
  return late.length === 0 ? null : Promise.all(late).then(() => null);
}

/** @throws FrameRefused, or the error itself when it is a mistake of ours */
function refuseUnacknowledged(where: string, error: unknown): never {
  const answer: PartitionAnswer = { index: -1, errorCode: 0, baseOffset: -1 };
  refuse(answer, error);
  throw new FrameRefused(`acks=0 to ${where}: ${answer.errorMessage ?? answer.errorCode}`);
}

function partitionOf(
  replicas: ReplicaManager,
  topic: TopicOf<typeof produce>,
  index: number,
  version: number,
): Partition {
  const known = version >= 13 ? replicas.topicById(topic.topicId) : undefined;
  if (version >= 13 && known === undefined) throw new NotServed('UNKNOWN_TOPIC_ID', topic.topicId);
  const name = known?.name ?? topic.name;
  // The broker believes what it reads there, so it alone writes there.
  if (replicas.isInternal(name)) throw new NotServed('INVALID_TOPIC_EXCEPTION', `${name} is internal`);
  const partition = replicas.find(name, index);
  if (partition === null) throw new NotServed('UNKNOWN_TOPIC_OR_PARTITION', `${name}-${index}`);
  return partition;
}

/** @throws AppendRefused for what is not exactly one batch that this version may carry */
function batchOf(
  records: readonly Buffer[] | null,
  version: number,
  request: Request<typeof produce>,
): RecordBatch {
  if (request.transactionalId !== null)
    throw new AppendRefused('INVALID_TXN_STATE', 'transactions are not served');
  const batches = records === null ? [] : RecordBatch.split(records);
  const [batch] = batches;
  if (batch === undefined || batches.length > 1) {
    throw new AppendRefused(
      'INVALID_RECORD',
      `a partition takes exactly one batch a request, not ${batches.length}`,
    );
  }
  if (version < zstdFrom && batch.codec === 'zstd') {
    throw new AppendRefused(
      'UNSUPPORTED_COMPRESSION_TYPE',
      `zstd needs Produce version ${zstdFrom}, this is ${version}`,
    );
  }
  return batch;
}

/** @throws the error itself when it is not a refusal but a mistake of ours */
function refuse(answer: PartitionAnswer, error: unknown): void {
  if (error instanceof AppendRefused) {
    answer.errorCode = codeOf(error.error);
    answer.errorMessage = error.message;
    answer.recordErrors = error.recordErrors?.map(({ index, message }) => ({
      batchIndex: index,
      batchIndexErrorMessage: message,
    }));
  } else if (error instanceof NotServed) {
    answer.errorCode = codeOf(error.error);
    answer.errorMessage = error.message;
  } else if (isSystemError(error)) {
    // An index could not be read, say: nothing was appended.
    answer.errorCode = ErrorCode.KAFKA_STORAGE_ERROR;
    answer.errorMessage = error.message;
  } else if (error instanceof WireError) {
    answer.errorCode =
      error.code === 'RK9103' ? ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT : ErrorCode.CORRUPT_MESSAGE;
    answer.errorMessage = error.message;
  } else {
    throw error;
  }
}

const codeOf = (error: ErrorName | null): number => (error === null ? ErrorCode.NONE : ErrorCode[error]);

export function refuseLegacyProduce(
  request: Decoded<typeof legacyProduce.request>,
): Encodable<typeof legacyProduce.response> {
  return {
    responses: request.topicData.map(({ name, partitionData }) => ({
      name,
      partitionResponses: partitionData.map(({ index }) => ({
        index,
        errorCode: ErrorCode.UNSUPPORTED_VERSION,
      })),
    })),
  };
}
