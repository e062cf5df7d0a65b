/**
 * What it costs a group that a replica with an empty database joins: how long it takes, and what becomes of the leader's
 * commits while the snapshot of a long ledger is made, sent and installed. Real processes, databases and nats-server.
 * Usage: tsx bench/catch-up.ts [--rows 1000000] [--engine raft|paxos]
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { APPLIED_ZERO, type AppliedState, applyBatch, type LedgerRow } from "../src/catalog/apply.ts";
import type { Row } from "../src/catalog/rows.ts";
import { rowKey } from "../src/catalog/view.ts";
import type { LocalGroup } from "../src/cli/embedded/local-group.ts";
import type { LocalReplica } from "../src/cli/embedded/local-replica.ts";
import type { Entry } from "../src/consensus/engine.ts";
import { connect } from "../src/index.ts";
import { genesis } from "../src/model/api.ts";
import { objectDigest } from "../src/merkle/root.ts";
import { utf8 } from "../src/model/bytes.ts";
import { encodeCommand, parseCommand, stampCommand } from "../src/model/commands.ts";
import { genesisPayload } from "../src/replica/index.ts";
import { restorePostgresSnapshot } from "../src/storage/postgres/snapshot-restore.ts";
import type { SnapshotTable } from "../src/storage/snapshot/tables.ts";
import { writeSnapshot } from "../src/storage/snapshot/write.ts";
import { sql, tinyShard } from "../test/support/group.ts";
import { tempDir } from "../test/support/temp-dir.ts";
import { startGroup } from "./commit-group.ts";

const { values } = parseArgs({
  options: { rows: { type: "string", default: "1000000" }, engine: { type: "string", default: "raft" } },
});
const rowCount = Number(values.rows);
const engine = values.engine === "paxos" ? "paxos" : "raft";
const BATCH_ENTRIES = 512;
const CALM_MS = 15_000;

await using dir = await tempDir("bench-catch-up");
// A short tail, so that what the newcomer lacks is gone from the log.
await using local = await startGroup({ dir: dir.path, engine, log: { keepEntries: 5_000, compactEntries: 1_000 } });
const [r1, r2, r3] = local.replicas as readonly [LocalReplica, LocalReplica, LocalReplica];
const snapshot = join(dir.path, "long.snapshot");
await foundOnLongLedger(local);

await Promise.all([r1.restart(), r2.restart()]);
const leader = await local.waitForLeader();
await using group = await connect(local.url);
const { version } = await group.publish("bench", await tinyShard(dir.path, "bench", 1));
const calm = await commitsUntil(sleep(CALM_MS));
const startMs = performance.now();
const joined = join3();
const during = await commitsUntil(joined);
const after = await commitsUntil(sleep(CALM_MS));
const [sender] = [r1, r2].filter(({ id }) => id === leader) as [LocalReplica];
console.log(
  JSON.stringify({
    ...{ engine, rows: rowCount, snapshotBytes: await snapshotBytes(), ...(await joined) },
    commitMedianMs: { before: median(calm), during: median(during), after: median(after) },
    commitP99Ms: { before: p99(calm), during: p99(during), after: p99(after) },
    commits: { before: calm.length, during: during.length, after: after.length },
    longestMs: { before: Math.max(...calm), during: Math.max(...during), after: Math.max(...after) },
    ledBySame: (await local.waitForLeader()) === leader,
    peakMiB: { leader: await peakMiB(sender), newcomer: await peakMiB(r3) },
  }),
);

/** Time from the start of the process to the steps that it logs, in seconds. */
async function join3(): Promise<Record<string, number>> {
  await r3.restart();
  const seconds: Record<string, number> = {};
  const steps = { receiving: "is being received", installing: "is being installed", installed: "was installed" };
  for (const [name, text] of Object.entries(steps)) {
    while (!(await saidSinceStart(text))) await sleep(50);
    seconds[`${name}AfterS`] = since();
  }
  const [row] = await sql(r1.postgresUrl, "select applied_index::int as applied from shardpact.applied_state");
  const target = Number(row?.["applied"]);
  for (;;) {
    const [own] = await sql(r3.postgresUrl, "select applied_index::int as applied from shardpact.applied_state");
    if (Number(own?.["applied"]) >= target) return { ...seconds, caughtUpAfterS: since() };
    await sleep(50);
  }
}

function since(): number {
  return Number(((performance.now() - startMs) / 1_000).toFixed(1));
}

async function saidSinceStart(text: string): Promise<boolean> {
  const log = await readFile(r3.logFile, "utf8");
  return log.lastIndexOf(text) > log.lastIndexOf("is starting");
}

/** One client, one commit after another; their times in ms. */
async function commitsUntil(end: Promise<unknown>): Promise<readonly number[]> {
  const times: number[] = [];
  let isOver = false;
  void end.finally(() => {
    isOver = true;
  });
  for (let i = 0; !isOver; i += 1) {
    const sentMs = performance.now();
    await group.tag("bench", `t${i % 100}`, version, { timeoutMs: 60_000 });
    times.push(performance.now() - sentMs);
  }
  return times;
}

function quantile(times: readonly number[], q: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  return Number((sorted[Math.floor(q * (sorted.length - 1))] ?? Number.NaN).toFixed(1));
}
function median(times: readonly number[]): number {
  return quantile(times, 0.5);
}
function p99(times: readonly number[]): number {
  return quantile(times, 0.99);
}

async function snapshotBytes(): Promise<number> {
  return (await readFile(snapshot)).byteLength;
}

/** Peak resident memory of a process, from Linux. */
async function peakMiB({ pid }: LocalReplica): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024);
}

/** The group's databases are made anew: two with a long ledger, of a genesis and as many puts of one object; one empty. */
async function foundOnLongLedger({ replicas }: LocalGroup): Promise<void> {
  for (const replica of replicas) await replica.stop();
  const made = genesisPayload(genesis.parse(JSON.parse(await readFile(join(dir.path, "group.json"), "utf8"))));
  let end: Applied | null = null;
  for (const batch of history(made)) end = batch;
  if (end === null) throw new Error("there is a history");
  const { state, rows } = end;
  await writeSnapshot(snapshot, {
    ...{ groupId: local.groupId, applied: state, epoch: 1, configurations: [made] },
    async *rows({ table }: SnapshotTable) {
      if (table === "ledger") for (const { ledger } of history(made)) yield ledger;
      else yield [...rows.values()].filter((row) => row.table === table);
    },
  });
  for (const { id, postgresUrl } of replicas) {
    const admin = Object.assign(new URL(postgresUrl), { pathname: "/postgres" }).href;
    await sql(admin, "drop database shardpact");
    await sql(admin, "create database shardpact");
    if (id === r3.id) continue;
    await restorePostgresSnapshot(snapshot, { url: postgresUrl, replica: id, engine });
    // Nobody has promised anything in these databases' names yet.
    await sql(postgresUrl, "update shardpact.replica_state set voting = true, lost_reason = null");
    await sql(postgresUrl, "analyze");
  }
}

interface Applied {
  readonly state: AppliedState;
  readonly ledger: readonly LedgerRow[];
  readonly rows: ReadonlyMap<string, Row>;
}

function* history(first: Uint8Array): Generator<Applied> {
  const blob = utf8(JSON.stringify({ text: "the same object, put again and again" }));
  const body = { kind: "schema" as const, digest: objectDigest("schema", blob) };
  const rows = new Map<string, Row>();
  let state = APPLIED_ZERO;
  for (let index = 1; index <= rowCount;) {
    const entries: Entry[] = [];
    for (; index <= rowCount && entries.length < BATCH_ENTRIES; index += 1) {
      const id = index.toString(16).padStart(32, "0");
      const put = () => encodeCommand(parseCommand({ id, actor: "bench", kind: "page.put", body, blob }));
      if (index === 1) entries.push({ index, epoch: 1, kind: "config", payload: first });
      else entries.push({ index, epoch: 1, kind: "command", payload: stampCommand(put(), 1_700_000_000_000 + index) });
    }
    const batch = applyBatch({ entries, state, rows: [...rows.values()], outcomes: new Map() });
    for (const { row } of batch.changes) rows.set(rowKey(row), row);
    ({ state } = batch);
    yield { state, ledger: batch.ledger, rows };
  }
}
