/**
 * Many workers on one model, as real processes with real parts: what the example promises, and that a worker with another
 * version or a bad byte is fenced before its gradient counts.
 */
import { randomUUID } from "node:crypto";
import { cp, mkdir, open, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import * as tf from "@tensorflow/tfjs-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { digitColumns, digitModel } from "../../examples/support/digit-model.ts";
import { arrowFileOf, readDigits, writeDigits } from "../../examples/support/digits.ts";
import type { WorkerConfig } from "../../examples/support/worker.ts";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, type Group } from "../../src/index.ts";
import type { MapColumns } from "../../src/loader/feed.ts";
import { startCli } from "../cli/run-cli.ts";
import { runExample } from "../support/run-example.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";
import { startWorkerProcess, type StartedWorker } from "../support/worker-process.ts";

let dir: TempDir;
let local: LocalGroup;
let group: Group;
beforeAll(async () => {
  dir = await tempDir("many-workers");
  local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  group = await connect({ url: local.url, onNotice: () => undefined });
});
afterAll(async () => {
  await group?.close();
  await local?.close();
  await dir?.remove();
});

const ROWS = 600;
const BATCH = 50;

/** A version of `name` with so many digits to train on. */
async function publishDigits(name: string, rows: number, store: string): Promise<number> {
  const source = path.join(dir.path, "sources", `${name}-${rows}`);
  await mkdir(path.join(source, "train"), { recursive: true });
  const digits = await readDigits();
  await writeFile(path.join(source, "train", "digits.arrow"), await arrowFileOf(digits, [...Array(rows).keys()]));
  return (await group.publish(name, source, { store })).version;
}

const startWorker = (o: WorkerOptions): StartedWorker =>
  startWorkerProcess({
    ...{ group: { url: local.url, stores: [] }, servers: [local.url], world: 2, batchSize: BATCH, epochs: 1 },
    ...{ checkpointDir: path.join(dir.path, o.attempt), checkpointSteps: 100 },
    ...{ joinTimeoutMs: 60_000, stepTimeoutMs: 20_000 },
    ...o,
  });
type WorkerOptions = Partial<WorkerConfig> & Pick<WorkerConfig, "attempt" | "dataset" | "rank">;

/** A good worker, and a second one once the first one waits for it; how both end. */
async function together(good: Parameters<typeof startWorker>[0], other: Parameters<typeof startWorker>[0]) {
  const first = startWorker(good);
  await first.until("ready");
  const second = startWorker(other);
  const ends = await Promise.all([first.until("stopped"), second.until("stopped")]);
  const steps = [first, second].map(({ reports }) => reports.filter(({ kind }) => kind === "step").length);
  return { ends, steps };
}

/** Turns over one bit in the middle of each file of a store that is larger than a record batch. */
async function flipBits(store: string): Promise<void> {
  const files = (await readdir(store, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  for (const entry of files) {
    await using handle = await open(path.join(entry.parentPath, entry.name), "r+");
    const { size } = await handle.stat();
    if (size < 1_000_000) continue;
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, Math.floor(size / 2));
    byte[0]! ^= 0x10;
    await handle.write(byte, 0, 1, Math.floor(size / 2));
  }
}

test("a worker with another version or a bad byte is fenced before its gradient counts", async () => {
  const store = path.join(dir.path, "good-copies"); // not where the group looks: a bad copy can't be healed from there
  await mkdir(store);
  expect(await publishDigits("fenced", ROWS, store)).toBe(1);
  expect(await publishDigits("fenced", ROWS + 60, store)).toBe(2);
  const damaged = path.join(dir.path, "damaged-copies");
  await cp(store, damaged, { recursive: true });
  await flipBits(damaged);
  const stores = [store];
  const v1 = { dataset: "fenced@v1", rank: 0, stores };
  const run = { run: "fenced-run" };
  const [a, b, c] = [randomUUID(), randomUUID(), randomUUID()];
  const [version, byte] = await Promise.all([
    // The second one names no run: the group can't know what it trains on, the other worker does.
    together({ ...v1, ...run, attempt: a }, { ...v1, attempt: a, dataset: "fenced@v2", rank: 1 }),
    together({ ...v1, attempt: b }, { ...v1, attempt: b, rank: 1, stores: [damaged] }),
  ]);
  expect(version.steps).toEqual([0, 0]);
  const named = "the batch of rank 1 has dataset fenced@v2; for rank 0 it has to be fenced@v1";
  expect(version.ends[0]).toMatchObject({ peer: 1, message: named });
  expect(version.ends[1]).toMatchObject({ peer: 0 });

  expect(byte.steps).toEqual([0, 0]);
  expect(byte.ends[1]).toMatchObject({ code: "shard_corrupt", peer: null });
  expect(byte.ends[0]).toMatchObject({ peer: 1, message: expect.stringContaining("worker 1 has stopped: ") });

  // This one names the run: the group refuses it before its first batch.
  const late = startWorker({ ...v1, ...run, attempt: c, dataset: "fenced@v2", rank: 1 });
  const refused = { code: "plan_mismatch", peer: null, message: "run 'fenced-run' has version 1, not 2" };
  expect(await late.until("stopped")).toMatchObject(refused);
  expect(late.reports.length).toBe(1);
});

test("kill -9 of the worker that writes checkpoints: the others go on with the rows and the losses of one process", async () => {
  const args = ["--workers", "3", "--kill", "0@12", "--step-timeout-ms", "8000"];
  const { version } = await group.publish("mnist", await writeDigits(path.join(dir.path, "digits")));
  const [out, alone] = await Promise.all([
    runExample("many-workers.ts", args, { SHARDPACT_URL: local.url }),
    trainAlone(version),
  ]);
  expect(out).toMatch(/attempt 1, run \S+: 3 workers, 100 rows[^]*attempt 2, run \S+: 2 workers, 150 rows/);
  expect(out).toContain("worker 0 is killed (SIGKILL) after step 12");
  expect(out).toContain("done, with equal weights on all workers");
  expect(out).toContain("one process alone reads 9000 rows; the model saw 9000; equal at 9000 positions");

  const told = [...out.matchAll(/step (\d+) {2}loss ([\d.]+)/g)].map(([, step, loss]) => [Number(step), Number(loss)]);
  expect(told.length).toBeGreaterThan(5);
  // Rounding makes some 0.0001; a share that is missing or a row too many makes some hundredths.
  for (const [step, loss] of told)
    expect(Math.abs(loss! - alone.losses[step! - 1]!), `step ${step}`).toBeLessThan(0.005);

  // What the log says that the model saw, over both runs.
  const runs = [...out.matchAll(/run (many-workers-\S+):/g)].map(([, run]) => run!);
  const argv = ["audit", "replay", ...runs, "--rows", "seen.ndjson"];
  const replay = await startCli(argv, { cwd: dir.path, env: { SHARDPACT_URL: local.url } });
  expect(replay.code, replay.stderr).toBe(0);
  expect(replay.stdout).toMatch(/world 3 · batch 100[^]*world 2 · batch 150[^]* saw 9,000 rows in 2 attempts/);
  const seen = (await readFile(path.join(dir.path, "seen.ndjson"), "utf8")).trim().split("\n");
  expect(seen.map((line) => (JSON.parse(line) as { row: number }).row)).toEqual(alone.ids);
});

/** The same training in this process, by `fitDataset`: what the workers have to come to, but for rounding. */
async function trainAlone(
  version: number,
): Promise<{ readonly losses: readonly number[]; readonly ids: readonly number[] }> {
  await using dataset = await group.open(`mnist@v${version}`);
  const ids: number[] = [];
  const map: MapColumns = (columns, context) => {
    ids.push(...context.ids);
    return columns;
  };
  await using loader = dataset.loader({ ...digitColumns, split: "train", shuffle: true, seed: 7, batchSize: 300, map });
  const model = digitModel();
  const losses: number[] = [];
  const onBatchEnd = async (_: number, logs?: tf.Logs): Promise<void> => void losses.push(logs!["loss"]!);
  await model.fitDataset(loader, { epochs: 1, verbose: 0, callbacks: [...loader.fit().callbacks, { onBatchEnd }] });
  model.dispose();
  expect(losses.length).toBe(30);
  return { losses, ids };
}
