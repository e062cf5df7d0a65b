/**
 * The command line end to end, in child processes, against a real group.
 */
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { tableFromIPC } from "apache-arrow";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { type CliResult, startCli } from "../cli/run-cli.ts";
import { sql, tinyShard } from "../support/group.ts";

let dir: string;
let local: LocalGroup;

beforeAll(async () => {
  dir = await mkdtemp(path.join(tmpdir(), "shardpact-cli-"));
  local = await startLocalGroup({ dir: path.join(dir, "group") });
  await local.waitForLeader();
  for (const split of ["train", "val"]) await mkdir(path.join(dir, "data", split), { recursive: true });
  await tinyShard(path.join(dir, "data", "train"), "a", 1);
  await tinyShard(path.join(dir, "data", "val"), "b", 2, 4);
});
afterAll(async () => {
  await local?.close();
  await rm(dir, { recursive: true, force: true });
});

const run = (...argv: string[]): Promise<CliResult> => startCli(argv, { cwd: dir, env: { SHARDPACT_URL: local.url } });

async function json(...argv: string[]): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await run(...argv, "--json");
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Record<string, unknown>;
}

describe.sequential("from publish to audit", () => {
  test("publish, status, versions, show", async () => {
    const published = await run("publish", "mnist", "data", "--message", "first");
    expect(published.stdout, published.stderr).toMatch(
      /^mnist@v1 {2}12 rows · .* · 2 shards · root b3:[0-9a-f]{12}… {2}committed at index \d+\nshards are in file:.*\n$/,
    );
    expect(published.stderr).toMatch(/scan .*\n[^]*upload/);

    const status = await run("status");
    expect(status.code).toBe(0);
    expect(status.stdout).toMatch(/leader r[123]/);
    expect(status.stdout.match(/running/g)?.length).toBe(3);

    expect((await run("versions")).stdout).toMatch(/mnist\s+v1/);
    const plan = await run("plan", "mnist@v1", "--batch", "2", "--world", "2", "--split", "train", "--shuffle", "full");
    expect(plan.stdout, plan.stderr).toMatch(
      /8 rows.*\n.*full, seed 0[^]*2 steps of 2 × 2 rows[^]*D \d[^]*2 +\d\.\d\d ×/,
    );
    expect(await json("plan", "mnist@v1", "--batch", "2", "--split", "train")).toMatchObject({
      rows: 8,
      steps: 4,
      quality: { countedRows: 8 },
    });
    expect((await run("plan", "mnist@v1", "--batch", "2")).stdout).toMatch(/split train {2}8 rows/); // what is trained on
    const lanes = ["--shuffle", "window", "--window", "0.00001", "--lanes", "2"];
    expect((await run("plan", "mnist@v1", "--batch", "2", ...lanes)).stdout).toContain("2 lanes of 1");
    expect((await run("plan", "mnist@v1", "--batch", "2", "--lanes", "3")).stderr).toMatch(/power of two/);
    const show = await run("show", "mnist@v1", "--shards");
    expect(show.stdout).toMatch(/train\s+8/);
    expect(show.stdout).toMatch(/val\/b\.arrow\s+val\s+4/);
    expect(await json("show", "mnist@v1")).toMatchObject({
      version: 1,
      message: "first",
      splitRule: { kind: "folders" },
    });
  });

  test("a store where no folder can be made is store_failed, in time", async () => {
    const refused = await run("publish", "mnist", "data", "--store", "/proc/shardpact", "--timeout", "5");
    expect([refused.code, refused.stderr]).toEqual([4, expect.stringContaining("store_failed")]);
  });

  test("a second version, diff, tag with an expectation", async () => {
    await tinyShard(path.join(dir, "data", "train"), "c", 3);
    expect(await json("publish", "mnist", "data")).toMatchObject({ version: 2, rows: 20, shardsNew: 1 });
    const diff = await run("diff", "mnist@v1", "mnist@v2");
    expect(diff.stdout).toContain("1 shard added, 0 removed, 0 changed");
    expect(diff.stdout).toMatch(/\+\s+train\/c\.arrow/);

    expect((await run("tag", "mnist@v1", "prod", "--expect", "none")).stdout).toMatch(/^mnist@prod → v1/);
    const moved = await run("tag", "mnist@v2", "prod", "--expect", "v2");
    expect([moved.code, moved.stderr]).toEqual([6, expect.stringContaining("tag_moved")]);
    expect((await run("tag", "mnist@v2", "prod", "--expect", "v1")).stdout).toContain("(was v1)");
    expect((await run("audit", "tags", "mnist")).stdout).toMatch(/prod\s+v1\s+v2/);
  });

  test("pin writes the lock file; unpin; conflicts and nearest names", async () => {
    const pin = await run("pin", "mnist@v1", "--run", "exp-42", "--note", "baseline");
    expect(pin.stdout, pin.stderr).toContain("wrote shardpact.lock");
    expect(JSON.parse(await readFile(path.join(dir, "shardpact.lock"), "utf8"))).toMatchObject({
      format: "shardpact-lock/1",
      datasets: { mnist: { version: 1 } },
    });
    expect((await run("pin", "mnist@v2", "--run", "exp-42", "--no-lock")).code).toBe(6);
    expect((await run("unpin", "mnist", "--run", "exp-42")).stdout).toContain("released v1");
    expect((await run("audit", "pins")).stdout).toMatch(/mnist\s+exp-42\s+v1.*baseline/);
    const unknown = await run("show", "mnits@v1");
    expect([unknown.code, unknown.stderr]).toEqual([3, expect.stringContaining("mnist")]);
  });

  test("a table is imported, dealt by a key, appended to, and written out again for others", async () => {
    const csv = async (name: string, from: number, to: number): Promise<string> => {
      const lines = Array.from({ length: to - from }, (_, i) => `${from + i},${(from + i) / 4},c${(from + i) % 3}`);
      await writeFile(path.join(dir, name), `id,x,kind\n${lines.join("\n")}\n`);
      return name;
    };
    const first = await csv("first.csv", 0, 3000);
    const split = ["--split", "train=0.8,val=0.2", "--key", "id"];
    const published = await run("publish", "trips", first, ...split, "--shuffle", "7", "--classes", "kind");
    expect(published.stdout, published.stderr).toMatch(/^trips@v1 {2}3,000 rows · /);
    expect(published.stderr).toMatch(/import\n[^]*scan/);
    const shown = await json("show", "trips@v1");
    expect(shown).toMatchObject({ splitRule: { kind: "key", columns: ["id"], ppm: { val: 200_000 } } });
    expect(shown["message"]).toMatch(/^import\/1 duckdb v/);
    const [train, val] = shown["splits"] as { rows: number }[];
    expect((train?.rows ?? 0) + (val?.rows ?? 0)).toBe(3000);
    expect(Math.abs((val?.rows ?? 0) - 600)).toBeLessThan(90);

    const idsOf = async (folder: string, name: string): Promise<Set<number>> => {
      const files = await readdir(path.join(dir, folder, name));
      const tables = await Promise.all(
        files.map(async (file) => tableFromIPC(await readFile(path.join(dir, folder, name, file)))),
      );
      return new Set(tables.flatMap((table) => [...(table.getChild("id") ?? [])].map(Number)));
    };
    const out = await run("materialize", "trips@v1", "out1");
    expect(out.stdout, out.stderr).toMatch(/^trips@v1 {2}2 files · .* verified in /);
    expect((await run("materialize", "trips@v1", "out1")).stdout).toContain("2 files (2 there already)");
    const heldOut = await idsOf("out1", "val");
    expect(heldOut.size).toBe(val?.rows);

    // More rows, other files, no word of splits: the rule is the dataset's.
    await csv("second.csv", 0, 6000);
    expect((await run("publish", "trips", "second.csv", "--classes", "kind")).code).toBe(0);
    expect((await run("materialize", "trips@v2", "out2", "--split", "val")).code).toBe(0);
    const later = await idsOf("out2", "val");
    for (let id = 0; id < 3000; id++) expect(later.has(id)).toBe(heldOut.has(id));
    const changed = await run(
      "publish",
      "trips",
      "second.csv",
      "--split",
      "train=0.5,val=0.5",
      "--key",
      "id",
      "--classes",
      "kind",
    );
    expect([changed.code, changed.stderr]).toEqual([2, expect.stringContaining("split_changed")]);
  });

  test("verify names segment and leaf of a flipped byte, and exits with 1", async () => {
    expect((await run("verify", "mnist@v1")).stdout).toMatch(/✓ file:.* 2 shards, .*, every leaf as agreed/);
    const { shards } = (await json("show", "mnist@v1", "--shards")) as { shards: { name: string; digest: string }[] };
    const digest = shards.find((s) => s.name === "val/b.arrow")?.digest.slice(3) ?? "";
    const file = path.join(local.storeDir, "b3", digest.slice(0, 2), digest);
    const handle = await open(file, "r+");
    const middle = Math.floor((await stat(file)).size / 2);
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, middle);
    await handle.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, middle);
    const verify = await run("verify", "mnist@v1", "--store", local.storeDir);
    await handle.close();
    expect(verify.code).toBe(1);
    expect(verify.stdout).toContain("next: set the bad copies aside with --quarantine");
    expect(verify.stdout).toMatch(
      /✗ shard val\/b\.arrow segment \d+ \(\w+\) leaf 0 \(bytes [\d,]+–[\d,]+\): expected \w{8}… got \w{8}…/,
    );

    expect((await run("verify", "mnist@v1", "--quarantine")).code).toBe(1);
    expect((await run("verify", "mnist@v1")).stdout).toContain("shard val/b.arrow is missing");
    expect(await json("publish", "mnist", "data")).toMatchObject({ unchanged: true, shardsNew: 1 });
    expect((await run("verify", "mnist@v1")).code).toBe(0);
    expect((await run("verify", "mnist@v1", "--store", "no-such-store")).code).toBe(3);
  });

  test("revoke refuses from then on, with who and why", async () => {
    expect((await run("revoke", "mnist@prod", "--reason", "x")).code).toBe(2);
    expect((await run("revoke", "mnist@v1", "--reason", "labels are shifted")).stdout).toContain("mnist@v1 is revoked");
    const pin = await run("pin", "mnist@v1", "--run", "exp-43");
    expect([pin.code, pin.stderr]).toEqual([6, expect.stringContaining("labels are shifted")]);
    expect((await run("show", "mnist@v1")).stdout).toContain("REVOKED");
    expect((await run("audit", "revocations", "mnist")).stdout).toMatch(/mnist@v1.*labels are shifted/);
    expect((await run("versions", "mnist")).stdout).toContain("REVOKED: labels are shifted");
  });

  test("audit verify recomputes every replica's database, and finds an edited row", async () => {
    const urls = local.replicas.map((r) => r.postgresUrl);
    const clean = await run("audit", "verify", "--postgres", ...urls);
    expect(clean.code, clean.stdout + clean.stderr).toBe(0);
    expect(clean.stdout.match(/✓/g)?.length).toBe(3);
    const [, second] = urls;
    const edit = (message: string) =>
      sql(
        second ?? "",
        `alter table shardpact.versions disable trigger user; update shardpact.versions set message = '${message}' where version = 1`,
      );
    await edit("edited");
    const found = await run("audit", "verify", "--postgres", ...urls);
    await edit("first");
    expect(found.code, found.stdout).toBe(1);
    expect(found.stdout).toMatch(/✗[^]*version/);
  });
});
