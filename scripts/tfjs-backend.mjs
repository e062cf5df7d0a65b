/**
 * Owns which TensorFlow.js the examples and benches run on: `node --import ./scripts/tfjs-backend.mjs …`.
 *
 * The native addon where set-up could make it, with what it needs on Node 23 and later (as src/tfjs-node-compat.ts);
 * else TensorFlow.js in plain JavaScript under the same name, and a word about it: slow, but the same results.
 */
import { existsSync } from "node:fs";
import { createRequire, register } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import util from "node:util";

util.isNullOrUndefined ??= (value) => value === null || value === undefined;
util.isArray ??= Array.isArray;

const require = createRequire(import.meta.url);
const native = join(dirname(require.resolve("@tensorflow/tfjs-node/package.json")), "lib");
if (!existsSync(native)) {
  console.warn("TensorFlow.js runs in plain JavaScript: `npm run setup` says why the native addon is missing.");
  const url = JSON.stringify(pathToFileURL(require.resolve("@tensorflow/tfjs")).href);
  const hook = `export const resolve = (specifier, context, next) =>
    specifier === "@tensorflow/tfjs-node" ? { url: ${url}, format: "commonjs", shortCircuit: true } : next(specifier, context);`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
}
