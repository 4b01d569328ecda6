import { SidecarError } from '../errors.ts';

/** What `--set name=value` says, by name. @throws SidecarError RK0101 */
export function assignments(given: readonly string[]): Map<string, string> {
  return new Map(
    given.map((text) => {
      const at = text.indexOf('=');
      if (at < 1) throw new SidecarError('RK0101', `--set ${text}: name=value is expected`);
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}

/** @throws SidecarError RK0101 */
export function wholeNumber(option: string, text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new SidecarError('RK0101', `${option} ${text}: a number is expected`);
}
