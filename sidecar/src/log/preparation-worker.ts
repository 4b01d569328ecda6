import { parentPort } from 'node:worker_threads';
import { RecordBatch } from '@rookery/wire';
import { AppendRefused } from './append-checks.ts';
import type { PreparationAnswer, PreparationOrder } from './preparation-thread.ts';
import { prepare } from './preparation.ts';

/** The other side of `preparation-thread.ts`. */
parentPort!.on('message', ({ bytes, demand }: PreparationOrder) => {
  const answer = fulfil({ bytes, demand });
  const moved = 'bytes' in answer && answer.bytes !== null ? [answer.bytes.buffer] : [];
  parentPort!.postMessage(answer, moved);
});

function fulfil({ bytes, demand }: PreparationOrder): PreparationAnswer {
  const [batch] = RecordBatch.split([Buffer.from(bytes.buffer)]);
  try {
    const prepared = prepare(batch!, demand);
    // What is handed over must be memory of its own: small buffers share theirs.
    return { bytes: prepared === batch ? null : new Uint8Array(prepared.chunks[0]!) };
  } catch (error) {
    if (!(error instanceof AppendRefused)) throw error;
    const { error: name, message, recordErrors } = error;
    return { refused: { error: name, message, recordErrors } };
  }
}
