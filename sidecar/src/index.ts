export { brokerSettings, topicFallbacks, topicSettings } from './settings.ts';
export { sidecarErrors } from './errors.ts';
