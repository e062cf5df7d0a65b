/**
 * What a script is told that imports no backend. Alone in its file: a backend stays registered with its process.
 */
import { expect, test } from "vitest";
import { createLoader } from "../../src/tfjs/index.ts";
import { makeVersion, numberedBatches } from "../loader/support/version.ts";

test("without a backend the first batch is setup_failed, and the next one comes once there is one", async () => {
  await using data = await makeVersion({ splits: { train: numberedBatches(20, 10) } });
  await using loader = createLoader(data.version, { xs: "x", ys: "y", batchSize: 10 });
  const batches = await loader.iterator();
  await expect(batches.next()).rejects.toMatchObject({
    code: "setup_failed",
    message: expect.stringContaining("no TensorFlow.js backend is registered") as string,
    hint: expect.stringContaining("Import @tensorflow/tfjs-node") as string,
  });
  await import("@tensorflow/tfjs-node");
  const { value } = await batches.next();
  expect(value?.offset).toBe(0); // nothing was skipped
  value?.[Symbol.dispose]();
});
