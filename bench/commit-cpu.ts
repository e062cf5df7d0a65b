/**
 * Where a commit's CPU time goes: the load of the commit bench, and the CPU ms of each process for a commit.
 * Usage: tsx bench/commit-cpu.ts [--engine raft|paxos] [--seconds N] [CLIENTS …]
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { tempDir } from "../test/support/temp-dir.ts";
import { type CommitFigures, runClient, startGroup } from "./commit-group.ts";

/** Linux counts process times in hundredths of a second. */
const MS_PER_TICK = 10;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { engine: { type: "string", default: "raft" }, seconds: { type: "string", default: "4" } },
});
const counts = positionals.length > 0 ? positionals.map(Number) : [1, 16, 64];
await using dir = await tempDir("bench-commit-cpu");
await using group = await startGroup({ dir: dir.path, engine: values.engine === "paxos" ? "paxos" : "raft" });
let before = new Map<string, number>();
await runClient(group.url, counts, Number(values.seconds), {
  measuring: () => (before = cpuByProcess()),
  measured: (figures) => report(figures, cpuByProcess()),
});

function report({ cpuMs, ...figures }: CommitFigures, after: ReadonlyMap<string, number>): void {
  const perCommit = (ms: number): number => Number((ms / figures.commits).toFixed(3));
  const spent = new Map([["client", cpuMs]]);
  for (const [process, ms] of after) spent.set(process, ms - (before.get(process) ?? 0));
  const sum = [...spent.values()].reduce((total, ms) => total + ms, 0);
  console.log(JSON.stringify({ ...figures, cpuMsPerCommit: perCommit(sum) }));
  for (const [name, ms] of [...spent].toSorted(([a], [b]) => a.localeCompare(b)))
    if (ms >= 2 * MS_PER_TICK) console.log(`  ${perCommit(ms).toFixed(3).padStart(7)}  ${name}`);
}

/** CPU ms so far of each process that this one started (but the client), or that those started, by what it is. */
function cpuByProcess(): Map<string, number> {
  const found = new Map<number, { parent: number; name: string; ms: number }>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const title = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      const ms = (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
      found.set(Number(pid), { parent: Number(fields[1]), name: nameOf(title), ms });
    } catch {
      // It ended meanwhile.
    }
  }
  const isOurs = (pid: number): boolean => pid === process.pid || (pid > 1 && isOurs(found.get(pid)?.parent ?? 0));
  const sums = new Map<string, number>();
  for (const { parent, name, ms } of found.values())
    if (isOurs(parent) && name !== "client") sums.set(name, (sums.get(name) ?? 0) + ms);
  return sums;
}

/** Equal parts of the three replicas are told apart, but not those of the three Postgres servers. */
function nameOf(title: string): string {
  const replica = / node --config (\S+)/.exec(title)?.[1];
  if (replica !== undefined) return `replica ${path.basename(path.dirname(replica))}`;
  if (title.includes("commit-client")) return "client";
  if (title.includes("nats-server")) return "nats-server";
  const backend = /^postgres: (\S+ \S+ \S+|[^0-9]+)/.exec(title)?.[1];
  if (backend === undefined) return title.slice(0, 60);
  return backend.startsWith("shardpact") ? "3 × postgres backends" : `3 × postgres ${backend.trim()}`;
}
