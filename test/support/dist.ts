/**
 * Owns how tests use the package as others get it: dist, built from the sources as they are now. Integration tests do, in
 * their own process and in all that they start: it is what is shipped, and starts in a third of the time.
 */
import { spawnSync } from "node:child_process";
import { dirname, join, resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";

export const ROOT = join(import.meta.dirname, "..", "..");
const SRC = join(ROOT, "src") + sep;

/** What a Node process of the command line is started with. */
export const MAIN = join(ROOT, "dist", "cli", "main.js");
/** What node needs to run a TypeScript program that imports the package's sources, with dist in their place. */
export const ON_DIST = ["--import", pathToFileURL(join(import.meta.dirname, "on-dist.mjs")).href];

/** A no-op when dist is up to date. */
export function buildDist(): void {
  const built = spawnSync(process.execPath, [join(ROOT, "scripts", "build.mjs")], { cwd: ROOT, encoding: "utf8" });
  if (built.status !== 0) throw new Error(`npm run build failed:\n${built.stdout}${built.stderr}`);
}

/** The module of dist that a source file became. */
export const compiled = (file: string): string => join(ROOT, "dist", file.slice(SRC.length).replace(/\.ts$/, ".js"));

/** For Vite: imports of src lead to dist, which is made when the first of them is met. */
export function onDist(): { name: string; enforce: "pre"; resolveId(id: string, importer?: string): string | null } {
  let isBuilt = false;
  return {
    name: "shardpact-on-dist",
    enforce: "pre",
    resolveId(id, importer) {
      const file = importer !== undefined && id.startsWith(".") ? resolve(dirname(importer), id) : id;
      if (!file.startsWith(SRC) || !file.endsWith(".ts")) return null;
      if (!isBuilt) buildDist();
      isBuilt = true;
      return compiled(file);
    },
  };
}
