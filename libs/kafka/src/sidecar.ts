import { RookeryError, type Driver } from '@rookery/engine';
import { KafkaDriver, type KafkaOptions } from './driver.ts';

/**
 * The sidecar of this host.
 * @param url `tcp://host:port`
 * @throws RookeryError RK2002
 */
export function sidecar(url = 'tcp://127.0.0.1:9092', options: Omit<KafkaOptions, 'brokers'> = {}): Driver {
  const match = /^tcp:\/\/([^/]+:\d{1,5})\/?$/.exec(url);
  if (match === null) throw new RookeryError('RK2002', `sidecar url '${url}', not tcp://host:port`);
  return new KafkaDriver('sidecar', { ...options, brokers: [match[1]!] });
}

/** A Kafka cluster. */
export const kafka = (options: KafkaOptions): Driver => new KafkaDriver('kafka', options);
