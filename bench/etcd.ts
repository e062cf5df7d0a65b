/**
 * Owns the peer of the commit bench: a three-node etcd with its defaults (fsync on), driven by its own Go client.
 * Both are built once with Go into the cache; the versions are pinned here and in etcd-driver/go.mod.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { freePort } from "../test/support/free-port.ts";

const ETCD_VERSION = "v3.7.3";
const run = promisify(execFile);
const cacheDir = path.join(process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache"), "shardpact", "bench");

export interface PutFigures {
  readonly clients: number;
  readonly perSecond: number;
  readonly medianMs: number;
  readonly p99Ms: number;
}

async function build(): Promise<{ server: string; driver: string }> {
  await mkdir(cacheDir, { recursive: true });
  const server = path.join(cacheDir, `etcd-${ETCD_VERSION}`);
  const driver = path.join(cacheDir, `etcd-driver-${ETCD_VERSION}`);
  const env = { ...process.env, GOFLAGS: "-mod=mod" };
  if (!existsSync(driver))
    await run("go", ["build", "-o", driver, "."], { cwd: path.join(import.meta.dirname, "etcd-driver"), env });
  if (!existsSync(server)) {
    const scratch = await mkdtemp(path.join(tmpdir(), "shardpact-etcd-"));
    await run("go", ["mod", "init", "etcd-build"], { cwd: scratch, env });
    await run("go", ["get", `go.etcd.io/etcd/server/v3@${ETCD_VERSION}`], { cwd: scratch, env });
    await run("go", ["build", "-o", server, "go.etcd.io/etcd/server/v3"], { cwd: scratch, env });
    await rm(scratch, { recursive: true, force: true });
  }
  return { server, driver };
}

/** Puts per second at each client count. `dir` must be on the disk that ours used. */
export async function measureEtcd(dir: string, clients: readonly number[], secondsEach: number): Promise<PutFigures[]> {
  const { server, driver } = await build();
  const ports = await Promise.all(Array.from({ length: 6 }, () => freePort()));
  const nodes = [0, 1, 2].map((i) => ({
    name: `n${i}`,
    client: `http://127.0.0.1:${ports[i]}`,
    peer: `http://127.0.0.1:${ports[3 + i]}`,
  }));
  const cluster = nodes.map((n) => `${n.name}=${n.peer}`).join(",");
  const processes: ChildProcess[] = nodes.map((n) =>
    spawn(
      server,
      // prettier-ignore
      ["--name", n.name, "--data-dir", path.join(dir, `etcd-${n.name}`), "--listen-client-urls", n.client, "--advertise-client-urls", n.client,
        "--listen-peer-urls", n.peer, "--initial-advertise-peer-urls", n.peer, "--initial-cluster", cluster, "--log-level", "error"],
      { stdio: "ignore" },
    ),
  );
  try {
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const endpoints = nodes.map((n) => n.client).join(",");
    const { stdout } = await run(driver, [
      "-endpoints",
      endpoints,
      "-clients",
      clients.join(","),
      "-seconds",
      String(secondsEach),
    ]);
    return stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as PutFigures);
  } finally {
    for (const child of processes) child.kill("SIGKILL");
  }
}
