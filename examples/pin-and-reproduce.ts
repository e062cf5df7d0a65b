/**
 * Pins a version to a run, lets the dataset move on, and trains again from the lock file: the same version, the same
 * bytes in the same order. Then shows that a lock is refused by a group that does not hold its history.
 * Run: npx tsx examples/pin-and-reproduce.ts
 */
import path from "node:path";
import type { Group } from "shardpact";
import { digitColumns } from "./support/digit-model.ts";
import { writeDigits } from "./support/digits.ts";
import { withGroup } from "./support/with-group.ts";

/** Reads one epoch as a training script would; resolves with the digest of the bytes that it was given. */
async function bytesOfOneEpoch(group: Group, lock: string): Promise<{ version: number; digest: unknown }> {
  const dataset = await group.open({ lock, name: "mnist" });
  const loader = dataset.loader({
    ...digitColumns,
    batchSize: 128,
    split: "train",
    shuffle: true,
    seed: 7,
    receipt: "bytes",
  });
  try {
    for await (const batch of loader) {
      batch.ack();
      batch[Symbol.dispose]();
    }
    return { version: dataset.version, digest: loader.receipt().bytesDigest };
  } finally {
    await loader.close();
    await dataset.close();
  }
}

await withGroup(async (group, scratchDir) => {
  const lock = path.join(scratchDir, "shardpact.lock");
  const v1 = await group.publish("mnist", await writeDigits(path.join(scratchDir, "v1")));
  const pinned = await group.open(`mnist@v${v1.version}`);
  await pinned.pin({ run: "exp-42", note: "baseline" }); // the group remembers: garbage collection respects it
  await pinned.lock(lock); // this file goes into git
  const first = await bytesOfOneEpoch(group, lock);

  const v2 = await group.publish("mnist", await writeDigits(path.join(scratchDir, "v2"), 500));
  const again = await bytesOfOneEpoch(group, lock);
  console.log(`the head is v${v2.version}; the lock gave v${first.version} before and v${again.version} after`);
  console.log(`bytes digest before ${String(first.digest)}\nbytes digest after  ${String(again.digest)}`);
  if (first.digest !== again.digest || first.version !== again.version)
    throw new Error("the lock did not reproduce the run");
});
