import type { MemoryFileSystem } from '@rookery/sidecar/rooms/vfs/memory';
import { dataDirectory } from './machine.ts';

/** A recovery that broke a promise, told so that it can be looked into. */
export class BrokenPromise extends Error {
  /** @param how the crash came about */
  constructor(how: string, disk: MemoryFileSystem, broken: readonly string[]) {
    super(`${how}:\n  ${broken.join('\n  ')}\non\n${listing(disk, dataDirectory)}`);
    this.name = 'BrokenPromise';
  }
}

/** The files of a disk, one a line. */
function listing(disk: MemoryFileSystem, directory: string): string {
  if (!disk.exists(directory)) return '  nothing';
  const lines = disk.list(directory).map((name) => {
    const path = `${directory}/${name}`;
    return disk.isDirectory(path) ? listing(disk, path) : `  ${path} ${disk.size(path)}`;
  });
  return lines.filter((line) => line !== '').join('\n');
}
