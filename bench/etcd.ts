/**
 * Owns the peer of the commit and failover benches: a three-node etcd with its defaults (fsync on), driven by its own Go client.
 * Both are built once with Go into the cache; the versions are pinned here and in etcd-driver/go.mod.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort } from "../test/support/free-port.ts";

const ETCD_VERSION = "v3.7.3";
const GO_ENV = { ...process.env, GOFLAGS: "-mod=mod" };
const run = promisify(execFile);
const cacheDir = path.join(process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache"), "shardpact", "bench");

/** Both sides run this long with this many clients before anything is measured. */
export const WARM_UP = { clients: 64, seconds: 6 } as const;

/** Of both Go drivers: what they run first, and what they measure. */
export function driverCounts(clients: readonly number[], secondsEach: number): string[] {
  const warmUp = ["-warm-up-clients", String(WARM_UP.clients), "-warm-up-seconds", String(WARM_UP.seconds)];
  return [...warmUp, "-clients", clients.join(","), "-seconds", String(secondsEach)];
}

export interface PutFigures {
  readonly clients: number;
  readonly perSecond: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

/** A Go program of this folder, built once into the cache for each of its versions. Resolves with its path. */
export async function buildDriver(name: string, version: string): Promise<string> {
  const cwd = path.join(import.meta.dirname, name);
  const source = await readFile(path.join(cwd, "main.go"));
  const digest = createHash("sha256").update(source).digest("hex").slice(0, 12);
  const driver = path.join(cacheDir, `${name}-${version}-${digest}`);
  await mkdir(cacheDir, { recursive: true });
  if (!existsSync(driver)) await run("go", ["build", "-o", driver, "."], { cwd, env: GO_ENV });
  return driver;
}

async function build(): Promise<{ server: string; driver: string }> {
  const driver = await buildDriver("etcd-driver", ETCD_VERSION);
  const server = path.join(cacheDir, `etcd-${ETCD_VERSION}`);
  if (!existsSync(server)) {
    const scratch = await mkdtemp(path.join(tmpdir(), "shardpact-etcd-"));
    const env = GO_ENV;
    await run("go", ["mod", "init", "etcd-build"], { cwd: scratch, env });
    await run("go", ["get", `go.etcd.io/etcd/server/v3@${ETCD_VERSION}`], { cwd: scratch, env });
    await run("go", ["build", "-o", server, "go.etcd.io/etcd/server/v3"], { cwd: scratch, env });
    await rm(scratch, { recursive: true, force: true });
  }
  return { server, driver };
}

export interface EtcdNode {
  readonly url: string;
  kill(): Promise<void>;
  /** Starts again on its data. */
  restart(): void;
}

export interface EtcdCluster extends AsyncDisposable {
  readonly nodes: readonly EtcdNode[];
  /** Of all nodes, with commas. */
  readonly endpoints: string;
  /** The program of `etcd-driver`. */
  readonly driver: string;
}

/** Three nodes with their defaults. `dir` must be on the disk that ours used. The caller closes. */
export async function startEtcd(dir: string): Promise<EtcdCluster> {
  const { server, driver } = await build();
  const ports = await Promise.all(Array.from({ length: 6 }, () => freePort()));
  const addresses = [0, 1, 2].map((i) => ({
    name: `n${i}`,
    client: `http://127.0.0.1:${ports[i]}`,
    peer: `http://127.0.0.1:${ports[3 + i]}`,
  }));
  const cluster = addresses.map((n) => `${n.name}=${n.peer}`).join(",");
  const nodes = addresses.map((n): EtcdNode & { start(): void } => {
    // prettier-ignore
    const args = ["--name", n.name, "--data-dir", path.join(dir, `etcd-${n.name}`), "--listen-client-urls", n.client, "--advertise-client-urls", n.client,
      "--listen-peer-urls", n.peer, "--initial-advertise-peer-urls", n.peer, "--initial-cluster", cluster, "--log-level", "error"];
    let child: ChildProcess | null = null;
    const start = () => void (child = spawn(server, args, { stdio: "ignore" }));
    const kill = async (): Promise<void> => {
      const dying = child;
      child = null;
      if (dying === null || dying.exitCode !== null) return;
      const ended = once(dying, "exit");
      dying.kill("SIGKILL");
      await ended;
    };
    return { url: n.client, start, kill, restart: start };
  });
  for (const node of nodes) node.start();
  const close = async () => void (await Promise.all(nodes.map((node) => node.kill())));
  return { nodes, driver, endpoints: nodes.map((node) => node.url).join(","), [Symbol.asyncDispose]: close };
}

/** Puts per second at each client count. `dir` must be on the disk that ours used. */
export async function measureEtcd(dir: string, clients: readonly number[], secondsEach: number): Promise<PutFigures[]> {
  await using etcd = await startEtcd(dir);
  await sleep(3000);
  const { stdout } = await run(etcd.driver, ["-endpoints", etcd.endpoints, ...driverCounts(clients, secondsEach)]);
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as PutFigures);
}
