/**
 * A Java properties file: `key=value`, `key: value` or `key value`, `#` and `!` comments, lines continued by a
 * backslash, and backslash escapes. Anything is a properties file, so this cannot fail.
 */
export function parseProperties(text: string): Map<string, string> {
  const properties = new Map<string, string>();
  for (const line of logicalLines(text)) {
    const split = /^((?:\\.|[^\\=:\s])*)\s*(?:[=:]\s*)?/s.exec(line)!;
    properties.set(unescape(split[1]!), unescape(line.slice(split[0].length)));
  }
  return properties;
}

/** Lines without comments and blanks; one that ends in an odd number of backslashes goes on in the next. */
function* logicalLines(text: string): Generator<string> {
  let held = '';
  for (const raw of text.split(/\r\n|\r|\n/)) {
    const line = raw.trimStart();
    if (held === '' && (line === '' || line.startsWith('#') || line.startsWith('!'))) continue;
    const backslashes = /\\*$/.exec(line)![0].length;
    if (backslashes % 2 === 1) {
      held += line.slice(0, -1);
      continue;
    }
    yield held + line;
    held = '';
  }
  if (held !== '') yield held;
}

const escapes: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', f: '\f' };

const unescape = (text: string): string =>
  text.replaceAll(/\\(?:u([0-9a-fA-F]{4})|(.))/gs, (_, unit: string | undefined, char: string) =>
    unit !== undefined ? String.fromCharCode(parseInt(unit, 16)) : (escapes[char] ?? char),
  );
