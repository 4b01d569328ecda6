import { alterConfigs, ErrorCode, incrementalAlterConfigs, type Request } from '@rookery/wire';
import { TopicRefused, type Topics } from '../../cluster/topics.ts';
import { listOf, topicSettings } from '../../settings.ts';
import { handler, type Handler } from '../handler.ts';
import type { ConfigsDeps } from './configs.ts';

// AlterConfigs — replaces all settings of a topic: what is not named goes back to the broker's.
// IncrementalAlterConfigs — changes the settings named: set, delete, and for lists append and subtract.
//
// Behaviour
//   · A resource is changed as a whole or not at all, the others of the request on their own.
//   · The logs of a topic act on its new settings at once.
//   · This broker's own settings are read at its start: INVALID_REQUEST, with a sentence that says so.

interface AlterDeps extends ConfigsDeps {
  readonly topics: Topics;
}

type Configs = Readonly<Record<string, string>>;
type Change = (configs: Configs) => ReadonlyMap<string, string | null>;
type Alteration = Request<typeof incrementalAlterConfigs>['resources'][number]['configs'][number];

const resource = { topic: 2, broker: 4 } as const;
const operations = { set: 0, delete: 1, append: 2, subtract: 3 } as const;

export function alterConfigsHandler(deps: AlterDeps): Handler {
  return handler<typeof alterConfigs>({
    api: alterConfigs,
    async handle({ resources, validateOnly }) {
      const responses = resources.map((each) => {
        const change = (): ReadonlyMap<string, string | null> => {
          checkOnce(each.configs);
          return new Map(each.configs.map(({ name, value }) => [name, value]));
        };
        return alter(deps, resources, each, change, validateOnly);
      });
      return { responses: await Promise.all(responses) };
    },
  });
}

export function incrementalAlterConfigsHandler(deps: AlterDeps): Handler {
  return handler<typeof incrementalAlterConfigs>({
    api: incrementalAlterConfigs,
    async handle({ resources, validateOnly }) {
      const responses = resources.map((each) => {
        const change: Change = (configs) => {
          checkOnce(each.configs);
          const changed = new Map<string, string | null>(Object.entries(configs));
          for (const one of each.configs) applyOne(deps, changed, one);
          return changed;
        };
        return alter(deps, resources, each, change, validateOnly);
      });
      return { responses: await Promise.all(responses) };
    },
  });
}

interface Resource {
  readonly resourceType: number;
  readonly resourceName: string;
}

async function alter(
  deps: AlterDeps,
  all: readonly Resource[],
  { resourceType, resourceName }: Resource,
  change: Change,
  validateOnly: boolean,
) {
  const answer = { resourceType, resourceName };
  try {
    const same = all.filter(
      (each) => each.resourceType === resourceType && each.resourceName === resourceName,
    );
    if (same.length > 1) throw new TopicRefused('INVALID_REQUEST', 'the resource is named more than once');
    if (resourceType === resource.broker) throw brokerRefusal(deps, resourceName);
    if (resourceType !== resource.topic)
      throw new TopicRefused('INVALID_REQUEST', `resources of type ${resourceType} have no settings here`);
    await deps.topics.configure(resourceName, change, validateOnly);
    return { ...answer, errorCode: ErrorCode.NONE, errorMessage: null };
  } catch (error) {
    if (error instanceof TopicRefused)
      return { ...answer, errorCode: ErrorCode[error.error], errorMessage: error.message };
    throw error;
  }
}

function brokerRefusal({ nodeId }: AlterDeps, name: string): TopicRefused {
  if (name !== '' && name !== String(nodeId))
    return new TopicRefused('INVALID_REQUEST', `this is broker ${nodeId}, not '${name}'`);
  return new TopicRefused(
    'INVALID_REQUEST',
    'the settings of a broker cannot be changed while it runs: start it with others',
  );
}

function checkOnce(configs: readonly { readonly name: string }[]): void {
  if (new Set(configs.map(({ name }) => name)).size < configs.length)
    throw new TopicRefused('INVALID_REQUEST', 'a setting is named more than once');
}

function applyOne(
  { config }: AlterDeps,
  changed: Map<string, string | null>,
  { name, configOperation, value }: Alteration,
): void {
  if (configOperation === operations.delete) return void changed.delete(name);
  if (value === null) throw new TopicRefused('INVALID_REQUEST', `${name} has no value`);
  if (configOperation === operations.set) return void changed.set(name, value);
  if (configOperation !== operations.append && configOperation !== operations.subtract)
    throw new TopicRefused('INVALID_REQUEST', `there is no operation ${configOperation}`);
  if (topicSettings.get(name)?.type !== 'list')
    throw new TopicRefused(
      'INVALID_CONFIG',
      `${name} is no list: nothing can be added to it or taken from it`,
    );
  const now = listOf(changed.get(name) ?? config.brokerFallback(name) ?? '');
  const named = listOf(value);
  const next =
    configOperation === operations.append
      ? [...now, ...named.filter((each) => !now.includes(each))]
      : now.filter((each) => !named.includes(each));
  changed.set(name, next.join(','));
}
