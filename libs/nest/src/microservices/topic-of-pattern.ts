import { RookeryError, type Topic } from '@rookery/engine';

/** A pattern is a topic, by its name or as `topic()` made it. @throws RookeryError RK2002 for any other */
export function topicOf(pattern: unknown): Topic | string {
  if (typeof pattern === 'string') return pattern;
  const { name, configs } = (pattern ?? {}) as Partial<Topic>;
  if (typeof name === 'string' && typeof configs === 'object') return pattern as Topic;
  throw new RookeryError(
    'RK2002',
    `pattern ${JSON.stringify(pattern)} is neither a topic nor a topic's name`,
  );
}
