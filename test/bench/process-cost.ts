import { readFileSync } from 'node:fs';

// What a process costs, as Linux counts it.

/** The kernel tells processor time in hundredths of a second, on every architecture that Node runs on. */
const ticksPerSecond = 100;

/** Fields of `/proc/PID/stat` from the third on: the second is a name that may hold spaces and brackets. */
function stat(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  return text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
}

/** Milliseconds of processor time so far, of all its threads, in user and kernel mode. */
export function cpuMs(pid: number): number {
  const fields = stat(pid);
  return ((fields[11]! + fields[12]!) * 1_000) / ticksPerSecond;
}

/** Milliseconds since it was started. */
export function ageMs(pid: number): number {
  const uptime = Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]);
  return (uptime - stat(pid)[19]! / ticksPerSecond) * 1_000;
}

/** Resident memory. */
export function memoryMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]) / 1_024;
}
