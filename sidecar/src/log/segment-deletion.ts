import type { Clock, Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import type { Segment } from './segment.ts';

export const deletedSuffix = '.deleted';

/**
 * Deletes segments in two steps, as Kafka does: at once they get another name, so that no start takes them for
 * the log's, and after a while they go. Readers that have a region of them in hand keep their bytes.
 */
export class SegmentDeletion {
  readonly #deps: { readonly fs: FileSystem; readonly clock: Clock; readonly events: EventBus };

  readonly #waiting = new Set<Timer>();

  constructor(deps: { readonly fs: FileSystem; readonly clock: Clock; readonly events: EventBus }) {
    this.#deps = deps;
  }

  /**
   * @param delayMs how long the files stay under their other name (`file.delete.delay.ms`)
   * @param keep paths that stay: a snapshot outlives a segment that was compacted
   */
  delete(segments: readonly Segment[], delayMs: number, keep: readonly string[] = []): void {
    const { fs, clock } = this.#deps;
    const aside: string[] = [];
    for (const segment of segments) {
      segment.close();
      for (const path of segment.paths.filter((each) => !keep.includes(each))) {
        if (!fs.exists(path)) continue;
        fs.rename(path, path + deletedSuffix);
        aside.push(path + deletedSuffix);
      }
    }
    if (aside.length === 0) return;
    const timer = clock.after(delayMs, () => {
      this.#waiting.delete(timer);
      void this.#removeAll(aside);
    });
    this.#waiting.add(timer);
  }

  /** What waits is left to the next start, which removes what has this name. */
  stop(): void {
    for (const timer of this.#waiting) timer.cancel();
    this.#waiting.clear();
  }

  /** One after another, on the pool: freeing a large file takes the file system a while. */
  async #removeAll(paths: readonly string[]): Promise<void> {
    const { fs, events } = this.#deps;
    for (const path of paths) {
      try {
        // The topic may have been deleted meanwhile, and its directory with it.
        if (fs.exists(path)) await fs.removeFile(path);
      } catch (error) {
        events.emit('backgroundFailed', { task: `removing ${path}`, error });
      }
    }
  }
}
