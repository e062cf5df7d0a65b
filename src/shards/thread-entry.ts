/**
 * Owns where a thread's entry is: beside the file that starts it, JavaScript in the package, TypeScript in a source tree.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

/** The entry to start a thread with. @param name of the file, without its ending; @param here `import.meta.url` of its neighbour */
export function threadEntry(name: string, here: string): URL {
  if (!new URL(here).pathname.endsWith(".ts")) return new URL(`./${name}.js`, here);
  const entry = new URL(`./${name}.ts`, here);
  return runsOurSources() ? entry : (viaTsx(entry) ?? entry);
}

/** Node 22.18 takes types away by itself, but knows `using`, and its errors, only from 24 on. */
const runsOurSources = (): boolean =>
  "typescript" in process.features && Boolean(process.features.typescript) && "SuppressedError" in globalThis;

/** A source tree before Node 24: threads don't inherit what runs TypeScript in their parent, so the entry brings it. */
function viaTsx(entry: URL): URL | null {
  try {
    const folder = dirname(createRequire(entry).resolve("tsx/package.json"));
    const tsx = pathToFileURL(join(folder, "dist", "esm", "api", "index.mjs")).href;
    const code = `import { register } from "${tsx}"; register(); await import("${entry.href}");`;
    return new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  } catch {
    return null;
  }
}
