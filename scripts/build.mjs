/**
 * Owns `npm run build`: compiles src to dist unless dist is newer than everything that it comes from.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const DIST = join(ROOT, "dist");
/** Written last: its time is that of the sources that were compiled. */
const STAMP = join(DIST, ".built");

const newest = Math.max(
  ...[...filesUnder(join(ROOT, "src")), "tsconfig.json", "tsconfig.build.json", "package.json"].map(
    (file) => statSync(join(ROOT, file)).mtimeMs,
  ),
  // A removed file changes its folder's time.
  ...foldersUnder(join(ROOT, "src")).map((folder) => statSync(folder).mtimeMs),
);
if (existsSync(STAMP) && statSync(STAMP).mtimeMs >= newest && !process.argv.includes("--force")) {
  console.log("build: dist is up to date");
} else {
  process.exitCode = compile();
}

/** Compiles beside dist and swaps, so that a reader of dist never sees half of it. */
function compile() {
  const startedAt = performance.now();
  const fresh = join(ROOT, `dist.new-${process.pid}`);
  const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json", "--outDir", fresh], {
    cwd: ROOT,
    stdio: "inherit",
  });
  if (status !== 0) {
    rmSync(fresh, { recursive: true, force: true });
    console.error("build: FAILED, dist is unchanged");
    return status ?? 1;
  }
  const main = join(fresh, "cli", "main.js");
  if (existsSync(main)) chmodSync(main, 0o755);
  writeFileSync(join(fresh, ".built"), "");
  utimesSync(join(fresh, ".built"), new Date(newest + 1), new Date(newest + 1));
  const old = join(ROOT, `dist.old-${process.pid}`);
  if (existsSync(DIST)) renameSync(DIST, old);
  renameSync(fresh, DIST);
  rmSync(old, { recursive: true, force: true });
  console.log(`build: dist made in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  return 0;
}

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(ROOT.length + 1));
}

function foldersUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .concat(folder);
}
