/**
 * A training process is killed with SIGKILL in the middle of an epoch. Another one goes on from the last checkpoint, with
 * model, optimizer and cursor as they were: nothing is skipped, and what was trained after the checkpoint comes again.
 * Run: npx tsx examples/resume-after-a-kill.ts
 */
import { type ChildProcess, fork } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import "./support/quiet.ts";
import * as tf from "@tensorflow/tfjs-node";
import { connect, type ConnectOptions, type Receipt } from "shardpact";
import { checkpoint, restore } from "shardpact/tfjs";
import { digitColumns, digitModel } from "./support/digit-model.ts";
import { writeDigits } from "./support/digits.ts";
import { withGroup } from "./support/with-group.ts";

const EPOCHS = 2;
const CHECKPOINT_STEPS = 25;
const KILL_AT = { epoch: 1, offset: 4_000 };

/** What the training process tells the one that started it. */
interface Told {
  readonly epoch: number;
  readonly offset: number;
  /** Of the last checkpoint, or at the end. */
  readonly receipt: Receipt | null;
}

/** The training script: it does not know whether it is the first. */
async function train(where: ConnectOptions, dir: string): Promise<void> {
  await using group = await connect(where);
  const mnist = await group.open("mnist@v1");
  const options = { ...digitColumns, batchSize: 64, split: "train", shuffle: true, seed: 7 } as const;
  const { model, loader } = existsSync(path.join(dir, "latest"))
    ? await restore(dir, mnist, options)
    : { model: digitModel(), loader: mnist.loader(options) };
  let steps = 0;
  while (loader.state().epoch < EPOCHS) {
    for await (const batch of loader) {
      await model.trainOnBatch(batch.xs as tf.Tensor, batch.ys as tf.Tensor);
      batch.ack(); // it counts from here on
      batch[Symbol.dispose]();
      const saved = ++steps % CHECKPOINT_STEPS === 0;
      if (saved) await checkpoint(dir, { model, loader });
      process.send?.({ epoch: batch.epoch, offset: batch.offset, receipt: saved ? loader.receipt() : null });
    }
  }
  const val = mnist.evaluation({ ...digitColumns, batchSize: 250, split: "val" });
  const [, accuracy] = (await model.evaluateDataset(val as never, {})) as tf.Scalar[];
  console.log(`held-out accuracy: ${accuracy!.dataSync()[0]!.toFixed(3)}`);
  process.send?.({ epoch: EPOCHS, offset: 0, receipt: loader.receipt() });
  await val.close();
  await loader.close();
}

/** Runs the script until it ends, or until it is killed; resolves with the last receipt that it told. */
async function attempt(where: ConnectOptions, dir: string, kill: typeof KILL_AT | null): Promise<Receipt> {
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), [JSON.stringify(where), dir]);
  let last: Receipt | null = null;
  child.on("message", ({ epoch, offset, receipt }: Told) => {
    last = receipt ?? last;
    if (kill === null || epoch !== kill.epoch || offset < kill.offset || child.killed) return;
    console.log(`killed in epoch ${epoch} after ${offset} samples`);
    child.kill("SIGKILL");
  });
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
    child.on("exit", (...how) => resolve(how)),
  );
  if (last === null || (kill === null ? code !== 0 : signal !== "SIGKILL"))
    throw new Error(`it ended with ${code ?? signal}`);
  return last;
}

const spansOf = ({ spans }: Receipt): string =>
  spans.map(({ epoch, from, to }) => `epoch ${epoch} samples ${from} to ${to}`).join(", ");

const [where, dir] = process.argv.slice(2);
if (where !== undefined && dir !== undefined) await train(JSON.parse(where) as ConnectOptions, dir);
else {
  await withGroup(async (group, scratchDir, { options }) => {
    await group.publish("mnist", await writeDigits(path.join(scratchDir, "digits")));
    const folder = path.join(scratchDir, "checkpoints");
    const before = await attempt(options, folder, KILL_AT);
    console.log(`the last checkpoint holds ${spansOf(before)}`);
    const after = await attempt(options, folder, null);
    console.log(`the second process trained ${spansOf(after)}`);
    const [end, start] = [before.spans.at(-1), after.spans[0]];
    if (end?.epoch !== start?.epoch || end?.to !== start?.from) throw new Error("samples were skipped or repeated");
    console.log("nothing skipped, nothing repeated");
  });
}
