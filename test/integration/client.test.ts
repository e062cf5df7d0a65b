/**
 * The library against a real group: publish, open, lock, reopen; conflicts; what a lock file refuses.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { RecordBatch, tableFromArrays } from "apache-arrow";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, type Group, type Lock, type Notice, type PublishProgress } from "../../src/index.ts";
import { startCli } from "../cli/run-cli.ts";
import { tinyShard } from "../support/group.ts";

let dir: string;
let local: LocalGroup;
let group: Group;
const notices: Notice[] = [];

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "shardpact-client-"));
  local = await startLocalGroup({ dir: path.join(dir, "group") });
  await local.waitForLeader();
  group = await connect({ url: local.url, actor: "ada", onNotice: (notice) => notices.push(notice) });
});
afterAll(async () => {
  await group?.close();
  await local?.close();
  await rm(dir, { recursive: true, force: true });
});

async function cli(...argv: string[]): Promise<void> {
  const { code, stderr } = await startCli(argv, { cwd: dir, env: { SHARDPACT_URL: local.url } });
  expect(code, stderr).toBe(0);
}

async function folderOf(name: string, ...seeds: number[]): Promise<string> {
  const folder = path.join(dir, name);
  await mkdir(folder, { recursive: true });
  for (const seed of seeds) await tinyShard(folder, `part-${seed}`, seed);
  return folder;
}

async function valuesOf(batches: AsyncIterable<RecordBatch>): Promise<number[]> {
  const values: number[] = [];
  for await (const batch of batches) for (const value of batch.getChild("x") ?? []) values.push(value as number);
  return values;
}

describe("publish, open, lock, reopen", () => {
  test("an append holds what was there and what is new; only the last page is written again", async () => {
    await group.publish("growing", await folderOf("growing-1", 31));
    const v2 = await group.publish("growing", await folderOf("growing-2", 31, 32), { append: true });
    expect(v2).toMatchObject({ version: 2, rows: 24, shards: 3, shardsNew: 1 });
    await using opened = await group.open("growing@v2");
    const read = await valuesOf(opened.batches());
    expect(read.length).toBe(24);
    expect(read.slice(8, 10)).toEqual([31_000, 31_001]); // the same file again, under another name
    const again = group.publish("growing", await folderOf("growing-2"), { append: true, expectedHead: 1 });
    expect(await again).toMatchObject({ version: 2 }); // a script that is run again is a retry
  });

  test("what was published is read back verified, and the lock file reproduces it after the head moved", async () => {
    const lock = path.join(dir, "shardpact.lock");
    const v1 = await group.publish("points", await folderOf("points", 1), { message: "first" });
    expect(v1).toMatchObject({ dataset: "points", version: 1, rows: 8, shards: 1, shardsNew: 1, unchanged: false });
    await using opened = await group.open("points@v1");
    expect(opened).toMatchObject({ name: "points", version: 1, rows: 8, splits: { train: 8 }, root: v1.root });
    expect(opened.confirmed.replicas.length).toBeGreaterThanOrEqual(2);
    expect(await valuesOf(opened.batches())).toEqual([1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007]);
    await opened.lock(lock);

    const v2 = await group.publish("points", await folderOf("points", 2));
    expect(v2).toMatchObject({ version: 2, rows: 16, shards: 2, shardsNew: 1 });
    await using again = await group.open({ lock });
    expect([again.version, again.root]).toEqual([1, v1.root]);
    expect((await valuesOf(again.batches())).length).toBe(8);
  });

  test("publishing the same again is unchanged", async () => {
    const folder = await folderOf("same", 1);
    const first = await group.publish("same", folder);
    const again = await group.publish("same", folder);
    expect(again).toMatchObject({ version: 1, root: first.root, index: first.index, unchanged: true, shardsNew: 0 });
  });

  test("a rerun is told the version that it made; one that changed nothing is told of the head as it is now", async () => {
    const [a, b, c] = [await folderOf("rerun-a", 1), await folderOf("rerun-b", 2), await folderOf("rerun-c", 3)];
    const v1 = await group.publish("rerun", a, { expectedHead: null });
    for (let i = 0; i < 3; i++) {
      const same = await group.publish("rerun", a, { expectedHead: 1 });
      expect(same).toMatchObject({ version: 1, index: v1.index, unchanged: true });
    }
    const v2 = await group.publish("rerun", b, { expectedHead: 1 });
    await expect(group.publish("rerun", a, { expectedHead: 1 })).rejects.toMatchObject({
      code: "head_moved",
      details: { head: { version: 2 }, expected: { version: 1 } },
    });
    expect((await group.publish("rerun", c, { expectedHead: 2 })).version).toBe(3);
    const made = { version: 2, index: v2.index, root: v2.root, unchanged: false };
    expect(await group.publish("rerun", b, { expectedHead: 1 })).toMatchObject(made);
    expect(await group.publish("rerun", a, { expectedHead: null })).toMatchObject({ version: 1, unchanged: false });
    expect((await group.publish("rerun", a, { expectedHead: 1, rebase: true })).version).toBe(4);
  });

  test("publishing again heals a damaged copy, and shows progress by bytes", async () => {
    const folder = await folderOf("heal");
    await tinyShard(folder, "big", 1, 1_000_000);
    const steps: number[] = [];
    const onProgress = ({ phase, doneBytes, totalBytes }: PublishProgress) => {
      if (phase === "upload") steps.push(doneBytes / totalBytes);
    };
    await group.publish("heal", folder, { onProgress });
    await using healed = await group.open("heal@v1");
    const [entry] = await healed.source.page(0);
    const digest = entry?.digest.slice(3) ?? "";
    const file = path.join(local.storeDir, "b3", digest.slice(0, 2), digest);
    const bytes = await readFile(file);
    bytes[2_000_000] = (bytes[2_000_000] ?? 0) ^ 1;
    await writeFile(file, bytes);
    expect(await group.publish("heal", folder, { onProgress })).toMatchObject({ unchanged: true, shardsNew: 1 });
    expect(await group.publish("heal", folder, { onProgress })).toMatchObject({ unchanged: true, shardsNew: 0 });
    expect((await valuesOf(healed.batches())).length).toBe(1_000_000);
    const upload = [0, ...steps.slice(1, steps.indexOf(1) + 1)];
    expect(upload.length).toBeGreaterThan(3);
    expect(upload).toEqual(upload.toSorted((a, b) => a - b));
    expect(steps.filter((step) => step === 1).length).toBe(3);
  });

  test("an unpinned name says what it resolved to; a tag and a root are opened by name", async () => {
    const { root } = await group.publish("named", await folderOf("named", 3));
    await group.tag("named", "prod", 1);
    notices.length = 0;
    expect((await group.open("named")).version).toBe(1);
    expect(notices).toMatchObject([{ code: "resolved", details: { dataset: "named", version: 1, root } }]);
    expect((await group.open("named@prod")).root).toBe(root);
    expect((await group.open(`named@${root}`)).version).toBe(1);
    await expect(group.open("named@prop")).rejects.toMatchObject({ code: "not_found", details: { nearest: ["prod"] } });
    await expect(group.open("nmaed@v1")).rejects.toMatchObject({ code: "not_found" });
    await expect(group.tag("named", "prod", 1, { expected: null })).rejects.toMatchObject({ code: "tag_moved" });
  });

  test("record batches are published as files of our own", async () => {
    async function* batches() {
      for (const batch of tableFromArrays({ x: Float32Array.from({ length: 100 }, (_, i) => i) }).batches) yield batch;
    }
    const { rows } = await group.publish("stream", batches());
    expect(rows).toBe(100);
    expect((await valuesOf((await group.open("stream@v1")).batches())).slice(0, 3)).toEqual([0, 1, 2]);
  });

  test("positional splits have exact totals at open, and later versions keep the rule", async () => {
    const folder = await folderOf("cut");
    await tinyShard(folder, "a", 1, 5_000);
    await group.publish("cut", folder, { split: { train: 0.9, val: 0.1 } });
    await using cut = await group.open("cut@v1");
    expect(cut.splits).toEqual({ train: 4_500, val: 500 });
    const train = await valuesOf(cut.batches({ split: "train" }));
    const val = await valuesOf(cut.batches({ split: "val" }));
    expect([train.length, val.length, new Set([...train, ...val]).size]).toEqual([4_500, 500, 5_000]);
    await tinyShard(folder, "b", 9, 1_000);
    expect((await group.publish("cut", folder)).version).toBe(2);
    await expect(group.publish("cut", folder, { split: { train: 0.5, val: 0.5 } })).rejects.toMatchObject({
      code: "split_changed",
    });
  });

  test("pin: once per run, for one version", async () => {
    await group.publish("pinned", await folderOf("pinned", 1));
    await group.publish("pinned", await folderOf("pinned", 2));
    const v1 = await group.open("pinned@v1");
    const pin = await v1.pin({ run: "exp-7", note: "baseline" });
    expect(pin).toMatchObject({ dataset: "pinned", version: 1, run: "exp-7" });
    const v2 = await group.open("pinned@v2");
    await expect(v2.pin({ run: "exp-7" })).rejects.toMatchObject({ code: "pin_conflict" });
  });
});

describe("conflicts", () => {
  test("of two publishers with one expected head, one gets head_moved with the new head, and may rebase", async () => {
    await group.publish("race", await folderOf("race", 1));
    const other = await connect({ url: local.url, actor: "bob" });
    const files = [await folderOf("race-a", 10), await folderOf("race-b", 11)] as const;
    const results = await Promise.allSettled([
      group.publish("race", files[0], { expectedHead: 1 }),
      other.publish("race", files[1], { expectedHead: 1 }),
    ]);
    const won = results.find((r) => r.status === "fulfilled");
    const lost = results.find((r) => r.status === "rejected");
    expect(won?.value.version).toBe(2);
    expect(lost?.reason).toMatchObject({ code: "head_moved", details: { head: { version: 2 } } });
    const loser = results[0].status === "rejected" ? files[0] : files[1];
    const rebased = await other.publish("race", loser, { expectedHead: 1, rebase: true });
    expect(rebased.version).toBe(3);
    await other.close();
  });

  test("a schema that differs from the head's is refused with the column", async () => {
    await group.publish("typed", await folderOf("typed", 1));
    async function* batches() {
      for (const batch of tableFromArrays({ x: new Int32Array([1, 2]) }).batches) yield batch;
    }
    await expect(group.publish("typed", batches())).rejects.toMatchObject({
      code: "schema_differs",
      details: { field: "x" },
    });
  });
});

describe("a lock file", () => {
  async function lockedThen(name: string, change: (lock: Lock) => unknown): Promise<Promise<unknown>> {
    const file = path.join(dir, `${name}.lock`);
    await group.publish(name, await folderOf(name, 4));
    await (await group.open(`${name}@v1`)).lock(file);
    const lock = JSON.parse(await readFile(file, "utf8")) as Lock;
    change(lock);
    await writeFile(file, JSON.stringify(lock));
    return group.open({ lock: file }).then(
      () => null,
      (error: unknown) => error,
    );
  }

  test("with another root is lock_mismatch, with another history group_forked", async () => {
    const change = (name: string, fields: object) => (lock: Lock) => Object.assign(lock.datasets[name] ?? {}, fields);
    expect(await lockedThen("root", change("root", { root: `b3:${"0".repeat(64)}` }))).toMatchObject({
      code: "lock_mismatch",
    });
    expect(await lockedThen("chain", change("chain", { chain: "0".repeat(64) }))).toMatchObject({
      code: "group_forked",
    });
    expect(await lockedThen("ahead", change("ahead", { index: 1_000_000 }))).toMatchObject({ code: "group_forked" });
    const other = (lock: Lock) => Object.assign(lock.group, { id: `b3:${"1".repeat(64)}` });
    expect(await lockedThen("group", other)).toMatchObject({ code: "group_forked" });
    expect(await lockedThen("untouched", () => undefined)).toBeNull();
  });

  test("of another group is refused at connect", async () => {
    const groupId = `b3:${"2".repeat(64)}`;
    await expect(connect({ url: local.url, group: local.group, groupId, timeoutMs: 1_500 })).rejects.toMatchObject({
      code: "group_forked",
    });
  });
});

describe("revocations", () => {
  test("a version is refused at open, a running reader at its next confirmation", async () => {
    await group.publish("bad", await folderOf("bad", 6));
    const opened = await group.open("bad@v1");
    await cli("revoke", "bad@v1", "--reason", "shifted labels");
    await expect(group.open("bad@v1")).rejects.toMatchObject({
      code: "revoked",
      details: { reason: "shifted labels" },
    });
    await expect(opened.source.reconfirm()).rejects.toMatchObject({ code: "revoked" });
    await expect(opened.pin({ run: "exp-9" })).rejects.toMatchObject({ code: "revoked" });
  });

  test("a shard is refused wherever it is read, by name", async () => {
    await group.publish("part", await folderOf("part", 7, 8));
    const before = await group.open("part@v1");
    const [entry] = await before.source.page(0);
    await cli("revoke", entry?.digest ?? "", "--reason", "leaked");
    const after = await group.open("part@v1");
    await expect(valuesOf(after.batches())).rejects.toMatchObject({ code: "revoked" });
    await expect(after.source.page(0)).rejects.toThrow(/shard part-7.arrow of part@v1 was revoked by .*: leaked/);
    await expect(before.source.reconfirm()).rejects.toMatchObject({ code: "revoked" });
  });
});

describe("runs", () => {
  test("a run is begun, refuses another plan, and ends", async () => {
    await group.publish("runs", await folderOf("runs", 5));
    const { source } = await group.open("runs@v1");
    const plan = {
      dataset: "runs",
      version: 1,
      root: source.root,
      selection: source.root,
      order: { alg: "sp-order/1", strength: "none", seed: "7", n: 1, K: 1, g: 1 },
      world: 2,
      batchSize: 4,
      last: "drop",
    } as const;
    const run = group.run({ meta: { note: "test" } });
    await source.beginRun(run.id, plan, {});
    await source.beginRun(run.id, plan, {});
    await expect(source.beginRun(run.id, { ...plan, batchSize: 8 }, {})).rejects.toMatchObject({
      code: "plan_mismatch",
    });
    await source.sendReceipt(run.id, 1, { offset: 8 });
    const leftMs = await source.lease(run.id, 60_000);
    expect(leftMs).toBeGreaterThan(50_000);
    expect((await source.reconfirm()).index).toBeGreaterThanOrEqual(source.confirmation.index);
    await run.end("done");
    await expect(source.beginRun(run.id, plan, {})).rejects.toMatchObject({ code: "run_ended" });
  });
});
