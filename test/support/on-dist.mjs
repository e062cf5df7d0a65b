/**
 * Runs a TypeScript program of the tests or examples on the compiled package: `node --import ./test/support/on-dist.mjs FILE`.
 * What it imports from src, by path or by the package's name, is the same module of dist.
 *
 * Plain JavaScript: node loads it before anything could transform TypeScript. Its second life is in the thread of the hooks.
 */
import { register } from "node:module";
import { isMainThread } from "node:worker_threads";

const SRC = new URL("../../src/", import.meta.url).href;
const DIST = new URL("../../dist/", import.meta.url).href;

if (isMainThread) {
  await import("tsx");
  register(import.meta.url);
}

export async function resolve(specifier, context, next) {
  if (context.parentURL?.startsWith(DIST) && specifier.startsWith(".")) {
    return { url: new URL(specifier, context.parentURL).href, format: "module", shortCircuit: true };
  }
  const found = await next(specifier, context);
  if (!found.url.startsWith(SRC)) return found;
  const file = found.url.slice(SRC.length).replace(/\.ts(\?.*)?$/, ".js");
  return { url: DIST + file, format: "module", shortCircuit: true };
}
