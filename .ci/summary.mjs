// Sums up vitest's JSON report in one line: `N passed, M failed`. Exits with 1 unless tests passed and none failed.
import { readFileSync } from 'node:fs';

const text = readFileSync(process.argv[2], 'utf8');
// Nothing is in it when the run ended before the tests began, as when the build fails.
const files = text === '' ? [{ status: 'failed', assertionResults: [] }] : JSON.parse(text).testResults;

let passed = 0;
let failed = 0;
for (const { status, assertionResults } of files) {
  const failures = assertionResults.filter((result) => result.status === 'failed').length;
  passed += assertionResults.filter((result) => result.status === 'passed').length;
  // A file that could not be loaded, or whose hooks failed, counts though no test of it did.
  failed += failures === 0 && status === 'failed' ? 1 : failures;
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = passed > 0 && failed === 0 ? 0 : 1;
