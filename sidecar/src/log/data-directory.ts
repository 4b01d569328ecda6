import type { Clock } from '../clock.ts';
import { randomUuid } from '../clock.ts';
import { SidecarError } from '../errors.ts';
import { readFile, writeAtomicallyNow, type FileSystem, type Lock } from '../vfs/file-system.ts';

/** The version of everything that we write beside Kafka's own formats; see docs/format/data-directory.md. */
const formatVersion = 1;

const lockName = '.lock';
const markerName = '.kafka_cleanshutdown';
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
  readonly #fs: FileSystem;
  readonly #lock: Lock;

  private constructor(
    fs: FileSystem,
    path: string,
    lock: Lock,
    identity: Identity,
    wasCleanlyStopped: boolean,
  ) {
    this.#fs = fs;
    this.path = path;
    this.#lock = lock;
    this.identity = identity;
    this.wasCleanlyStopped = wasCleanlyStopped;
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
      fs.makeDirectory(path);
      lock = fs.lock(`${path}/${lockName}`);
    } catch (error) {
      if (error instanceof SidecarError) throw error;
      throw new SidecarError('RK0301', (error as Error).message, { cause: error });
    }
    if (lock === null) throw new SidecarError('RK0302', path);
    try {
      checkFormat(fs, path);
      const identity = readIdentity(fs, path, nodeId) ?? makeIdentity(fs, path, nodeId, clock);
      return new DataDirectory(fs, path, lock, identity, takeMarker(fs, path));
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

  unlock(): void {
    this.#lock.release();
  }
}

function checkFormat(fs: FileSystem, path: string): void {
  const bytes = readFile(fs, `${path}/${ownName}`);
  if (bytes === null) {
    writeAtomicallyNow(fs, `${path}/${ownName}`, Buffer.from(`{"formatVersion":${formatVersion}}\n`));
    return;
  }
  let version: unknown;
  try {
    version = (JSON.parse(bytes.toString('utf8')) as { formatVersion?: unknown }).formatVersion;
  } catch (error) {
    throw new SidecarError('RK0305', `${path}/${ownName}`, { cause: error });
  }
  if (typeof version !== 'number')
    throw new SidecarError('RK0305', `${path}/${ownName} has no formatVersion`);
  if (version > formatVersion) {
    throw new SidecarError('RK0303', `${path} has format ${version}, this version knows ${formatVersion}`);
  }
}

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
