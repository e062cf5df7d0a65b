/**
 * Many workers on one model while publishing goes on: all move to the same version at the same epoch; one is killed on the way,
 * and fewer go on from the last checkpoint, on the rows that one process alone would have read.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { digitColumns } from "../../examples/support/digit-model.ts";
import { arrowFileOf, readDigits } from "../../examples/support/digits.ts";
import type { WorkerConfig, WorkerReport } from "../../examples/support/worker.ts";
import { startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect, type Group } from "../../src/index.ts";
import { startCli } from "../cli/run-cli.ts";
import { sql, waitForAgreement } from "../support/group.ts";
import { tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";
import { startWorkerProcess, type StartedWorker } from "../support/worker-process.ts";

/** Rows of a step, of all workers together. */
const STEP_ROWS = 120;
const EPOCHS = 5;
const VERSIONS_MAX = 12;
/** Rows to train on: each version has one more step in an epoch. */
const rowsOf = (version: number): number => (2 + version) * STEP_ROWS;

type Step = Extract<WorkerReport, { kind: "step" }>;
const stepsOf = ({ reports }: StartedWorker): Step[] => reports.filter((report) => report.kind === "step");

async function publishDigits(group: Group, dir: string, version: number): Promise<void> {
  const digits = await readDigits();
  const source = path.join(dir, `digits-${version}`);
  for (const [split, from, count] of [
    ["train", 0, rowsOf(version)],
    ["val", 9_000, 250],
  ] as const) {
    await mkdir(path.join(source, split), { recursive: true });
    const rows = Array.from({ length: count }, (_, i) => from + i);
    await writeFile(path.join(source, split, "digits.arrow"), await arrowFileOf(digits, rows));
  }
  const published = await group.publish("digits", source, { timeoutMs: 60_000 });
  expect(published.version).toBe(version);
}

/** What one process alone reads in an epoch of a version. */
async function readAlone(group: Group, ref: string, epoch: number): Promise<number[]> {
  await using dataset = await group.open(ref);
  const order = {
    ...digitColumns,
    split: "train",
    shuffle: true,
    seed: 7,
    batchSize: STEP_ROWS,
    last: "drop",
  } as const;
  const fresh = dataset.loader(order);
  await using loader = dataset.loader({ ...order, resume: { ...fresh.state(), epoch } });
  await fresh.close();
  const ids: number[] = [];
  for await (const batch of await loader.iterator()) {
    ids.push(...batch.ids);
    batch[Symbol.dispose]();
  }
  return ids;
}

test("workers move together, and fewer go on after one was killed", { timeout: 400_000 }, async () => {
  await using dir = await tempDir("follow-workers");
  await using local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  await using group = await connect({ url: local.url, onNotice: () => undefined });
  await publishDigits(group, dir.path, 1);

  const start = (run: string, attempt: string, world: number): StartedWorker[] =>
    Array.from({ length: world }, (_, rank) => {
      const config: WorkerConfig = {
        ...{ group: { url: local.url }, servers: [local.url], dataset: "digits@v1", run, follow: true },
        ...{ attempt, rank, world, batchSize: STEP_ROWS / world, epochs: EPOCHS },
        ...{ checkpointDir: path.join(dir.path, "checkpoint"), checkpointSteps: 2 },
        ...{ joinTimeoutMs: 90_000, stepTimeoutMs: 20_000 },
      };
      return startWorkerProcess(config);
    });
  let published = 1;
  let isTraining = true;
  const publishing = (async () => {
    while (isTraining && published < VERSIONS_MAX) {
      await publishDigits(group, dir.path, published + 1);
      published++;
      await sleep(1_000);
    }
  })();

  const first = start("digits-a", randomUUID(), 3);
  const killed = first[1] as StartedWorker;
  // In the middle of an epoch after the first move.
  const isDue = ({ epoch, offset }: Step): boolean => epoch >= 2 && offset > 0;
  await waitFor(() => (stepsOf(killed).some(isDue) ? true : null), { timeoutMs: 150_000, what: "epoch 2" });
  killed.child.kill("SIGKILL");
  const left = first.filter((worker) => worker !== killed);
  for (const { peer } of await Promise.all(left.map((worker) => worker.until("stopped")))) expect(peer).toBe(1);
  const second = start("digits-b", randomUUID(), 2);
  const ends = await Promise.all(second.map((worker) => worker.until("done")));
  isTraining = false;
  await publishing;
  expect(ends[0]?.weights).toBe(ends[1]?.weights);

  // Each step has one version and the same rows on all workers; the second attempt's steps replace the first one's.
  const [from] = stepsOf(second[0] as StartedWorker) as [Step];
  const isBefore = (step: Step): boolean =>
    step.epoch < from.epoch || (step.epoch === from.epoch && step.offset < from.offset);
  const told = (workers: readonly StartedWorker[], wanted: (step: Step) => boolean): Map<string, Step> => {
    const steps = new Map<string, Step>();
    for (const step of workers.flatMap(stepsOf).filter(wanted)) {
      const { dataset, ids } = steps.get(`${step.epoch} ${step.offset}`) ?? step;
      expect([step.dataset, step.ids]).toEqual([dataset, ids]);
      steps.set(`${step.epoch} ${step.offset}`, step);
    }
    return steps;
  };
  const model = [...told(first, isBefore).values(), ...told(second, () => true).values()];
  const versions: string[] = [];
  const expected: number[] = [];
  for (let epoch = 0; epoch < EPOCHS; epoch++) {
    const own = model.filter((step) => step.epoch === epoch).sort((a, b) => a.offset - b.offset);
    const [dataset = "", ...others] = new Set(own.map((step) => step.dataset));
    expect(others, `epoch ${epoch}`).toEqual([]);
    const alone = await readAlone(group, dataset, epoch);
    expect(
      own.flatMap(({ ids }) => ids),
      `epoch ${epoch} on ${dataset}`,
    ).toEqual(alone);
    versions.push(dataset);
    expected.push(...alone);
  }
  expect(versions[0]).toBe("digits@v1");
  expect(new Set(versions).size).toBeGreaterThanOrEqual(3);

  // The log agrees: each run's epochs, and what the model saw over both.
  await waitForAgreement(local);
  for (const { postgresUrl } of local.replicas) {
    const query = "select run, epoch, version from shardpact.v_run_epochs where run = 'digits-b' order by epoch";
    for (const { epoch, version } of await sql(postgresUrl, query))
      if (Number(epoch) < EPOCHS) expect(`digits@v${version}`).toBe(versions[Number(epoch)]);
  }
  const argv = ["audit", "replay", "digits-a", "digits-b", "--rows", "seen.ndjson"];
  const replay = await startCli(argv, { cwd: dir.path, env: { SHARDPACT_URL: local.url } });
  expect(replay.code, replay.stdout + replay.stderr).toBe(0);
  const seen = (await readFile(path.join(dir.path, "seen.ndjson"), "utf8")).trim().split("\n");
  expect(seen.map((line) => (JSON.parse(line) as { row: number }).row)).toEqual(expected);
});
