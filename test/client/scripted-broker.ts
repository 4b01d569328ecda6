import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import {
  apiOf,
  apiVersions,
  ByteReader,
  decoderOf,
  decodeRequestHeader,
  encodeResponse,
  fetch,
  findCoordinator,
  FrameCutter,
  heartbeat,
  initProducerId,
  joinGroup,
  leaveGroup,
  listOffsets,
  metadata,
  offsetCommit,
  offsetFetch,
  produce,
  skipRequestHeaderTags,
  syncGroup,
  type Api,
  type Encodable,
} from '@rookery/wire';

/** What to do with a request instead of answering it. */
export type Mischief = 'silence' | 'close' | { readonly bytes: Buffer } | { readonly correlationId: number };

export type Answers = Partial<Record<string, (request: never, times: number) => object | Mischief>>;

const served: readonly Api[] = [
  produce,
  fetch,
  listOffsets,
  metadata,
  offsetCommit,
  offsetFetch,
  findCoordinator,
  joinGroup,
  heartbeat,
  leaveGroup,
  syncGroup,
  apiVersions,
  initProducerId,
];

export const theTopic = 'topic';

/**
 * A broker whose topics have one partition and whose group has one member. It answers as the protocol asks, except
 * where a test says otherwise, and keeps nothing.
 */
export class ScriptedBroker {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #answers: Answers;
  /** Requests so far, by the name of their API. */
  readonly asked = new Map<string, number>();
  readonly nodeId: number;
  connections = 0;

  private constructor(
    server: Server,
    answers: Answers,
    greeting: ((socket: Socket) => void) | null,
    nodeId: number,
  ) {
    this.#server = server;
    this.#answers = answers;
    this.nodeId = nodeId;
    server.on('connection', (socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket));
      if (greeting !== null) greeting(socket);
      else this.#serve(socket);
    });
  }

  /** @param greeting what to do with a connection instead of serving it */
  static open(
    answers: Answers = {},
    greeting: ((socket: Socket) => void) | null = null,
    nodeId = 1,
  ): Promise<ScriptedBroker> {
    const server = createServer();
    return new Promise((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve(new ScriptedBroker(server, answers, greeting, nodeId))),
    );
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get node(): { nodeId: number; host: string; port: number } {
    return { nodeId: this.nodeId, host: '127.0.0.1', port: this.port };
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  timesAsked(api: Api): number {
    return this.asked.get(api.name) ?? 0;
  }

  close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #serve(socket: Socket): void {
    const cutter = new FrameCutter(64 * 1024 * 1024);
    socket.on('data', (chunk: Buffer) => {
      cutter.push(chunk);
      for (let frame = cutter.next(); frame !== null; frame = cutter.next()) this.#answer(socket, frame);
    });
  }

  #answer(socket: Socket, frame: readonly Buffer[]): void {
    const reader = new ByteReader(frame);
    const { apiKey, apiVersion, correlationId } = decodeRequestHeader(reader);
    const api = apiOf(apiKey)!;
    skipRequestHeaderTags(api, apiVersion, reader);
    const request = decoderOf(api.request, apiVersion)(reader);
    const times = this.timesAsked(api) + 1;
    this.asked.set(api.name, times);
    const chosen = this.#answers[api.name]?.(request as never, times);
    const answer = chosen ?? this.#honest(api, request);
    if (answer === 'silence') return;
    if (answer === 'close') return void socket.destroy();
    if (typeof answer === 'object' && 'bytes' in answer) return void socket.write(answer.bytes as Buffer);
    const isLiar = typeof answer === 'object' && 'correlationId' in answer;
    const body = isLiar ? this.#honest(api, request) : answer;
    const answered = isLiar ? (answer.correlationId as number) : correlationId;
    for (const span of encodeResponse(api, apiVersion, answered, body as Encodable<typeof api.response>))
      socket.write(span as Uint8Array);
  }

  #honest(api: Api, request: unknown): object | 'silence' {
    const topics = (request as { topics?: { name: string }[] | null }).topics ?? [];
    switch (api) {
      case apiVersions:
        return {
          errorCode: 0,
          apiKeys: served.map(({ key, versions }) => ({
            apiKey: key,
            minVersion: versions[0],
            maxVersion: versions[1],
          })),
        };
      case metadata:
        return {
          brokers: [this.node],
          controllerId: 1,
          clusterId: 'hostile',
          errorCode: 0,
          topics: topics.map(({ name }) => topicAnswer(name, [0], this.nodeId)),
        };
      case findCoordinator:
        return coordinatorAnswer(this);
      case initProducerId:
        return { errorCode: 0, producerId: 1, producerEpoch: 0 };
      case listOffsets:
        return {
          topics: [{ name: theTopic, partitions: [{ partitionIndex: 0, errorCode: 0, offset: 0 }] }],
        };
      case offsetFetch: {
        const { groups } = request as {
          groups: { topics: { name: string; partitionIndexes: number[] }[] }[];
        };
        const topics = groups[0]!.topics.map(({ name, partitionIndexes }) => ({
          name,
          partitions: partitionIndexes.map((partitionIndex) => ({
            partitionIndex,
            committedOffset: -1,
            metadata: '',
            errorCode: 0,
          })),
        }));
        return { errorCode: 0, groups: [{ groupId: 'group', errorCode: 0, topics }] };
      }
      case joinGroup: {
        const { protocols } = request as { protocols: { metadata: Buffer }[] };
        const me = { memberId: 'me', groupInstanceId: null, metadata: protocols[0]!.metadata };
        return {
          errorCode: 0,
          generationId: 1,
          protocolName: 'range',
          leader: 'me',
          memberId: 'me',
          skipAssignment: false,
          members: [me],
        };
      }
      case syncGroup: {
        const { assignments } = request as { assignments: { assignment: Buffer }[] };
        return { errorCode: 0, assignment: assignments[0]!.assignment };
      }
      case heartbeat:
        return { errorCode: 0 };
      case leaveGroup:
        return { errorCode: 0, members: [] };
      case produce:
        return { responses: [] };
      case fetch:
        return 'silence';
      default:
        throw new Error(`no honest answer to ${api.name}`);
    }
  }
}

export const topicId = 'AAAAAAAAAAAAAAAAAAAAAQ';

export const coordinatorAnswer = ({ node }: ScriptedBroker): object => ({
  coordinators: [{ key: 'group', ...node, errorCode: 0, errorMessage: null }],
});

export const topicAnswer = (
  name: string,
  partitions: readonly number[],
  leaderId = 1,
  leaderEpoch = 0,
): object => ({
  errorCode: 0,
  name,
  topicId,
  isInternal: false,
  partitions: partitions.map((partitionIndex) => ({
    errorCode: 0,
    partitionIndex,
    leaderId,
    leaderEpoch,
    replicaNodes: [1],
    isrNodes: [1],
    offlineReplicas: [],
  })),
});
