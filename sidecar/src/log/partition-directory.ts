import { parentOf, readFile, replaceNow, type File, type FileSystem } from '../vfs/file-system.ts';

export const partitionMetadata = 'partition.metadata';
export const epochsName = 'leader-epoch-checkpoint';

/** Whose directory it is. Null where it was being made when the power went: nothing in it was ever acknowledged. */
export function readTopicId(fs: FileSystem, directory: string): string | null {
  const text = readFile(fs, `${directory}/${partitionMetadata}`)?.toString('utf8') ?? '';
  return /^topic_id: (\S{22})$/m.exec(text)?.[1] ?? null;
}

/** Nothing is synced: that is done with the names. */
export function writeTopicId(fs: FileSystem, directory: string, topicId: string): void {
  const text = `version: 0\ntopic_id: ${topicId}`;
  replaceNow(fs, `${directory}/${partitionMetadata}`, Buffer.from(text));
}

/**
 * Makes durable whose directory it is, the first leader epoch, and the names of the files. Making a partition waits
 * for no disk, since a topic may have thousands of them and one that a power cut takes is made again; so this comes
 * before anything in one is acknowledged. The directory's own name is somebody else's to sync, with that of others.
 */
export async function syncNames(fs: FileSystem, directory: string): Promise<void> {
  for (const file of openSmallFiles(fs, directory))
    try {
      await file.sync();
    } finally {
      file.release();
    }
  await fs.syncDirectory(directory);
}

/** The same before the loop turns, with the directory's own name. */
export function syncNamesNow(fs: FileSystem, directory: string): void {
  for (const file of openSmallFiles(fs, directory))
    try {
      file.syncNow();
    } finally {
      file.release();
    }
  fs.syncDirectoryNow(directory);
  fs.syncDirectoryNow(parentOf(directory));
}

/** One at a time. */
function* openSmallFiles(fs: FileSystem, directory: string): Generator<File> {
  for (const name of [partitionMetadata, epochsName]) {
    const path = `${directory}/${name}`;
    if (fs.exists(path)) yield fs.open(path, 'write');
  }
}
