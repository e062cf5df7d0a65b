/**
 * From the SIGKILL of the leader to the first acknowledgement of a commit that was called after it, beside the same for a
 * put to etcd: three nodes each, with their defaults, a client that asks every 20 ms whatever became of what it asked before.
 */
import { type ChildProcessByStdio, execFile, spawn } from "node:child_process";
import path from "node:path";
import type { Readable, Writable } from "node:stream";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { replicaConfig } from "../src/replica/config.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { waitFor } from "../test/support/wait-for.ts";
import { scriptCommand } from "./built.ts";
import { startGroup } from "./commit-group.ts";
import { startEtcd } from "./etcd.ts";
import { type Figure, latency, median } from "./report.ts";

const RUNS = 9;
/** Between a restart and the next kill: the killed node has caught up, and followers' timers have no memory of it. */
const SETTLE_MS = 2_000;
const TIMEOUT_MS = 30_000;

interface Acknowledged {
  readonly callMs: number;
  readonly ackMs: number;
}

/** What a client process prints, as it comes. */
interface Client extends Disposable {
  readonly acknowledged: readonly Acknowledged[];
}

/** etcd's client tells each of its retries: during a failover those are many. */
function startClient(file: string, args: readonly string[], errors: "inherit" | "ignore"): Client {
  const child: ChildProcessByStdio<Writable, Readable, null> = spawn(file, args, { stdio: ["pipe", "pipe", errors] });
  const acknowledged: Acknowledged[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => acknowledged.push(JSON.parse(line) as Acknowledged));
  return { acknowledged, [Symbol.dispose]: () => void child.kill("SIGKILL") };
}

interface Killed {
  readonly atMs: number;
  restart(): Promise<unknown>;
}

interface Side {
  /** Kills whoever leads. */
  killLeader(): Promise<Killed>;
  readonly client: Client;
}

/** Milliseconds from each kill to the first acknowledgement of what was called after it. */
async function measure({ killLeader, client }: Side): Promise<number[]> {
  const times: number[] = [];
  const wait = <T>(what: string, probe: () => T | null | undefined) => waitFor(probe, { timeoutMs: TIMEOUT_MS, what });
  for (let n = 0; n < RUNS; n++) {
    const before = client.acknowledged.length;
    await wait("work to go on", () => (client.acknowledged.length > before + 20 ? true : null));
    const { atMs, restart } = await killLeader();
    const first = await wait("the next acknowledgement", () =>
      client.acknowledged.find(({ callMs }) => callMs >= atMs),
    );
    times.push(first.ackMs - atMs);
    await restart();
    await sleep(SETTLE_MS);
  }
  return times;
}

async function measureOurs(dir: string): Promise<number[]> {
  await using group = await startGroup({ dir });
  const { file, args } = scriptCommand("failover-client.ts");
  using client = startClient(file, [...args, group.url], "inherit");
  return await measure({
    client,
    async killLeader() {
      const leader = await group.waitForLeader();
      const replica = group.replicas.find(({ id }) => id === leader);
      if (replica === undefined) throw new Error(`there is no ${leader}`);
      const atMs = Date.now();
      await replica.kill("SIGKILL");
      return { atMs, restart: () => replica.restart() };
    },
  });
}

async function measureEtcd(dir: string): Promise<number[]> {
  await using etcd = await startEtcd(dir);
  await sleep(SETTLE_MS);
  using client = startClient(etcd.driver, ["-endpoints", etcd.endpoints, "-mode", "steady"], "ignore");
  return await measure({
    client,
    async killLeader() {
      const { stdout } = await promisify(execFile)(etcd.driver, ["-endpoints", etcd.endpoints, "-mode", "leader"]);
      const node = etcd.nodes.find(({ url }) => url === stdout.trim());
      if (node === undefined) throw new Error(`there is no ${stdout}`);
      const atMs = Date.now();
      await node.kill();
      return { atMs, restart: () => Promise.resolve(node.restart()) };
    },
  });
}

export async function benchFailover(note: (line: string) => void): Promise<Figure[]> {
  await using dir = await tempDir("bench-failover");
  note(`three replicas: the leader killed ${RUNS} times`);
  const ours = await measureOurs(path.join(dir.path, "group"));
  note(`three etcd nodes: the leader killed ${RUNS} times`);
  const theirs = await measureEtcd(dir.path);
  const { tickMs, electionTicksMin } = replicaConfig.shape.timing.parse(undefined);
  const peer = (value: number) => ({ name: "etcd", value });
  const timeouts = { name: "two election timeouts", value: 2 * tickMs * electionTicksMin };
  const [typical, worst] = [median(ours), Math.max(...ours)];
  return [
    latency("failover", "leader killed → next commit, median", "ms", typical, peer(median(theirs)), 1),
    latency("failover", "leader killed → next commit, worst", "ms", worst, peer(Math.max(...theirs)), null),
    latency("failover", "leader killed → next commit, median", "ms", typical, timeouts, 1),
    latency("failover", "leader killed → next commit, worst", "ms", worst, timeouts, null),
  ];
}
