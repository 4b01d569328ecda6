import type { Clock } from '../clock.ts';
import { randomUuid } from '../clock.ts';
import { SidecarError } from '../errors.ts';
import {
  parentOf,
  readFile,
  readKernelFile,
  writeAtomicallyNow,
  type FileSystem,
  type Lock,
} from '../vfs/file-system.ts';
import type { Rot } from './rot.ts';

/** The version of everything that we write beside Kafka's own formats; see docs/format/data-directory.md. */
const formatVersion = 1;

const lockName = '.lock';
export const markerName = '.kafka_cleanshutdown';
const metaName = 'meta.properties';
const ownName = 'rookery.json';

export interface Identity {
  readonly nodeId: number;
  readonly clusterId: string;
  readonly directoryId: string;
}

/**
 * The directory that all of a broker's files are in: who it belongs to, which format it has, and whether the
 * last stop was orderly. One process has it at a time.
 */
export class DataDirectory {
  readonly path: string;
  readonly identity: Identity;
  /** The marker of an orderly stop was there. It is gone now: until the next one, a crash is a crash. */
  readonly wasCleanlyStopped: boolean;
  /** The machine has not restarted since: what was written is in the page cache or on the disk. */
  readonly isSameBoot: boolean;
  readonly #fs: FileSystem;
  readonly #lock: Lock;
  readonly #bootId: string | null;
  #facts: Facts;
  /** Partitions whose end was cut since the start. */
  readonly #cut = new Set<string>();
  /** Logs are being opened, so what is cut is kept with all else that this changes. */
  #isOpening = true;

  private constructor(
    fs: FileSystem,
    path: string,
    lock: Lock,
    identity: Identity,
    facts: Facts,
    found: { bootId: string | null; isSameBoot: boolean; isMarked: boolean },
  ) {
    this.#fs = fs;
    this.path = path;
    this.#lock = lock;
    this.identity = identity;
    this.#facts = facts;
    this.#bootId = found.bootId;
    this.isSameBoot = found.isSameBoot;
    this.wasCleanlyStopped = found.isMarked;
  }

  /**
   * Makes the directory where there is none, and locks it.
   *
   * @param nodeId the configured id; the directory keeps the one it was made with
   * @throws SidecarError RK0301 unusable, RK0302 in use, RK0303 newer format, RK0304 another node's
   */
  static open(fs: FileSystem, path: string, nodeId: number, clock: Clock): DataDirectory {
    let lock: Lock | null;
    try {
      makeDurably(fs, path);
      lock = fs.lock(`${path}/${lockName}`);
    } catch (error) {
      if (error instanceof SidecarError) throw error;
      throw new SidecarError('RK0301', (error as Error).message, { cause: error });
    }
    if (lock === null) throw new SidecarError('RK0302', path);
    try {
      const found = readFacts(fs, path);
      const identity = readIdentity(fs, path, nodeId) ?? makeIdentity(fs, path, nodeId, clock);
      if (!fs.exists(`${path}/${ownName}`)) writeFacts(fs, path, found);
      const bootId = readKernelFile(fs, bootIdPath);
      const isSameBoot = bootId !== null && found.bootId === bootId;
      return new DataDirectory(fs, path, lock, identity, found, {
        bootId,
        isSameBoot,
        isMarked: takeMarker(fs, path),
      });
    } catch (error) {
      lock.release();
      if (error instanceof SidecarError) throw error;
      throw new SidecarError('RK0301', (error as Error).message, { cause: error });
    }
  }

  /** The last thing of an orderly stop: everything before it is on disk. */
  markCleanStop(): void {
    writeAtomicallyNow(this.#fs, `${this.path}/${markerName}`, Buffer.from('{"version":0,"brokerEpoch":-1}'));
  }

  /** The offset from which a partition's bytes may not be trusted, because a sync of them failed; null for none. */
  distrustedFrom(partition: string): number | null {
    return this.#facts.distrusted[partition] ?? null;
  }

  /** Leaves word of a failed sync for the next start. The disk that failed may refuse this too. */
  distrust(partition: string, fromOffset: number): void {
    this.#rewrite({
      bootId: this.#bootId,
      distrusted: { ...this.#facts.distrusted, [partition]: fromOffset },
    });
  }

  /**
   * Every log is open: what could not be trusted has been cut, what a power cut left has been put in order, and every
   * cut that a kill may have interrupted is on the platter. What was cut while they were opened may not be yet.
   * Only now is this start of the machine the one that the files belong to: when recovery is killed, the next
   * start must not take them for what a mere kill leaves.
   */
  trustAgain(): void {
    const { bootId, distrusted, cut } = this.#facts;
    const isNews = cut.length > 0 || this.#cut.size > 0;
    if (isNews || bootId !== this.#bootId || Object.keys(distrusted).length > 0)
      this.#rewrite({ bootId: this.#bootId, distrusted: {}, cut: [...this.#cut] });
    this.#isOpening = false;
  }

  /** The end of a partition's log was cut before the last stop, and perhaps in the page cache alone. */
  wasCut(partition: string): boolean {
    return this.#facts.cut.includes(partition);
  }

  /**
   * Leaves word that the end of a partition's log is being cut, once a start: how far that came shows nowhere else.
   * While logs are being opened, `trustAgain` leaves word of all of them.
   */
  willCut(partition: string): void {
    if (this.#cut.has(partition)) return;
    if (!this.#isOpening) this.#rewrite({ cut: [...this.#facts.cut, partition] });
    this.#cut.add(partition);
  }

  /** Where a partition has rotted, as far as anybody has seen; null for one that is whole. */
  rotOf(partition: string): Rot | null {
    return this.#facts.quarantined[partition] ?? null;
  }

  /** Leaves word of rot, for as long as nobody repairs it: what was seen once may read well the next time. */
  quarantine(partition: string, rot: Rot): void {
    const known = this.rotOf(partition);
    if (known !== null && known.offset === rot.offset) return;
    this.#rewrite({ quarantined: { ...this.#facts.quarantined, [partition]: rot } });
  }

  /** The partition was repaired, or is gone. */
  release(partition: string): void {
    const { [partition]: rot, ...quarantined } = this.#facts.quarantined;
    if (rot !== undefined) this.#rewrite({ quarantined });
  }

  #rewrite(changed: Partial<Facts>): void {
    const facts = { ...this.#facts, ...changed };
    writeFacts(this.#fs, this.path, facts);
    this.#facts = facts;
  }

  unlock(): void {
    this.#lock.release();
  }
}

/**
 * The lock of a directory whose broker is stopped, for whoever works on its files instead.
 * @throws SidecarError RK0302
 */
export function lockStopped(fs: FileSystem, path: string): Lock {
  const lock = fs.lock(`${path}/${lockName}`);
  if (lock === null) throw new SidecarError('RK0302', `${path}: stop the broker first`);
  return lock;
}

/** What the last run has left word of: where it saw rot, and from where on a failed sync has made bytes doubtful. */
export interface LeftWord {
  readonly rot: Rot | null;
  readonly distrustedFrom: number | null;
}

/**
 * For whoever looks at files without being their broker; nothing beside files that were copied elsewhere.
 * @throws SidecarError RK0303, RK0305
 */
export function leftWordOf(fs: FileSystem, path: string, partition: string): LeftWord {
  const { quarantined, distrusted } = readFacts(fs, path);
  return { rot: quarantined[partition] ?? null, distrustedFrom: distrusted[partition] ?? null };
}

/** Word of a partition's rot is taken back, under the lock: it was repaired. */
export function releaseStopped(fs: FileSystem, path: string, partition: string): void {
  const facts = readFacts(fs, path);
  const quarantined = Object.fromEntries(
    Object.entries(facts.quarantined).filter(([name]) => name !== partition),
  );
  writeFacts(fs, path, { ...facts, quarantined });
}

/** The directory's own name must outlive a power cut too, and so must those of the parents made with it. */
function makeDurably(fs: FileSystem, path: string): void {
  const parents: string[] = [];
  for (let at = path; at !== '/' && !fs.exists(at); at = parentOf(at)) parents.push(parentOf(at));
  fs.makeDirectory(path);
  for (const parent of parents) fs.syncDirectoryNow(parent);
}

/** Facts of our own about the directory, beside Kafka's files: `rookery.json`. */
interface Facts {
  readonly formatVersion: number;
  /** The machine's start in which its logs were last recovered; null where the system does not tell. */
  readonly bootId: string | null;
  /** Partitions whose disk failed, and the offset from which nothing may be trusted. */
  readonly distrusted: Readonly<Record<string, number>>;
  /** Partitions whose end was cut: the next start syncs it, because a kill may have come before that. */
  readonly cut: readonly string[];
  /** Partitions in which rot was found. */
  readonly quarantined: Readonly<Record<string, Rot>>;
}

/** @throws SidecarError RK0303, RK0305 */
function readFacts(fs: FileSystem, path: string): Facts {
  const bytes = readFile(fs, `${path}/${ownName}`);
  if (bytes === null) return { formatVersion, bootId: null, distrusted: {}, cut: [], quarantined: {} };
  let facts: Partial<Facts>;
  try {
    facts = JSON.parse(bytes.toString('utf8')) as Partial<Facts>;
  } catch (error) {
    throw new SidecarError('RK0305', `${path}/${ownName}`, { cause: error });
  }
  const { formatVersion: version, bootId = null, distrusted = {}, cut = [], quarantined = {} } = facts;
  if (typeof version !== 'number')
    throw new SidecarError('RK0305', `${path}/${ownName} has no formatVersion`);
  if (version > formatVersion) {
    throw new SidecarError('RK0303', `${path} has format ${version}, this version knows ${formatVersion}`);
  }
  return { formatVersion: version, bootId, distrusted, cut, quarantined };
}

function writeFacts(fs: FileSystem, path: string, facts: Facts): void {
  writeAtomicallyNow(fs, `${path}/${ownName}`, Buffer.from(`${JSON.stringify(facts)}\n`));
}

const bootIdPath = '/proc/sys/kernel/random/boot_id';

function readIdentity(fs: FileSystem, path: string, nodeId: number): Identity | null {
  const text = readFile(fs, `${path}/${metaName}`)?.toString('utf8');
  if (text === undefined) return null;
  const properties = new Map(
    text
      .split('\n')
      .filter((line) => line.includes('=') && !line.startsWith('#'))
      .map(
        (line) =>
          [line.slice(0, line.indexOf('=')).trim(), line.slice(line.indexOf('=') + 1).trim()] as const,
      ),
  );
  const clusterId = properties.get('cluster.id');
  const owner = Number(properties.get('node.id'));
  if (properties.get('version') !== '1' || clusterId === undefined || !Number.isSafeInteger(owner)) {
    throw new SidecarError('RK0305', `${path}/${metaName}`);
  }
  if (owner !== nodeId)
    throw new SidecarError('RK0304', `${path} belongs to node ${owner}, node.id is ${nodeId}`);
  return { nodeId, clusterId, directoryId: properties.get('directory.id') ?? '' };
}

function makeIdentity(fs: FileSystem, path: string, nodeId: number, clock: Clock): Identity {
  const identity = { nodeId, clusterId: randomUuid(clock), directoryId: randomUuid(clock) };
  const lines = [
    'version=1',
    `node.id=${nodeId}`,
    `cluster.id=${identity.clusterId}`,
    `directory.id=${identity.directoryId}`,
  ];
  writeAtomicallyNow(fs, `${path}/${metaName}`, Buffer.from(`${lines.join('\n')}\n`));
  return identity;
}

function takeMarker(fs: FileSystem, path: string): boolean {
  if (!fs.exists(`${path}/${markerName}`)) return false;
  fs.remove(`${path}/${markerName}`);
  fs.syncDirectoryNow(path);
  return true;
}
