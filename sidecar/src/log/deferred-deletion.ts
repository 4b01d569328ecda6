import type { Clock, Timer } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { FileSystem } from '../vfs/file-system.ts';
import type { Segment } from './segment.ts';

export const deletedSuffix = '.deleted';

/**
 * Deletes in two steps, as Kafka does: at once it gets another name, so that no start takes it for a log's, and after
 * `file.delete.delay.ms` it goes. Readers that have a region of a file in hand keep their bytes.
 */
export class DeferredDeletion {
  readonly #deps: { readonly fs: FileSystem; readonly clock: Clock; readonly events: EventBus };

  readonly #waiting = new Set<Timer>();

  constructor(deps: { readonly fs: FileSystem; readonly clock: Clock; readonly events: EventBus }) {
    this.#deps = deps;
  }

  /**
   * @param delayMs how long the files stay under their other name
   * @param keep paths that stay: a snapshot outlives a segment that was compacted
   */
  segments(segments: readonly Segment[], delayMs: number, keep: readonly string[] = []): void {
    const { fs } = this.#deps;
    const aside: string[] = [];
    for (const segment of segments) {
      segment.close();
      for (const path of segment.paths.filter((each) => !keep.includes(each))) {
        if (!fs.exists(path)) continue;
        fs.rename(path, path + deletedSuffix);
        aside.push(path + deletedSuffix);
      }
    }
    if (aside.length > 0) this.#later(delayMs, () => this.#removeAll(aside));
  }

  /** One that has its other name already. */
  directory(path: string, delayMs: number): void {
    this.#later(delayMs, () => this.#remove(path, () => this.#deps.fs.removeDirectory(path)));
  }

  /** What waits is left to the next start, which removes what has this name. */
  stop(): void {
    for (const timer of this.#waiting) timer.cancel();
    this.#waiting.clear();
  }

  #later(delayMs: number, remove: () => Promise<void>): void {
    const timer = this.#deps.clock.after(delayMs, () => {
      this.#waiting.delete(timer);
      void remove();
    });
    this.#waiting.add(timer);
  }

  /** One after another, on the pool: freeing a large file takes the file system a while. */
  async #removeAll(paths: readonly string[]): Promise<void> {
    const { fs } = this.#deps;
    for (const path of paths) {
      await this.#remove(path, async () => {
        // The topic may have been deleted meanwhile, and its directory has another name.
        if (fs.exists(path)) await fs.removeFile(path);
      });
    }
  }

  async #remove(path: string, remove: () => Promise<void>): Promise<void> {
    try {
      await remove();
    } catch (error) {
      this.#deps.events.emit('backgroundFailed', { task: `removing ${path}`, error });
    }
  }
}
