/**
 * Commits per second beside etcd's puts per second: three replica processes with three databases against three etcd
 * nodes, on the same disk in the same run, both with fsync, clients in processes of their own.
 */
import path from "node:path";
import { tempDir } from "../test/support/temp-dir.ts";
import { runClient, startGroup } from "./commit-group.ts";
import { measureEtcd, type PutFigures } from "./etcd.ts";
import { besideJetStream } from "./jetstream.ts";
import { type Figure, latency, rate } from "./report.ts";

const CLIENTS = [1, 16, 64] as const;
const SECONDS_EACH = 5;
/** DESIGN's ratios to reach, by client count. */
const REACH: Readonly<Record<number, number>> = { 1: 1.0, 16: 2.0, 64: 3.0 };

async function measureOurs(dir: string): Promise<PutFigures[]> {
  await using group = await startGroup({ dir });
  const figures: PutFigures[] = [];
  await runClient(group.url, CLIENTS, SECONDS_EACH, { measured: (measured) => figures.push(measured) });
  return figures;
}

export async function benchCommit(note: (line: string) => void): Promise<Figure[]> {
  await using dir = await tempDir("bench-commit");
  note("three replicas, three Postgres servers, one nats-server");
  const ours = await measureOurs(path.join(dir.path, "group"));
  note("three etcd 3.7.3 nodes, driven by etcd's Go client");
  const theirs = await measureEtcd(dir.path, CLIENTS, SECONDS_EACH);
  const beside = await besideJetStream(ours, dir.path, SECONDS_EACH, note);
  const figures = ours.flatMap((o, i) => {
    const t = theirs[i]!;
    const at = `${o.clients} client${o.clients === 1 ? "" : "s"}`;
    return [
      rate(
        "commit",
        `commits, ${at}`,
        "1/s",
        o.perSecond,
        { name: "etcd puts", value: t.perSecond },
        REACH[o.clients] ?? null,
      ),
      latency("commit", `median, ${at}`, "ms", o.medianMs, { name: "etcd puts", value: t.medianMs }, null),
      latency("commit", `p99, ${at}`, "ms", o.p99Ms, { name: "etcd puts", value: t.p99Ms }, null),
    ];
  });
  return [...figures, ...beside];
}
