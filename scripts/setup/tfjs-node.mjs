/**
 * Owns how a real tfjs-node (TensorFlow's C library and its Node addon) gets here.
 *
 * Order: already loadable → our cache → the package's own installer, if its download answers → build of the unmodified
 * addon against the TensorFlow libraries inside a pinned PyPI wheel → the JavaScript backend with a notice (never in CI).
 * What was fetched or built lies in the cache; `deps` and `lib` of the package are links to it.
 */
import { cpSync, existsSync, readFileSync, realpathSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { buildFromWheel, WHEEL_TENSORFLOW } from "./tfjs-node-wheel.mjs";
import { CACHE, ensureDir, ROOT, run, tail } from "./steps.mjs";

/** Resolves with the line to print. @throws Error with what is missing */
export async function setupTfjsNode(say) {
  const pkg = packageDir();
  if (pkg === null) throw new Error("@tensorflow/tfjs-node is not installed.\nRun 'npm ci'.");
  const loaded = await tryLoad();
  if (loaded.version !== null) return `TensorFlow ${loaded.version} (in place)`;

  const version = JSON.parse(readFileSync(join(pkg, "package.json"), "utf8")).version;
  const napi = Math.min(8, Number(process.versions.napi));
  const cacheOf = (source) =>
    join(CACHE, "tfjs-node", `${version}-${source}-${process.platform}-${process.arch}-napi${napi}`);
  const official = cacheOf("official");
  const wheel = cacheOf(`wheel-${WHEEL_TENSORFLOW}`);
  for (const cache of [official, wheel]) {
    if (!existsSync(join(cache, "lib"))) continue;
    link(pkg, cache);
    const { version: tensorflow } = await tryLoad();
    if (tensorflow !== null) return `TensorFlow ${tensorflow} (cache)`;
    rmSync(cache, { recursive: true, force: true });
  }

  const tried = [];
  for (const [name, install, cache] of [
    ["its own installer", ownInstaller, official],
    ["the TensorFlow wheel", buildFromWheel, wheel],
  ]) {
    for (const part of ["deps", "lib"]) rmSync(join(pkg, part), { recursive: true, force: true });
    const refusal = await install(pkg, say);
    if (refusal !== null) {
      tried.push(`- ${name}: ${refusal}`);
      continue;
    }
    store(pkg, cache);
    const { version: tensorflow, why } = await tryLoad();
    if (tensorflow !== null) return `TensorFlow ${tensorflow} (${name}, now in the cache)`;
    rmSync(cache, { recursive: true, force: true });
    tried.push(`- ${name}: installed, but does not load: ${why}`);
  }
  return fallBack(tried);
}

/** Without the native addon, training works in JavaScript, 20 to 140 times slower. A CI run must not hide that. */
function fallBack(tried) {
  const reasons = ["tfjs-node could not be made loadable:", ...tried].join("\n");
  if (process.env.CI && process.env.CI !== "false") throw new Error(reasons);
  console.warn(`\n${"!".repeat(100)}\n${reasons}`);
  console.warn("Training falls back to TensorFlow.js in plain JavaScript: the same results, 20 to 140 times slower.");
  console.warn(
    `Tests of the native backend will fail. Install what is named above and run setup again.\n${"!".repeat(100)}\n`,
  );
  return "NOT native: plain JavaScript backend, slow";
}

/** Runs the addon for real, in a process of its own: a broken one may crash. */
async function tryLoad() {
  const script = `
    const util = require("node:util");
    util.isNullOrUndefined ??= (value) => value === null || value === undefined;
    util.isArray ??= Array.isArray;
    const tf = require("@tensorflow/tfjs-node");
    const [three] = tf.matMul(tf.ones([1, 3]), tf.ones([3, 1])).dataSync();
    if (three !== 3) throw new Error("1·1+1·1+1·1 is " + three);
    console.log("TF_Version=" + tf.backend().binding.TF_Version);`;
  const { output } = await run(process.execPath, ["-e", script], {
    cwd: ROOT,
    env: { TF_CPP_MIN_LOG_LEVEL: "2" },
    timeoutMs: 60_000,
  });
  const version = /TF_Version=(\S+)/.exec(output)?.[1] ?? null;
  return { version, why: version === null ? tail(output, 3) : "" };
}

function packageDir() {
  try {
    const manifest = createRequire(join(ROOT, "package.json")).resolve("@tensorflow/tfjs-node/package.json");
    return realpathSync(dirname(manifest));
  } catch {
    return null;
  }
}

/** Null when it worked, else why not. The address comes from the package's own script and its documented variables. */
async function ownInstaller(pkg, say) {
  const script = readFileSync(join(pkg, "scripts", "install.js"), "utf8");
  const base = process.env.TFJS_NODE_CDN_STORAGE ?? /'(https:\/\/[^']+)'/.exec(script)?.[1];
  if (base === undefined) return "its script names no download address";
  try {
    await fetch(process.env.TFJS_NODE_BASE_URI ?? base, { method: "HEAD", signal: AbortSignal.timeout(3_000) });
  } catch {
    return "its download host does not answer";
  }
  say("running its own installer");
  // Its scripts call node-pre-gyp by name.
  const path = `${join(ROOT, "node_modules", ".bin")}:${process.env.PATH}`;
  const env = { PATH: path };
  const got = await run(process.execPath, ["scripts/install.js"], { cwd: pkg, env, timeoutMs: 180_000 });
  if (got.code !== 0) return tail(got.output, 2);
  return existsSync(join(pkg, "lib")) ? null : "it ended without an addon";
}

/** Moves what the install left in the package to the cache, and links it back. */
function store(pkg, cache) {
  const fresh = `${cache}.new-${process.pid}`;
  rmSync(fresh, { recursive: true, force: true });
  ensureDir(join(fresh, "deps"));
  cpSync(join(pkg, "deps", "lib"), join(fresh, "deps", "lib"), { recursive: true, verbatimSymlinks: true });
  cpSync(join(pkg, "lib"), join(fresh, "lib"), { recursive: true, verbatimSymlinks: true });
  rmSync(cache, { recursive: true, force: true });
  renameSync(fresh, cache);
  link(pkg, cache);
}

function link(pkg, cache) {
  for (const part of ["deps", "lib"]) {
    rmSync(join(pkg, part), { recursive: true, force: true });
    symlinkSync(join(cache, part), join(pkg, part), "dir");
  }
}
