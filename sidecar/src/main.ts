import { setFlagsFromString } from 'node:v8';
import { run } from './cli/run.ts';

// What arrives lies in buffers outside V8's heap, a few milliseconds each, at hundreds of MB a second. By default V8
// takes them for a heap that grows and marks it all every 15 MB, which costs a third of the processor time of
// produce. With this they count against one limit, of which the launcher sets the beginning, and young collections
// get rid of them. The flag is no promise of V8's, so it is set where it was measured.
if (process.versions.node.startsWith('24.'))
  setFlagsFromString('--external-memory-accounted-in-global-limit');

process.exitCode = await run(process.argv.slice(2));
