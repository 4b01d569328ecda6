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

/** Both ways of changing settings are answered with a row a resource. */
const alterResponse = {
  throttleTimeMs: int32.default(0),
  responses: array({
    errorCode: int16,
    errorMessage: string.nullable(),
    resourceType: int8,
    resourceName: string,
  }),
};

// AlterConfigs — replaces every setting of a topic or broker; what is not named goes back to its default.
//   v2 flexible
export const alterConfigs = api({
  key: 33,
  name: 'AlterConfigs',
  versions: [0, 2],
  flexibleFrom: 2,
  request: {
    resources: array({
      resourceType: int8,
      resourceName: string,
      configs: array({ name: string, value: string.nullable() }),
    }),
    validateOnly: bool,
  },
  response: alterResponse,
});

// IncrementalAlterConfigs — changes the settings named and no others.
//   v1 flexible
export const incrementalAlterConfigs = api({
  key: 44,
  name: 'IncrementalAlterConfigs',
  versions: [0, 1],
  flexibleFrom: 1,
  request: {
    resources: array({
      resourceType: int8,
      resourceName: string,
      // 0 set, 1 delete, 2 append, 3 subtract; the last two are for lists.
      configs: array({ name: string, configOperation: int8, value: string.nullable() }),
    }),
    validateOnly: bool,
  },
  response: alterResponse,
});
