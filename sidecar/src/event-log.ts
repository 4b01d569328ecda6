import type { Logger } from 'pino';
import { systemClock } from './clock.ts';
import type { EventBus } from './events.ts';

type Level = 'info' | 'warn' | 'error';

/** Bytes of lines that may wait for a slow reader of stderr; beyond them lines are dropped, not the broker's time. */
const waitingBytesMax = 1024 * 1024;

/** How long the last lines have to leave the process. */
const lastLinesMs = 1_000;

/**
 * What happens, as lines on stderr: pretty on a terminal, JSON elsewhere. The library loads with the first
 * line, because most starts have nothing to say.
 */
export class EventLog {
  #logger: Promise<OpenLogger> | null = null;

  constructor(events: EventBus) {
    events.on('recovered', ({ partition, logEndOffset, wasClean }) => {
      if (!wasClean) this.info('recovered a log after a crash', { partition, logEndOffset });
    });
    events.on('tailTruncated', (info) => this.warn('cut a torn tail', info));
    events.on('indexRebuilt', (info) => this.info('rebuilt an index', info));
    events.on('segmentsDeleted', (info) => this.info('deleted old segments', info));
    events.on('fileRemoved', (info) => this.info('removed a file', info));
    events.on('compacted', (info) => this.info('compacted a log', info));
    events.on('partitionQuarantined', (info) =>
      this.error('records are damaged: served up to them, until `rookery log repair`', info),
    );
    events.on('checkpointDamaged', (info) => this.warn('a checkpoint cannot be read', info));
    events.on('recordsMissing', (info) =>
      this.error('the files of a partition that had records are gone: it begins anew, empty', info),
    );
    events.on('logSetAside', (info) =>
      this.error('a directory with the topic id of another topic was put aside', info),
    );
    events.on('epochsRestored', (info) => this.warn('read the leader epochs from the batches', info));
    events.on('metadataRestored', (info) => this.warn('restored a lost partition.metadata', info));
    events.on('partitionOffline', (info) => this.error('a partition is offline', info));
    events.on('appendsTakenBack', (info) =>
      this.error('the disk takes no more: refused what was not written', info),
    );
    events.on('diskLow', (info) => this.error('the disk is nearly full: produce is refused', info));
    events.on('reserveGivenUp', (info) =>
      this.warn('the disk is full: gave up the reserve for checkpoints and deletes', info),
    );
    events.on('diskRelieved', (info) => this.info('the disk has space again', info));
    events.on('topicCreated', (info) => this.info('created a topic', info));
    events.on('topicDeleted', (info) => this.info('deleted a topic', info));
    events.on('connectionRefused', (info) => this.warn('refused a connection', info));
    events.on('connectionClosed', ({ remoteAddress, reason }) => {
      if (reason !== null) this.info('a connection closed', { remoteAddress, reason });
    });
    events.on('handlerFailed', ({ error }) =>
      this.error('a handler failed; its connection closes', { err: error }),
    );
    events.on('groupRebalanced', (info) => this.info('a group rebalanced', info));
    events.on('memberExpired', (info) => this.info('a group member was not heard of in time', info));
    events.on('backgroundFailed', ({ task, error }) =>
      this.error('background work failed', { task, err: error }),
    );
  }

  info(message: string, fields: object = {}): void {
    this.#write('info', message, fields);
  }

  warn(message: string, fields: object = {}): void {
    this.#write('warn', message, fields);
  }

  error(message: string, fields: object = {}): void {
    this.#write('error', message, fields);
  }

  /** Resolves when every line has left the process, or will not: then none comes after it. */
  async end(): Promise<void> {
    if (this.#logger !== null) await (await this.#logger).end();
  }

  #write(level: Level, message: string, fields: object): void {
    this.#logger ??= openLogger();
    // The lines keep their order: each is a continuation of the same promise.
    void this.#logger.then(({ logger }) => logger[level](fields, message));
  }
}

interface OpenLogger {
  readonly logger: Logger;
  end(): Promise<void>;
}

async function openLogger(): Promise<OpenLogger> {
  const { pino } = await import('pino');
  if (process.stderr.isTTY) {
    const { default: pretty } = await import('pino-pretty');
    return { logger: pino({ base: null }, pretty({ destination: 2, sync: true })), end: async () => {} };
  }
  const destination = pino.destination({ dest: 2, sync: false, maxLength: waitingBytesMax });
  destination.on('error', () => {});
  const end = (): Promise<void> =>
    new Promise((resolve) => {
      // Whoever read the lines may be gone, or stuck.
      destination.once('error', () => resolve());
      systemClock.after(lastLinesMs, resolve);
      destination.once('close', () => resolve());
      destination.end();
    });
  return { logger: pino({}, destination), end };
}
