/**
 * The story of Shardpact in one run, with real parts: three replica processes, a nats-server, three Postgres servers,
 * real digits, a real TensorFlow.js model.
 * Run: npm run quickstart            (add `-- --keep` to leave the group running afterwards)
 */
import { open, readdir, rm } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { connect, isShardpactError, type Group } from "shardpact";
import { type LocalGroup, startLocalGroup } from "../src/cli/embedded/local-group.ts";
import type { LocalReplica } from "../src/cli/embedded/local-replica.ts";
import { table } from "../src/cli/output.ts";
import { writeDigits } from "./support/digits.ts";

console.log(
  "Shardpact quickstart: a dataset version that three replicas agree on, and a loader that trains on nothing else.\n" +
    "(What TensorFlow says about itself as it loads comes next.)",
);
const { digitColumns, digitModel } = await import("./support/digit-model.ts"); // loads TensorFlow

const DIR = path.resolve(".shardpact/quickstart");
const LOCK = path.join(DIR, "shardpact.lock");
const order = { ...digitColumns, batchSize: 64, split: "train", shuffle: true, seed: 7, receipt: "bytes" } as const;

const startedMs = Date.now();
let step = 0;
function say(title: string, ...lines: string[]): void {
  const seconds = ((Date.now() - startedMs) / 1000).toFixed(1).padStart(5);
  console.log(`\n${seconds} s  ${++step}. ${title}`);
  for (const line of lines) console.log(`         ${line}`);
}

/** Trains from the lock file; resolves with the accuracy on held-out digits and the digest of the bytes trained on. */
async function train(
  group: Group,
  epochs: number,
): Promise<{ version: number; accuracy: number; bytesDigest: string }> {
  const mnist = await group.open({ lock: LOCK, name: "mnist" });
  const loader = mnist.loader(order);
  const val = mnist.evaluation({ ...digitColumns, batchSize: 250, split: "val" });
  const model = digitModel();
  try {
    const { history } = await model.fitDataset(loader, { epochs, validationData: val, verbose: 0, ...loader.fit() });
    const accuracy = (history["val_acc"] as number[]).at(-1) ?? 0;
    return { version: mnist.version, accuracy, bytesDigest: String(loader.receipt().bytesDigest) };
  } finally {
    await loader.close();
    await val.close();
    await mnist.close();
    model.dispose();
  }
}

/** Turns over one bit in the middle of the largest object of the store, or turns it back. */
async function flipBit(storeDir: string): Promise<string> {
  const files = (await readdir(storeDir, { recursive: true, withFileTypes: true })).filter((f) => f.isFile());
  let largest = { file: "", bytes: 0 };
  for (const entry of files) {
    const file = path.join(entry.parentPath, entry.name);
    await using handle = await open(file, "r");
    const { size } = await handle.stat();
    if (size > largest.bytes) largest = { file, bytes: size };
  }
  await using handle = await open(largest.file, "r+");
  const byte = Buffer.alloc(1);
  const position = Math.floor(largest.bytes / 2);
  await handle.read(byte, 0, 1, position);
  byte[0] = byte[0]! ^ 0x10;
  await handle.write(byte, 0, 1, position);
  return `one bit of byte ${position.toLocaleString("en")} of ${path.basename(largest.file).slice(0, 12)}…`;
}

async function query(replica: LocalReplica, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: replica.postgresUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

async function agreeAndTrain(local: LocalGroup, group: Group): Promise<void> {
  const leader = await local.waitForLeader();
  say(
    "Three replicas are up, each with its own Postgres",
    `${local.replicas.map((r) => r.id).join(", ")} over NATS at ${local.url}; ${leader} leads`,
  );

  const v1 = await group.publish("mnist", await writeDigits(path.join(DIR, "digits-v1")));
  say(
    "10,000 real handwritten digits become mnist@v1",
    `root ${v1.root.slice(0, 19)}…, agreed at log index ${v1.index}`,
  );

  const pinned = await group.open("mnist@v1");
  await pinned.pin({ run: "quickstart", note: "first run" });
  await pinned.lock(LOCK);
  await pinned.close();
  const first = await train(group, 3);
  say(
    "Pinned, confirmed by a majority, trained: every byte checked before it became a tensor",
    `accuracy on held-out digits ${(first.accuracy * 100).toFixed(1)} %, data digest ${first.bytesDigest.slice(0, 19)}…`,
  );
  if (first.accuracy < 0.95) throw new Error(`the model reached only ${first.accuracy}`);

  const v2 = await group.publish("mnist", await writeDigits(path.join(DIR, "digits-v2"), 500));
  await group.tag("mnist", "prod", v2.version);
  say(
    "New data: mnist@v2 is published, and the tag 'prod' points at it",
    `${v2.shardsNew} new shard, the others are shared with v1`,
  );

  const again = await train(group, 3);
  say(
    "The same run from its lock file: still v1, the same bytes in the same order",
    `v${again.version}, data digest ${again.bytesDigest.slice(0, 19)}… ${again.bytesDigest === first.bytesDigest ? "(equal)" : "(DIFFERENT)"}`,
  );
  if (again.bytesDigest !== first.bytesDigest) throw new Error("the rerun saw other bytes");
}

/** Resolves with the replica that was killed, once it is back and has caught up. */
async function refuseAndSurvive(local: LocalGroup, group: Group): Promise<LocalReplica> {
  const flipped = await flipBit(local.storeDir);
  const refused = await train(group, 1).then(
    () => null,
    (error: unknown) => error,
  );
  if (!isShardpactError(refused, "shard_corrupt"))
    throw new Error("the flipped bit was not refused", { cause: refused });
  say(`A disk flips ${flipped}: the loader refuses`, refused.message, refused.hint);

  const leader = await local.waitForLeader();
  const killed = local.replicas.find((r) => r.id === leader)!;
  const before = Date.now();
  const publishing = group.publish("mnist-small", path.join(DIR, "digits-v2", "val"));
  await killed.kill("SIGKILL");
  const survived = await publishing;
  const next = await local.waitForLeader();
  say(
    `kill -9 of the leader ${leader} during a publish`,
    `${next} leads, mnist-small@v${survived.version} is committed after ${Date.now() - before} ms; nothing lost`,
  );
  await killed.restart();
  const deadline = Date.now() + 30_000;
  const caughtUp = `select from shardpact.applied_state where applied_index >= ${survived.index}`;
  while ((await query(killed, caughtUp)).length === 0) {
    if (Date.now() > deadline) throw new Error(`${killed.id} did not catch up`);
    await sleep(50);
  }
  return killed;
}

async function audit(replica: LocalReplica): Promise<void> {
  const rows = await query(
    replica,
    "select ref, left(root, 19) || '…' as root, index, to_char(at, 'YYYY-MM-DD HH24:MI:SS') as at, rows, actor from shardpact.v_versions order by index",
  );
  const lines = table(
    ["version", "root", "log index", "committed", "rows", "by"],
    rows.map((row) => Object.values(row).map((value) => `${value as string | number}`)),
  );
  say(
    `${replica.id} is back and has caught up; what an auditor sees in its Postgres: select * from shardpact.v_versions`,
    ...lines.split("\n"),
  );
}

await rm(DIR, { recursive: true, force: true });
const keep = process.argv.includes("--keep");
const local = await startLocalGroup({ dir: DIR });
try {
  // Named whole: a ./shardpact.json of `shardpact up` describes another group, with another store.
  const group = await connect({ url: local.url, group: local.group, stores: [] });
  try {
    await agreeAndTrain(local, group);
    await audit(await refuseAndSurvive(local, group));
  } finally {
    await group.close();
  }
  if (keep) {
    say("Still running", `connect to ${local.url}; Ctrl-C ends it`);
    await new Promise<void>((resolve) => process.once("SIGINT", () => resolve()));
  }
} finally {
  await local.close();
}
say(
  "All processes are stopped",
  "npm run quickstart -- --keep leaves them running; npx shardpact up starts a group that stays",
);
