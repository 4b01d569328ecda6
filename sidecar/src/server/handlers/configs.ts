import { describeConfigs, ErrorCode, type Request } from '@rookery/wire';
import type { ClusterImage, TopicImage } from '../../cluster/cluster-image.ts';
import type { Config, Source } from '../../config.ts';
import { brokerSettings, topicFallbacks, topicSettings, type Setting } from '../../settings.ts';
import { handler, type Answer, type Handler } from '../handler.ts';

// DescribeConfigs — every setting of a topic or of this broker, each with where its value comes from.
//
// Behaviour
//   · A topic's settings are all listed, also those that it leaves to the broker.
//   · The values of passwords are never shown.
// Version notes
//   v1 synonyms: the broker settings that a value falls back to · v3 types.

export interface ConfigsDeps {
  readonly config: Config;
  readonly image: () => ClusterImage;
  readonly nodeId: number;
}

type ResourceAnswer = Answer<typeof describeConfigs>['results'][number];
type Described = ResourceAnswer['configs'][number];

const resource = { topic: 2, broker: 4 } as const;
const configSource = { topic: 1, staticBroker: 4, default: 5 } as const;
const types: Readonly<Record<Setting['type'], number>> = {
  boolean: 1,
  string: 2,
  int: 3,
  short: 4,
  long: 5,
  double: 6,
  list: 7,
  class: 8,
  password: 9,
};

export function describeConfigsHandler(deps: ConfigsDeps): Handler {
  return handler<typeof describeConfigs>({
    api: describeConfigs,
    handle: (request) => ({
      results: request.resources.map((asked) => describeResource(deps, asked, request.includeSynonyms)),
    }),
  });
}

function describeResource(
  deps: ConfigsDeps,
  asked: Request<typeof describeConfigs>['resources'][number],
  includeSynonyms: boolean,
): ResourceAnswer {
  const { resourceType, resourceName, configurationKeys } = asked;
  const refused = (errorCode: number, errorMessage: string): ResourceAnswer => ({
    errorCode,
    errorMessage,
    resourceType,
    resourceName,
    configs: [],
  });
  let all: Described[];
  if (resourceType === resource.topic) {
    const topic = deps.image().topicByName(resourceName);
    if (topic === undefined)
      return refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, `there is no topic '${resourceName}'`);
    all = describeTopicConfigs(deps, topic);
  } else if (resourceType === resource.broker) {
    if (resourceName !== '' && resourceName !== String(deps.nodeId)) {
      return refused(ErrorCode.INVALID_REQUEST, `this is broker ${deps.nodeId}, not '${resourceName}'`);
    }
    // An empty name asks for settings of the whole cluster, of which there are none.
    all = resourceName === '' ? [] : describeBrokerConfigs(deps.config);
  } else {
    return refused(ErrorCode.INVALID_REQUEST, `resources of type ${resourceType} have no settings here`);
  }
  const configs = all
    .filter(({ name }) => configurationKeys === null || configurationKeys.includes(name))
    .map((each) => (includeSynonyms ? each : { ...each, synonyms: [] }));
  return { errorCode: ErrorCode.NONE, errorMessage: null, resourceType, resourceName, configs };
}

export function describeTopicConfigs({ config }: ConfigsDeps, topic: TopicImage): Described[] {
  return (
    [...topicSettings.values()]
      // Kafka's internal settings are seen where somebody has given them.
      .filter(({ name }) => !name.startsWith('internal.') || topic.configs[name] !== undefined)
      .map((setting) => {
        const own = topic.configs[setting.name];
        const fallback = topicFallbacks[setting.name];
        const inherited = config.brokerFallback(setting.name);
        const source = fallback === undefined ? configSource.default : brokerSource(config.source(fallback));
        const synonyms = [
          ...(own === undefined ? [] : [{ name: setting.name, value: own, source: configSource.topic }]),
          ...(fallback === undefined ? [] : [{ name: fallback, value: inherited, source }]),
        ];
        return {
          name: setting.name,
          value: own ?? inherited,
          readOnly: false,
          configSource: own === undefined ? source : configSource.topic,
          isSensitive: false,
          synonyms,
          configType: types[setting.type],
          documentation: null,
        };
      })
  );
}

function describeBrokerConfigs(config: Config): Described[] {
  return config.names().map((name) => {
    const setting = brokerSettings.get(name)!;
    const isSensitive = setting.type === 'password';
    const value = isSensitive ? null : config.raw(name);
    const source = brokerSource(config.source(name));
    return {
      name,
      value,
      readOnly: true,
      configSource: source,
      isSensitive,
      synonyms: [{ name, value, source }],
      configType: types[setting.type],
      documentation: null,
    };
  });
}

const brokerSource = (source: Source): number =>
  source === 'default' ? configSource.default : configSource.staticBroker;
