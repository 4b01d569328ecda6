/** A claim that our own code makes about itself was false: a bug, never a caller's mistake. */
export class InvariantError extends Error {
  constructor(why: string) {
    super(`invariant broken: ${why}`);
    this.name = 'InvariantError';
  }
}

/** States what must be true here; cheap enough to stay in. */
export function assert(condition: boolean, why: string): asserts condition {
  if (!condition) throw new InvariantError(why);
}
