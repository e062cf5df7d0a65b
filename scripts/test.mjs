/**
 * Owns `npm test`: set-up, build, format, lint, types, dead files, package, every unit and integration test, the simulator's campaign under
 * both engines, and one closing line `N passed, N failed`.
 *
 * A unit or integration file that failed is run once more, alone: on a busy machine a test that watches real clocks may
 * fail by its neighbours. What passes then is named as unsteady, never passed over; a simulated seed gets no second run.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const STATIC_CHECKS = [
  ["oxfmt", "--check"],
  ["oxlint", "--type-aware"],
  ["tsc", "--noEmit", "-p", "tsconfig.json"],
  ["knip", "--no-progress"],
  ["publint"],
];
/** More failures than this are no matter of a busy machine. */
const AGAIN_FILES_MAX = 4;
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
  // The campaign takes both cores for minutes: beside it nothing that watches a clock would be fair. Arguments choose
  // among all tests.
  const chosen = process.argv.slice(2);
  const runs =
    chosen.length > 0
      ? [chosen]
      : [
          ["--project", "unit", "--project", "integration"],
          ["--project", "simulation", "--maxWorkers=2"],
        ];
  const results = runs.map((args) => (args.includes("simulation") ? vitest(args) : again(args, vitest(args))));
  const passed = results.reduce((sum, result) => sum + result.passed, 0);
  const failed = results.reduce((sum, result) => sum + result.failed, 0);
  const code = results.find((result) => result.code !== 0)?.code ?? 0;
  console.log(`\n${passed} passed, ${failed} failed`);
  // Vitest also fails for errors outside tests; a run without a test is no success either.
  return code !== 0 || failed > 0 || passed === 0 ? code || 1 : 0;
}

/** The result of a run whose failed files, if they are few, were run once more. */
function again(args, first) {
  if (first.files.length === 0 || first.files.length > AGAIN_FILES_MAX) return first;
  console.log(`\nonce more, alone: ${first.files.join(" ")}`);
  const projects = args.filter((arg, i) => arg === "--project" || args[i - 1] === "--project");
  const second = vitest([...projects, "--no-file-parallelism", ...first.files]);
  for (const file of first.files.filter((name) => !second.files.includes(name))) console.log(`unsteady: ${file}`);
  const steady = first.passed + first.failed - second.passed - second.failed;
  return { code: second.code, passed: steady + second.passed, failed: second.failed, files: second.files };
}

/** One run: how it ended, and its tests. A suite that could not be loaded counts as one failure: it has none to count. */
function vitest(args) {
  rmSync(report, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const code = node([join("node_modules", "vitest", "vitest.mjs"), "run", ...reporters, ...args]);
  if (!existsSync(report)) return { code, passed: 0, failed: 1, files: [] };
  const result = JSON.parse(readFileSync(report, "utf8"));
  const unloaded = result.testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0);
  const files = result.testResults.filter((file) => file.status === "failed").map((file) => relative(ROOT, file.name));
  return { code, passed: result.numPassedTests, failed: result.numFailedTests + unloaded.length, files };
}

function node(args) {
  const { status, signal } = spawnSync(process.execPath, args, { cwd: ROOT, stdio: "inherit" });
  return status ?? (signal === null ? 1 : 130);
}
