/**
 * What a power cut leaves of the changes that no sync had covered: a choice for each of them. A disk may keep
 * any, in any order, and of a write any sectors; the choices here are the kinds worth looking at.
 */

/** A change of the disk that a crash may undo. */
export interface UnsyncedChange {
  readonly kind: 'write' | 'truncate' | 'entry';
  /** Its place among all changes of the disk. */
  readonly sequence: number;
  /** How many bytes a write brought. */
  readonly sizeInBytes: number;
}

/** Which bytes of a write are there afterwards. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

/** All of the change, nothing of it, or some bytes of a write. */
export type PowerCut = (change: UnsyncedChange) => boolean | Extent;

/** Disks write whole sectors. */
export const sectorBytes = 512;

/** Nothing that was not synced is there. */
export const loseUnsynced: PowerCut = () => false;

/** The disk got as far as a change and no further. */
export const loseAfter =
  (sequence: number): PowerCut =>
  (change) =>
    change.sequence <= sequence;

/**
 * Each change perhaps, each write perhaps in part.
 *
 * @param chance numbers in [0, 1), from a seed
 */
export function loseSome(chance: () => number): PowerCut {
  return ({ kind, sizeInBytes }) => {
    if (chance() >= 0.6) return false;
    if (kind !== 'write' || chance() < 0.5) return true;
    const sectors = Math.ceil(sizeInBytes / sectorBytes);
    const kept = Math.floor(chance() * (sectors + 1)) * sectorBytes;
    // Writeback begins at either end: a torn write lacks its end, or its beginning is a hole of zeros.
    return chance() < 0.7 ? { from: 0, to: kept } : { from: kept, to: sizeInBytes };
  };
}

/** All is there but for the last write, of which only some bytes are. */
export const tear =
  (sequence: number, extent: Extent): PowerCut =>
  (change) =>
    change.sequence === sequence && change.kind === 'write' ? extent : true;

/** Every way to cut a write worth looking at: after each sector, before each sector, and at a stray byte. */
export function tears(sizeInBytes: number, chance: () => number): Extent[] {
  const extents: Extent[] = [];
  for (let at = sectorBytes; at < sizeInBytes; at += sectorBytes)
    extents.push({ from: 0, to: at }, { from: at, to: sizeInBytes });
  if (sizeInBytes > 1) extents.push({ from: 0, to: 1 + Math.floor(chance() * (sizeInBytes - 1)) });
  return extents;
}
