export { startSidecar, type SidecarOptions, type SidecarProcess } from './sidecar-process.ts';
