/**
 * Owns finding the tfjs-core that the caller's backend is registered with.
 *
 * A process may hold several copies: package managers that link strictly give one only to the packages that ask for it,
 * and version conflicts nest another. So it is looked for the way the backend itself finds it; the copy that is loaded
 * already is the caller's.
 */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

/** Packages through which tfjs-core and its companions are reached: each is resolved from the one before. */
const WAYS: readonly (readonly string[])[] = [
  ["@tensorflow/tfjs-node", "@tensorflow/tfjs"],
  ["@tensorflow/tfjs-node"],
  ["@tensorflow/tfjs"],
  [],
];

/** URL of the module, found from the module at `from`; the bare name when no way leads to it. */
export function findTfjsCore(from: string): string {
  return findTfjs(from, "@tensorflow/tfjs-core");
}

/** The same for tfjs-layers, which models are made of. */
export function findTfjsLayers(from: string): string {
  return findTfjs(from, "@tensorflow/tfjs-layers");
}

function findTfjs(from: string, name: string): string {
  const found = WAYS.flatMap((way) => resolveAlong(from, [...way, name]) ?? []);
  const { cache } = createRequire(from);
  const path = found.find((file) => cache[file] !== undefined) ?? found[0];
  return path === undefined ? name : pathToFileURL(path).href;
}

function resolveAlong(from: string, way: readonly string[]): string | null {
  let at = from;
  try {
    for (const name of way) at = createRequire(at).resolve(name);
    return at;
  } catch {
    return null; // Not installed, or not for whoever asks.
  }
}
