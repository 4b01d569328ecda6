import type { EventBus } from '../events.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import { cleanedSuffix, swapSuffix } from './compaction.ts';
import { scan } from './recovery.ts';
import { deletedSuffix } from './segment-deletion.ts';
import { logSuffix, Segment } from './segment.ts';

/**
 * Puts away what a crash left of a compaction or a deletion, before anything else looks at the directory.
 *
 *   `.cleaned`   was being written: it goes, the old segments are all there.
 *   `.log.swap`  was complete and on the platter when it got this name: it takes the place of the segments that
 *                begin in its range, whatever of them is left. Its indexes are made again.
 *   `.swap` of an index without its log: of a swap that was not begun, or has ended: it goes.
 *   `.deleted`   was on its way out.
 */
export function finishSwaps(
  log: {
    readonly fs: FileSystem;
    readonly directory: string;
    readonly name: string;
    readonly events: EventBus;
  },
  indexIntervalBytes: number,
): void {
  const { fs, directory, name: partition, events } = log;
  const names = fs.list(directory);
  const leftovers = names.filter((name) => /\.(cleaned|swap|deleted)$/.test(name));
  if (leftovers.length === 0) return;
  const remove = (name: string, reason: string): void => {
    fs.remove(`${directory}/${name}`);
    events.emit('fileRemoved', { partition, file: name, reason });
  };
  const logSwap = logSuffix + swapSuffix;
  for (const name of leftovers) {
    if (name.endsWith(cleanedSuffix)) remove(name, 'a compaction was not complete');
    else if (name.endsWith(deletedSuffix)) remove(name, 'it was being deleted');
    else if (!name.endsWith(logSwap)) remove(name, 'an index of a swap is made again');
  }
  const swaps = leftovers.filter((each) => each.endsWith(logSwap));
  // The kill may have come before the swap's name was durable; nothing that it replaces may go before that.
  if (swaps.length > 0) fs.syncDirectoryNow(directory);
  for (const name of swaps) {
    const base = Number(name.slice(0, -logSwap.length));
    const swapped = new Segment(fs, directory, base, swapSuffix);
    const { nextOffset } = scan(swapped, 0, base, indexIntervalBytes);
    swapped.seal();
    swapped.syncNow();
    const replaced = names
      .filter((each) => /^\d{20}\.log$/.test(each))
      .map((each) => Number(each.slice(0, -logSuffix.length)))
      .filter((other) => other >= base && other < nextOffset);
    for (const other of replaced) {
      const old = new Segment(fs, directory, other);
      for (const path of old.paths)
        if (!path.endsWith('.snapshot') && fs.exists(path))
          remove(path.slice(directory.length + 1), 'it was compacted');
      old.close();
    }
    fs.syncDirectoryNow(directory);
    swapped.rename('');
    swapped.close();
  }
  fs.syncDirectoryNow(directory);
}
