/**
 * Owns `npm test`: set-up, build, format, lint, types, dead files, package, every unit and integration test, and one closing line
 * `N passed, N failed`.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STATIC_CHECKS = [
  ["oxfmt", "--check"],
  ["oxlint", "--type-aware"],
  ["tsc", "--noEmit", "-p", "tsconfig.json"],
  ["knip", "--no-progress"],
  ["publint"],
];
const scratch = mkdtempSync(join(tmpdir(), "shardpact-test-"));
const report = join(scratch, "report.json");

try {
  process.exitCode = main();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function main() {
  for (const [script, ...args] of [["setup.mjs", "--tests"], ["build.mjs"]]) {
    const code = node([join("scripts", script), ...args]);
    if (code !== 0) return code;
  }
  for (const [tool, ...args] of STATIC_CHECKS) {
    const code = node([join("node_modules", ".bin", tool), ...args]);
    if (code !== 0) return code;
  }
  const vitest = join("node_modules", "vitest", "vitest.mjs");
  const code = node([
    vitest,
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  ]);
  const { passed, failed } = counts();
  console.log(`\n${passed} passed, ${failed} failed`);
  // Vitest also fails for errors outside tests; a run without a test is no success either.
  return code !== 0 || failed > 0 || passed === 0 ? code || 1 : 0;
}

/** A suite that could not be loaded counts as one failure: it has no tests to count. */
function counts() {
  if (!existsSync(report)) return { passed: 0, failed: 1 };
  const result = JSON.parse(readFileSync(report, "utf8"));
  const unloaded = result.testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0);
  return { passed: result.numPassedTests, failed: result.numFailedTests + unloaded.length };
}

function node(args) {
  const { status, signal } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: "inherit" });
  return status ?? (signal === null ? 1 : 130);
}
