// What a script of checks needs: results that are counted and printed, and waits that end.
import {isDeepStrictEqual} from 'node:util';

export const PATIENCE_MS = 60000;
let passed = 0, failed = 0;

export function check(name, found, expected = true) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}

export async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), PATIENCE_MS); });
  try { return await Promise.race([promise, late]); } finally { clearTimeout(timer); }
}

export async function eventually(condition, what) {
  const end = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Prints how many checks passed and failed, and ends the process: with 1 if any failed. */
export function exitWithResults() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}
