/** What is not known is a dash. */
export const unknown = '-';

/** Lines of a table: every column as wide as its widest cell, numbers to the right. */
export function columns(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): readonly string[] {
  const all: readonly (readonly (string | number)[])[] = [head, ...rows];
  const widths = head.map((_, at) => Math.max(...all.map((row) => String(row[at]).length)));
  const isNumber = head.map((_, at) =>
    rows.every((row) => typeof row[at] === 'number' || row[at] === unknown),
  );
  return all.map((row) =>
    row
      .map((cell, at) =>
        isNumber[at] ? String(cell).padStart(widths[at]!) : String(cell).padEnd(widths[at]!),
      )
      .join('  ')
      .trimEnd(),
  );
}

export function print(head: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  process.stdout.write(`${columns(head, rows).join('\n')}\n`);
}
