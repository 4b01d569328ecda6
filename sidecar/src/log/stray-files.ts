import type { EventBus } from '../events.ts';
import type { LogConfig } from '../log-config.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { swapSuffix } from './compaction.ts';
import { decide, fileTable, kindOf, type FileKind } from './recovery.ts';
import type { Rot } from './rot.ts';
import { scanNow } from './segment-scan.ts';
import { Segment } from './segment.ts';

interface StrayDeps {
  readonly fs: FileSystem;
  readonly directory: string;
  readonly name: string;
  readonly events: EventBus;
}

const reasons: Partial<Record<FileKind, string>> = {
  index: 'its log is gone',
  cleaned: 'a compaction was not complete',
  deleted: 'it was being deleted',
  aside: 'it was being written',
  'swapped index': 'an index of a swap is made again',
};

/**
 * Puts away what a crash left of a compaction, a deletion or a small file, before anything else looks at the
 * directory: what `fileTable` says of each name.
 *
 * @returns where a compaction's result is damaged: it was on the platter, and what it replaces may be gone
 */
export function putInOrder(deps: StrayDeps, config: LogConfig): Rot | null {
  const { fs, directory, name: partition, events } = deps;
  const names = fs.list(directory);
  const logs = new Set(names.filter((name) => kindOf(name) === 'log').map((name) => name.slice(0, 20)));
  const decided = names.map((name) => {
    const kind = kindOf(name);
    return { name, kind, ...decide(fileTable, { kind, hasLog: logs.has(name.slice(0, 20)) }) };
  });
  const strays = decided.filter(({ action }) => action !== 'keep');
  if (strays.length === 0) return null;
  for (const { name, kind, action } of strays) {
    if (action !== 'remove') continue;
    fs.remove(`${directory}/${name}`);
    events.emit('fileRemoved', { partition, file: name, reason: reasons[kind]! });
  }
  // The kill may have come before the swap's name was durable; nothing that it replaces may go before that.
  if (strays.some(({ action }) => action === 'finish')) fs.syncDirectoryNow(directory);
  for (const { name, action } of strays) {
    const rot = action === 'finish' ? finishSwap(deps, Number(name.slice(0, 20)), config) : null;
    if (rot !== null) return rot;
  }
  fs.syncDirectoryNow(directory);
  return null;
}

/** The compacted segment takes the place of those that begin in its range, whatever of them is left. */
function finishSwap(deps: StrayDeps, base: number, { indexIntervalBytes }: LogConfig): Rot | null {
  const { fs, directory, name: partition, events } = deps;
  const swapped = new Segment(fs, directory, base, swapSuffix);
  const { nextOffset, position, damage } = scanNow(swapped.log, {
    from: 0,
    expected: base,
    holesUpTo: Infinity,
    note: (batch, at) => swapped.note(batch, at, indexIntervalBytes),
  });
  if (damage !== null) {
    swapped.close();
    return { segment: base, position, offset: base, reason: `${swapped.path}: ${damage}` };
  }
  swapped.seal();
  swapped.syncNow();
  for (const other of Segment.basesIn(fs, directory)) {
    if (other < base || (other >= nextOffset && other !== base)) continue;
    const old = new Segment(fs, directory, other);
    for (const path of old.paths) {
      if (path.endsWith('.snapshot') || !fs.exists(path)) continue;
      fs.remove(path);
      events.emit('fileRemoved', {
        partition,
        file: path.slice(directory.length + 1),
        reason: 'it was compacted',
      });
    }
    old.close();
  }
  fs.syncDirectoryNow(directory);
  swapped.rename('');
  swapped.close();
  return null;
}
