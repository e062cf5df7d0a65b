/**
 * Trains a small convnet on 10,000 real digits through a loader that confirmed `mnist@v1` with a majority first.
 * Run: npx tsx examples/train-mnist.ts
 */
import path from "node:path";
import { digitColumns, digitModel } from "./support/digit-model.ts";
import { writeDigits } from "./support/digits.ts";
import { withGroup } from "./support/with-group.ts";

const ACCURACY_MIN = 0.95;

await withGroup(async (group, scratchDir) => {
  const { version } = await group.publish("mnist", await writeDigits(path.join(scratchDir, "digits")));
  const mnist = await group.open(`mnist@v${version}`); // a majority confirmed it, or this throws
  const train = mnist.loader({ ...digitColumns, batchSize: 64, split: "train", shuffle: true, seed: 7 });
  const val = mnist.evaluation({ ...digitColumns, batchSize: 250, split: "val" });
  const model = digitModel();
  try {
    const history = await model.fitDataset(train, { epochs: 3, validationData: val, verbose: 0, ...train.fit() });
    const accuracies = history.history["val_acc"] as number[];
    const last = accuracies.at(-1) ?? 0;
    console.log(`held-out accuracy by epoch: ${accuracies.map((a) => a.toFixed(3)).join(" ")}`);
    console.log(`receipt: ${JSON.stringify(train.receipt())}`);
    if (last < ACCURACY_MIN) throw new Error(`accuracy ${last} is below ${ACCURACY_MIN}`);
  } finally {
    await train.close();
    await val.close();
    await mnist.close();
    model.dispose();
  }
});
