import { SidecarError } from './errors.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

/**
 * `host:port`, `[ipv6]:port`, or Kafka's `PLAINTEXT://host:port`; an empty host is every interface. Port 0 is
 * any free one.
 *
 * @throws SidecarError RK0105 malformed, RK0106 for a protocol that is not served
 */
export function parseAddress(text: string, name: string): Address {
  const [, protocol, rest] = /^(?:([A-Za-z0-9_]+):\/\/)?(.*)$/s.exec(text)!;
  if (protocol !== undefined && protocol.toUpperCase() !== 'PLAINTEXT') {
    throw new SidecarError('RK0106', `${name}=${text}: only PLAINTEXT is`);
  }
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s/]*)):(\d{1,5})$/.exec(rest!);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) throw new SidecarError('RK0105', `${name}=${text}, not host:port`);
  const host = match[1] ?? match[2]!;
  return { host: host === '' ? '0.0.0.0' : host, port };
}

export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);

export const formatAddress = ({ host, port }: Address): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`;
