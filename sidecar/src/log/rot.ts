/** Where a log's bytes are not what was written. Everything before the place is whole. */
export interface Rot {
  /** Base offset of the segment in which the place is. */
  readonly segment: number;
  readonly position: number;
  /** The first offset that cannot be read. */
  readonly offset: number;
  readonly reason: string;
}

/** A pass over a log's bytes has met rot. */
export class RotFound extends Error {
  readonly rot: Rot;

  constructor(rot: Rot) {
    super(sayRot(rot));
    this.name = 'RotFound';
    this.rot = rot;
  }
}

export const sayRot = ({ segment, position, offset, reason }: Rot): string =>
  `damaged from offset ${offset} on, at position ${position} of segment ${segment}: ${reason}`;
