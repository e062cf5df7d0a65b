/**
 * Owns `npm run complete-lock`: adds to package-lock.json the platform packages that `npm install` left out.
 *
 * A registry mirror that lacks, say, the darwin build of an optional dependency makes npm write a lock file without it,
 * which `npm ci` then refuses everywhere. The entries added here have the exact version that their parent names and no
 * integrity hash, since nobody here has seen the file; npm fetches them only on the platform that they are for.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const FILE = join(dirname(dirname(fileURLToPath(import.meta.url))), "package-lock.json");
const OS = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"];
const CPU = ["arm64", "x64", "ia32", "arm", "ppc64", "riscv64", "s390x", "loong64", "mips64el"];

const lock = JSON.parse(readFileSync(FILE, "utf8"));
const added = complete(lock.packages);
if (added.length > 0) {
  const root = lock.packages[""];
  const rest = Object.entries(lock.packages).filter(([path]) => path !== "");
  lock.packages = { "": root, ...Object.fromEntries(rest.sort(([a], [b]) => (a < b ? -1 : 1))) };
  writeFileSync(FILE, `${JSON.stringify(lock, null, 2)}\n`);
}
console.log(`complete-lock: ${added.length} platform packages added`);

/** Adds to `packages` in place; returns the paths that it added. */
function complete(packages) {
  const paths = [];
  for (const [parent, entry] of Object.entries(packages)) {
    if (parent === "") continue;
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      if (resolves(packages, parent, name)) continue;
      const path = `node_modules/${name}`;
      packages[path] = {
        version,
        ...(entry.dev ? { dev: true } : {}),
        ...(entry.license === undefined ? {} : { license: entry.license }),
        optional: true,
        ...platformOf(name),
      };
      paths.push(path);
    }
  }
  return paths;
}

/** Node's resolution: the parent's own node_modules, then that of each folder above it. */
function resolves(packages, parent, name) {
  for (let at = parent; ; at = at.slice(0, Math.max(0, at.lastIndexOf("/node_modules/")))) {
    if (packages[`${at === "" ? "" : `${at}/`}node_modules/${name}`] !== undefined) return true;
    if (at === "") return false;
  }
}

/** `@x/y-linux-arm64-musl` → linux, arm64, musl. */
function platformOf(name) {
  const words = name.split("/").pop().split(/[-_]/);
  const os = OS.filter((word) => words.includes(word));
  const cpu = CPU.filter((word) => words.includes(word));
  if (os.length !== 1 || cpu.length !== 1) throw new Error(`${name}: no platform in its name; add it by hand`);
  const libc = words.some((word) => word.startsWith("musl")) ? "musl" : words.includes("gnu") ? "glibc" : null;
  return { cpu, os, ...(libc === null || os[0] !== "linux" ? {} : { libc: [libc] }) };
}
