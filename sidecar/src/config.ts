import { SidecarError } from './errors.ts';
import { isLoopback, parseAddress, type Address } from './listener-address.ts';
import type { LogConfig } from './log-config.ts';
import { nearest } from './nearest.ts';
import { parseProperties } from './properties.ts';
import {
  brokerSettings,
  listOf,
  longOf,
  topicFallbacks,
  topicSettings,
  valueProblem,
  type Setting,
} from './settings.ts';

/** Where a value came from; a later one in this list beats the earlier ones. */
export type Source = 'default' | 'file' | 'environment' | 'set' | 'flag';

export interface ConfigInput {
  /** The text of the configuration file and its name, if there is one. */
  readonly file?: { readonly name: string; readonly text: string };
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** `--set name=value`, in order. */
  readonly sets?: readonly string[];
  readonly flags?: {
    readonly listen?: string;
    readonly admin?: string;
    readonly dataDir?: string;
    readonly insecure?: boolean;
  };
}

interface Given {
  readonly value: string;
  readonly source: Source;
}

/** Variables with our prefix that are not settings. */
const notSettings = new Set(['ROOKERY_VERIFY', 'ROOKERY_PEERS', 'ROOKERY_SEED', 'ROOKERY_NODE']);

/** The broker's settings: checked, complete, unchanging. */
export class Config {
  /** What the operator should know, a line each. */
  readonly warnings: readonly string[];
  readonly listener: Address;
  readonly advertised: Address;
  readonly admin: Address;
  readonly #given: ReadonlyMap<string, Given>;

  /** @throws SidecarError with one line that says what to mend */
  constructor(input: ConfigInput) {
    const warnings: string[] = [];
    this.#given = gather(input, warnings);
    this.warnings = warnings;
    for (const [name, { value }] of this.#given) {
      const setting = brokerSettings.get(name)!;
      if (setting.about === null)
        warnings.push(`setting '${name}' is not acted on (its value is ${shown(setting, value)})`);
    }
    const conflict = this.topicConflict({});
    if (conflict !== null) throw new SidecarError('RK0103', `what topics fall back to: ${conflict}`);
    this.listener = this.#onlyListener('listeners');
    this.advertised = this.#advertised();
    this.admin = parseAddress(this.text('admin.listener'), 'admin.listener');
    for (const [name, { host }] of [
      ['listeners', this.listener],
      ['admin.listener', this.admin],
    ] as const) {
      if (!isLoopback(host) && input.flags?.insecure !== true)
        throw new SidecarError('RK0107', `${name} is on ${host}`);
    }
  }

  get nodeId(): number {
    return this.int(this.#given.has('node.id') || !this.#given.has('broker.id') ? 'node.id' : 'broker.id');
  }

  /** Where the logs are; null for the default, `~/.rookery`. */
  get dataDir(): string | null {
    // On the command line it is one directory, whatever characters its name has.
    if (this.source('log.dirs') === 'flag') return this.raw('log.dirs');
    const directories = listOf(this.raw('log.dirs') ?? this.raw('log.dir') ?? '');
    if (directories.length > 1)
      throw new SidecarError('RK0103', `log.dirs: one directory, not ${directories.length}`);
    const isDefault = !this.#given.has('log.dirs') && !this.#given.has('log.dir');
    return isDefault ? null : (directories[0] ?? null);
  }

  /** Where the name of the data directory came from. */
  get dataDirSource(): Source {
    const own = this.source('log.dirs');
    return own === 'default' ? this.source('log.dir') : own;
  }

  /** The value as text; null when there is none. */
  raw(name: string): string | null {
    return this.#given.get(name)?.value ?? settingOf(name).default;
  }

  source(name: string): Source {
    return this.#given.get(name)?.source ?? 'default';
  }

  text(name: string): string {
    const value = this.raw(name);
    if (value === null) throw new SidecarError('RK0103', `${name} has no value`);
    return value;
  }

  int(name: string): number {
    return Number(this.text(name));
  }

  /** A long; Infinity for what is beyond the exact range of a number. */
  long(name: string): number {
    return longOf(this.text(name));
  }

  bool(name: string): boolean {
    return this.text(name).toLowerCase() === 'true';
  }

  /** A topic's setting: its own where it has one, else what the broker says. */
  topicValue(name: string, own: Readonly<Record<string, string>>): string | null {
    if (own[name] !== undefined) return own[name];
    if (name === 'flush.mode') return this.raw('flush.mode') ?? this.#safeFlushMode(own);
    return this.brokerFallback(name);
  }

  /** What a topic setting is where the topic says nothing. Kafka's coarser units count where the finer is silent. */
  brokerFallback(name: string): string | null {
    const fallback = topicFallbacks[name];
    if (fallback === undefined) return topicSettings.get(name)?.default ?? null;
    if (name === 'flush.mode') return this.raw('flush.mode') ?? this.#safeFlushMode({});
    if (name === 'segment.ms') return this.raw('log.roll.ms') ?? fromHours(this.text('log.roll.hours'));
    if (name === 'segment.jitter.ms')
      return this.raw('log.roll.jitter.ms') ?? fromHours(this.text('log.roll.jitter.hours'));
    if (name === 'retention.ms') return this.#retentionMs();
    return this.raw(fallback) ?? topicSettings.get(name)?.default ?? null;
  }

  /** Why a topic cannot have these settings, each of which is right by itself; null when it can. */
  topicConflict(own: Readonly<Record<string, string>>): string | null {
    const least = this.topicValue('min.compaction.lag.ms', own)!;
    const most = this.topicValue('max.compaction.lag.ms', own)!;
    if (BigInt(least) <= BigInt(most)) return null;
    return `min.compaction.lag.ms is ${least}, and max.compaction.lag.ms less: ${most}`;
  }

  /** Where fewer than two replicas vouch for an acknowledgement, the disk must. */
  #safeFlushMode(own: Readonly<Record<string, string>>): 'sync' | 'os' {
    return Number(this.topicValue('min.insync.replicas', own)) < 2 ? 'sync' : 'os';
  }

  #retentionMs(): string {
    const minutes = this.raw('log.retention.minutes');
    const coarse =
      minutes === null ? fromHours(this.text('log.retention.hours')) : String(Number(minutes) * 60_000);
    return this.raw('log.retention.ms') ?? coarse;
  }

  /** What a topic's logs act on. */
  logConfig(own: Readonly<Record<string, string>>, isInternal = false): LogConfig {
    const value = (name: string): string => this.topicValue(name, own)!;
    const long = (name: string): number => longOf(value(name));
    const limit = (name: string): number => (long(name) < 0 ? Infinity : long(name));
    const policies = listOf(value('cleanup.policy'));
    const compressionType = value('compression.type') as LogConfig['compressionType'];
    return {
      // Kafka's public setting refuses less than 1 MiB; its internal one is for tests that need many segments.
      segmentBytes: Number(own['internal.segment.bytes'] ?? value('segment.bytes')),
      segmentMs: long('segment.ms'),
      segmentJitterMs: long('segment.jitter.ms'),
      segmentIndexBytes: Number(value('segment.index.bytes')),
      indexIntervalBytes: Number(value('index.interval.bytes')),
      maxMessageBytes: Number(value('max.message.bytes')),
      timestampType: value('message.timestamp.type') as LogConfig['timestampType'],
      timestampBeforeMaxMs: long('message.timestamp.before.max.ms'),
      timestampAfterMaxMs: long('message.timestamp.after.max.ms'),
      isCompacted: policies.includes('compact'),
      isDeleted: policies.includes('delete'),
      isInternal,
      retentionMs: limit('retention.ms'),
      retentionBytes: limit('retention.bytes'),
      fileDeleteDelayMs: long('file.delete.delay.ms'),
      deleteRetentionMs: long('delete.retention.ms'),
      minCleanableDirtyRatio: Number(value('min.cleanable.dirty.ratio')),
      minCompactionLagMs: long('min.compaction.lag.ms'),
      maxCompactionLagMs: long('max.compaction.lag.ms'),
      compressionType,
      compressionLevel:
        compressionType === 'gzip' || compressionType === 'zstd'
          ? Number(value(`compression.${compressionType}.level`))
          : null,
      flushMode: value('flush.mode') as LogConfig['flushMode'],
      flushMs: long('flush.ms'),
      flushMessages: long('flush.messages'),
    };
  }

  /** Every broker setting in the order of its name. */
  names(): string[] {
    return [...brokerSettings.keys()].sort();
  }

  #onlyListener(name: string): Address {
    const listeners = listOf(this.text(name));
    if (listeners.length !== 1)
      throw new SidecarError('RK0105', `${name}: exactly one is served, not ${listeners.length}`);
    return parseAddress(listeners[0]!, name);
  }

  /** Clients resolve `localhost` to ::1 where nobody may be listening, so it is advertised as IPv4. */
  #advertised(): Address {
    const given =
      this.raw('advertised.listeners') !== null ? this.#onlyListener('advertised.listeners') : this.listener;
    const everywhere = given.host === '0.0.0.0' || given.host === '::';
    return { host: given.host === 'localhost' || everywhere ? '127.0.0.1' : given.host, port: given.port };
  }
}

const hourMs = 3_600_000;
const fromHours = (hours: string): string => String(Number(hours) < 0 ? -1 : Number(hours) * hourMs);

/** @returns why a topic may not have this setting, null when it may */
export function topicSettingProblem(name: string, value: string): string | null {
  const setting = topicSettings.get(name);
  if (setting === undefined) return unknown(name, topicSettings.keys());
  const problem = valueProblem(setting, value);
  return problem === null ? null : `${name}: '${value}' ${problem}`;
}

function gather(
  { file, environment = {}, sets = [], flags = {} }: ConfigInput,
  warnings: string[],
): Map<string, Given> {
  const given = new Map<string, Given>();
  const put = (name: string, text: string, source: Source): void => {
    const setting = settingOf(name);
    // As Kafka does: blanks around a value are nobody's intention, except in a password.
    const value = setting.type === 'password' ? text : text.trim();
    const problem = valueProblem(setting, value);
    if (problem !== null) throw new SidecarError('RK0103', `${name}: ${shown(setting, value)} ${problem}`);
    given.set(name, { value, source });
  };
  if (file !== undefined) for (const [name, value] of parseFile(file)) put(name, value, 'file');
  for (const [variable, value] of Object.entries(environment)) {
    if (!variable.startsWith('ROOKERY_') || value === undefined || notSettings.has(variable)) continue;
    const name = variable.slice('ROOKERY_'.length).toLowerCase().replaceAll('_', '.');
    if (brokerSettings.has(name)) put(name, value, 'environment');
    else warnings.push(`environment variable ${variable} names no setting`);
  }
  for (const set of sets) {
    const at = set.indexOf('=');
    if (at <= 0) throw new SidecarError('RK0101', `--set ${set}: name=value is expected`);
    put(set.slice(0, at), set.slice(at + 1), 'set');
  }
  if (flags.dataDir === '') throw new SidecarError('RK0103', '--data-dir is empty');
  if (flags.listen !== undefined) put('listeners', flags.listen, 'flag');
  if (flags.admin !== undefined) put('admin.listener', flags.admin, 'flag');
  // As it is: a directory may be called anything.
  if (flags.dataDir !== undefined) given.set('log.dirs', { value: flags.dataDir, source: 'flag' });
  return given;
}

/** A value as a line for the operator may show it. */
const shown = (setting: Setting, value: string): string =>
  setting.type === 'password' ? '(hidden)' : `'${value}'`;

function settingOf(name: string): Setting {
  const setting = brokerSettings.get(name);
  if (setting === undefined) throw new SidecarError('RK0102', unknown(name, brokerSettings.keys()));
  return setting;
}

function unknown(name: string, known: Iterable<string>): string {
  const close = nearest(name, known);
  return `'${name}'${close === null ? '' : `, did you mean '${close}'?`}`;
}

/** A long does not fit into a double, so numbers stay the text that they are. */
const numbersAsWritten = (_: string, value: unknown, { source }: { source: string }): unknown =>
  typeof value === 'number' ? source : value;

/** JSON if it begins with a brace, Java properties otherwise. */
function parseFile({ name, text }: { name: string; text: string }): Map<string, string> {
  if (!text.trimStart().startsWith('{')) return parseProperties(text);
  let json: unknown;
  try {
    json = JSON.parse(text, numbersAsWritten as (this: unknown, key: string, value: unknown) => unknown);
  } catch (error) {
    throw new SidecarError('RK0104', `${name}: ${(error as Error).message}`);
  }
  const values = new Map<string, string>();
  for (const [key, value] of Object.entries(json as Record<string, unknown>)) {
    const parts: unknown[] = Array.isArray(value) ? value : [value];
    if (parts.some((part) => part === null || typeof part === 'object')) {
      throw new SidecarError('RK0103', `${key}: a text, number, boolean or list of these is expected`);
    }
    values.set(key, parts.map(String).join(','));
  }
  return values;
}
