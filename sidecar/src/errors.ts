/**
 * What stops the sidecar, or a part of it, with a sentence for the operator. docs/reference/errors.md is made
 * from this table.
 */
export const sidecarErrors = {
  RK0101: 'unknown command or option',
  RK0102: 'unknown setting',
  RK0103: 'a setting has a bad value',
  RK0104: 'the configuration file cannot be read',
  RK0105: 'a listener is malformed',
  RK0106: 'a listener protocol is not served',
  RK0107: 'a listener outside loopback needs authentication, or --insecure',
  RK0201: 'the address cannot be listened on',
  RK0301: 'the data directory cannot be used',
  RK0302: 'the data directory is in use by another process',
  RK0303: 'the data directory was written by a newer version',
  RK0304: 'the data directory belongs to another node or cluster',
  RK0305: 'a file is corrupt',
  RK0306: 'the log is damaged',
  RK0307: 'the log cannot be repaired so',
  RK0401: 'the metadata store refused a commit',
} as const;

export type SidecarErrorCode = keyof typeof sidecarErrors;

export class SidecarError extends Error {
  readonly code: SidecarErrorCode;

  /** @param detail where and what, appended to the code's own sentence */
  constructor(code: SidecarErrorCode, detail: string, options?: ErrorOptions) {
    super(`${code} ${sidecarErrors[code]}: ${detail}`, options);
    this.name = 'SidecarError';
    this.code = code;
  }
}
