/**
 * Trains one model with N worker processes: each confirms the same version, reads its own rank's rows, and averages its
 * gradient with the others' over NATS before each step. One of them is killed on the way; the others notice and stop, and
 * those that are left go on from the last checkpoint. Then shows that the model saw the rows that one process alone
 * would have seen, in that order.
 * Run: npx tsx examples/many-workers.ts --workers 3
 */
import { randomUUID } from "node:crypto";
import path from "node:path";
import { parseArgs } from "node:util";
import { digitColumns } from "./support/digit-model.ts"; // loads TensorFlow
import { writeDigits } from "./support/digits.ts";
import { createLogbook } from "./support/logbook.ts";
import { runWorkers } from "./support/run-workers.ts";
import { withGroup } from "./support/with-group.ts";

const { values: given } = parseArgs({
  options: {
    workers: { type: "string", default: "3" },
    /** Rows of a step, of all workers together: the same for any number of them. */
    rows: { type: "string", default: "300" },
    epochs: { type: "string", default: "1" },
    /** RANK@STEP: this worker is killed once it has done that step. `none`: nobody. */
    kill: { type: "string", default: "1@12" },
    "checkpoint-steps": { type: "string", default: "5" },
    "step-timeout-ms": { type: "string", default: "5000" },
  },
});
const [workers, stepRows, epochs] = [Number(given.workers), Number(given.rows), Number(given.epochs)];
const order = { ...digitColumns, split: "train", shuffle: true, seed: 7 } as const;
const ATTEMPTS_MAX = 5;
if (stepRows % workers !== 0)
  throw new Error(`${stepRows} rows of a step can't be shared out equally to ${workers} workers`);

await withGroup(async (group, scratchDir, reach) => {
  const { version } = await group.publish("mnist", await writeDigits(path.join(scratchDir, "digits")));
  const dataset = await group.open(`mnist@v${version}`);
  const alone = dataset.loader({ ...order, batchSize: stepRows, last: "drop" });
  const steps = alone.size * epochs;
  console.log(`mnist@v${version} has ${dataset.splits["train"]} rows to train on: ${steps} steps of ${stepRows}`);

  const logbook = createLogbook();
  const name = `many-workers-${randomUUID().slice(0, 8)}`;
  let world = workers;
  for (let attempt = 1; ; attempt++) {
    if (world === 0 || attempt > ATTEMPTS_MAX) throw new Error(`gave up after attempt ${attempt - 1}`);
    while (stepRows % world !== 0) world--; // equal shares
    const run = group.run({ id: `${name}-${attempt}` }); // another world size is another run
    console.log(
      `\nattempt ${attempt}, run ${run.id}: ${world} ${world === 1 ? "worker" : "workers"}, ${stepRows / world} rows of a step each`,
    );
    const outcome = await runWorkers({
      group: reach.options,
      servers: reach.servers,
      attempt: randomUUID(),
      dataset: `mnist@v${version}`,
      run: run.id,
      ...{ world, batchSize: stepRows / world, epochs },
      checkpointDir: path.join(scratchDir, "checkpoint"),
      checkpointSteps: Number(given["checkpoint-steps"]),
      joinTimeoutMs: 60_000,
      stepTimeoutMs: Number(given["step-timeout-ms"]),
      kill: attempt === 1 ? given.kill : "none",
      onStep: (step) => logbook.add(attempt, step),
    });
    await run.end(outcome.isDone ? "done" : "failed").catch(() => undefined); // no worker may have begun it
    if (outcome.isDone) break;
    world = outcome.fit;
  }

  // What one process alone reads, against what the workers trained on.
  const expected: number[] = [];
  for (let epoch = 0; epoch < epochs; epoch++)
    for await (const batch of alone) {
      expected.push(...batch.ids);
      batch[Symbol.dispose]();
    }
  await alone.close();
  console.log(`\n${logbook.story().join("\n")}`);
  const seen = logbook.ids();
  const equal = seen.filter((id, position) => id === expected[position]).length;
  console.log(
    `one process alone reads ${expected.length} rows; the model saw ${seen.length}; equal at ${equal} positions`,
  );
  if (equal !== expected.length || seen.length !== expected.length) throw new Error("the order differs");
  await dataset.close();
});
