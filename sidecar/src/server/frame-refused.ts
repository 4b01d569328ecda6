/** Bytes that the broker will not answer: the connection closes, and the reason is said once. */
export class FrameRefused extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'FrameRefused';
  }
}
