/**
 * Owns the command `npm run chaos`: minutes of faults on real processes, a report, and an exit code.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { chmodSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type ChaosReport, runChaos } from "./run.ts";

const HELP = `npm run chaos -- [--minutes 2] [--replicas 3] [--engine raft|paxos] [--seed N] [--members] [--json]

Real replicas, nats-servers and Postgres servers on this machine, clients in processes of their own, and faults that the
seed chooses; with --members voters are replaced meanwhile. Ends with 1 when something acknowledged was lost or something was wrong; then data and logs are kept.`;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "2" },
    replicas: { type: "string", default: "3" },
    engine: { type: "string", default: "raft" },
    seed: { type: "string" },
    members: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

const { engine, replicas, minutes } = values;
const seed = Number(values.seed ?? Math.floor(Math.random() * 1_000_000));
if (values.help) console.log(HELP);
else if ((engine !== "raft" && engine !== "paxos") || ![seed, Number(replicas), Number(minutes)].every((n) => n >= 0)) {
  console.error(HELP);
  process.exitCode = 2;
} else await main(engine, Number(replicas), Number(minutes));

async function main(engine: "raft" | "paxos", replicas: number, minutes: number): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "shardpact-chaos-"));
  // Postgres runs as another user when this is root.
  chmodSync(dir, 0o755);
  const again = `npm run chaos -- --minutes ${minutes} --replicas ${replicas} --engine ${engine} --seed ${seed}${values.members ? " --members" : ""}`;
  const startedMs = performance.now();
  const say = (line: string): void => {
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.error(`${seconds.padStart(7)}  ${line}`);
  };
  try {
    const { members } = values;
    const report = await runChaos({
      dir,
      engine,
      replicas,
      seed,
      members,
      kindsMin: 1,
      stormMs: minutes * 60_000,
      say,
    });
    if (values.json) console.log(JSON.stringify(report));
    else print(report);
    if (report.lost.length === 0 && report.wrong.length === 0) return await rm(dir, { recursive: true, force: true });
    process.exitCode = 1;
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  }
  console.error(`data, logs and histories: ${dir}\nagain: ${again}`);
}

function print(report: ChaosReport): void {
  for (const text of report.lost) console.log(`LOST  ${text}`);
  for (const text of report.wrong) console.log(`WRONG ${text}`);
  const { operations, faults, ...rest } = report;
  console.table({
    engine: rest.engine,
    replicas: rest.replicas,
    seed: rest.seed,
    "storm, s": Math.round(rest.stormMs / 1000),
    "operations attempted": operations.attempted,
    "operations acknowledged": operations.acknowledged,
    "of those, commands": rest.commands,
    lost: rest.lost.length,
    wrong: rest.wrong.length,
    faults: Object.values(faults).reduce((sum, count) => sum + count, 0),
    "faults on the leader": rest.leaderHits,
    elections: rest.elections,
    "snapshots installed": rest.snapshots,
    "voters replaced": rest.votersReplaced,
    "longest without an answer, ms": rest.longestUnavailableMs,
    "ledger rows": rest.ledgerRows,
  });
  console.table(faults);
}
