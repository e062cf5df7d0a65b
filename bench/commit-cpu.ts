/**
 * Where a commit's CPU time goes: the same load as the commit bench, and the CPU ms of each process per commit.
 * Usage: tsx bench/commit-cpu.ts [CLIENTS …].
 */
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { startLocalGroup } from "../src/cli/embedded/local-group.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import type { PutFigures } from "./etcd.ts";

const SECONDS_EACH = 4;
/** Linux counts process times in hundredths of a second. */
const MS_PER_TICK = 10;
const run = promisify(execFile);

const counts = process.argv.slice(2).map(Number);
await using dir = await tempDir("bench-commit-cpu");
await using local = await startLocalGroup({ dir: dir.path });
await local.waitForLeader();
const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
const script = path.join(import.meta.dirname, "commit-client.ts");
for (const clients of counts.length > 0 ? counts : [1, 16, 64]) {
  const before = cpuByProcess();
  const { stdout } = await run(process.execPath, [
    "--import",
    tsx,
    script,
    local.url,
    String(clients),
    String(SECONDS_EACH),
  ]);
  const figures = JSON.parse(stdout) as PutFigures & { readonly total: number; readonly cpuMs: number };
  const rows = [...cpuByProcess()].flatMap(([key, ms]) => {
    const spent = ms - (before.get(key) ?? 0);
    return spent < 20 ? [] : [{ process: key, "CPU ms a commit": Number((spent / figures.total).toFixed(3)) }];
  });
  rows.push({ process: "client", "CPU ms a commit": Number((figures.cpuMs / figures.total).toFixed(3)) });
  const sum = rows.reduce((total, row) => total + row["CPU ms a commit"], 0);
  console.log(JSON.stringify({ ...figures, cpuMsPerCommit: Number(sum.toFixed(3)) }));
  console.table(rows.toSorted((a, b) => a.process.localeCompare(b.process)));
}

/** CPU ms so far of each process that this one started, or that those started, by title and pid. */
function cpuByProcess(): Map<string, number> {
  const found = new Map<number, { parent: number; name: string; ms: number }>();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const title = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      const node = / node --config (\S+)/.exec(title)?.[1];
      const name = node ? `node ${path.basename(path.dirname(node))}` : title.slice(0, 60);
      const ms = (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
      found.set(Number(pid), { parent: Number(fields[1]), name, ms });
    } catch {
      // It ended meanwhile.
    }
  }
  const isOurs = (pid: number): boolean => pid === process.pid || (pid > 1 && isOurs(found.get(pid)?.parent ?? 0));
  return new Map(
    [...found].flatMap(([pid, { parent, name, ms }]) => (isOurs(parent) ? [[`${name} ${pid}`, ms] as const] : [])),
  );
}
