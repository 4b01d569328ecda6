import { apiVersions, ErrorCode } from '@rookery/wire';
import { handler, servedVersions, type Answer, type Handler } from '../handler.ts';

// ApiVersions — which APIs are served, in which versions.
//
// Behaviour
//   · The list is the registered handlers themselves.
//   · A version above ours is answered in version 0 with UNSUPPORTED_VERSION and the versions of this API,
//     so that the client can ask again; the response header is always version 0.
//   · Names of client software that do not follow Kafka's pattern are INVALID_REQUEST from version 3 on.

const softwareName = /^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$/;

export function apiVersionsHandler(handlers: readonly Handler[]): Handler {
  const self: Handler = handler<typeof apiVersions>({
    api: apiVersions,
    handle(request, { version }): Answer<typeof apiVersions> {
      const named =
        softwareName.test(request.clientSoftwareName) && softwareName.test(request.clientSoftwareVersion);
      if (version >= 3 && !named) return { errorCode: ErrorCode.INVALID_REQUEST, apiKeys: [] };
      return {
        errorCode: ErrorCode.NONE,
        apiKeys: [...handlers, self].map(advertised).sort((a, b) => a.apiKey - b.apiKey),
      };
    },
  });
  return self;
}

export const unsupportedApiVersions = (self: Handler): Answer<typeof apiVersions> => ({
  errorCode: ErrorCode.UNSUPPORTED_VERSION,
  apiKeys: [advertised(self)],
});

function advertised(of: Handler): { apiKey: number; minVersion: number; maxVersion: number } {
  const [min, max] = servedVersions(of);
  return { apiKey: of.api.key, minVersion: of.advertisedFrom ?? min, maxVersion: max };
}
