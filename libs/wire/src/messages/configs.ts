import { api, array, bool, int16, int32, int8, string } from '../schema.ts';

// DescribeConfigs — every setting of a topic or broker, with where its value comes from.
//   v1 synonyms · v3 types and documentation · v4 flexible
export const describeConfigs = api({
  key: 32,
  name: 'DescribeConfigs',
  versions: [1, 4],
  flexibleFrom: 4,
  request: {
    resources: array({
      resourceType: int8,
      resourceName: string,
      configurationKeys: array(string).nullable(),
    }),
    includeSynonyms: bool,
    includeDocumentation: bool.since(3),
  },
  response: {
    throttleTimeMs: int32.default(0),
    results: array({
      errorCode: int16,
      errorMessage: string.nullable(),
      resourceType: int8,
      resourceName: string,
      configs: array({
        name: string,
        value: string.nullable(),
        readOnly: bool,
        configSource: int8.default(-1),
        isSensitive: bool,
        synonyms: array({ name: string, value: string.nullable(), source: int8 }),
        configType: int8.since(3),
        documentation: string.since(3).nullable(),
      }),
    }),
  },
});
