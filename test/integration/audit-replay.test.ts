/**
 * A run that is checkpointed, goes on, is lost, and is resumed: what the group can say of it afterwards.
 */
import { readFile } from "node:fs/promises";
import path from "node:path";
import * as tf from "@tensorflow/tfjs-node";
import { expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect } from "../../src/index.ts";
import type { Receipt } from "../../src/loader/receipt.ts";
import { SPANS_PER_PART } from "../../src/loader/receipt-log.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { checkpoint, restore } from "../../src/tfjs/index.ts";
import { startCli } from "../cli/run-cli.ts";
import { sql, tinyShard } from "../support/group.ts";
import { tempDir } from "../support/temp-dir.ts";

test("audit replay tells attempts, the path of a model, its rows, and that the bytes are these", async () => {
  await using dir = await tempDir("audit-replay");
  await using local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  await using group = await connect({ url: local.url, onNotice: () => undefined });
  await group.publish("points", await tinyShard(dir.path, "points", 1, 500));
  await using points = await group.open("points@v1");
  const columns = { xs: { x: { shape: [1] } }, ys: { x: { shape: [1] } } } as const;
  const options = {
    ...columns,
    batchSize: 50,
    shuffle: true,
    seed: 3,
    run: { id: "exp-42" },
    receipt: "bytes",
  } as const;
  const model = tf.sequential({ layers: [tf.layers.dense({ units: 1, inputShape: [1], kernelInitializer: "zeros" })] });
  model.compile({ optimizer: "adam", loss: "meanSquaredError" });
  const first = points.loader(options);
  await model.fitDataset(first, { epochs: 2, verbose: 0, ...first.fit() });
  const saved = await checkpoint(path.join(dir.path, "ckpt"), { model, loader: first });
  await model.fitDataset(first, { epochs: 3, verbose: 0, ...first.fit() }); // lost: no checkpoint comes after it
  await first.close();
  const { model: again, loader: second } = await restore(path.join(dir.path, "ckpt"), points, options);
  await again.fitDataset(second, { epochs: 4, verbose: 0, ...second.fit() });
  await second.close();

  const run = (...argv: string[]) =>
    startCli(["audit", "replay", "exp-42", ...argv], { cwd: dir.path, env: { SHARDPACT_URL: local.url } });
  const told = await run("--bytes", "--rows", "seen.ndjson");
  expect(told.code, told.stderr).toBe(0);
  expect(told.stdout).toMatch(/zero .* epoch 3 \+ 0 +1,500 +✓[^]* epoch 4 \+ 0 +1,000 +✓/);
  expect(told.stdout.match(/✓ b3:/g)).toHaveLength(2); // the bytes, gathered again
  expect((await run()).stdout).not.toMatch(/✓ b3:/); // which nobody asked for
  expect(told.stdout).toContain("the last attempt's model saw 2,000 rows in 2 attempts");
  const nowhere = await run("--rows", path.join(dir.path, "no", "folder"));
  expect([nowhere.code, nowhere.stderr]).toEqual([4, expect.stringMatching(/cannot be written[^]*store_failed/)]);
  const seen = (await readFile(path.join(dir.path, "seen.ndjson"), "utf8")).trim().split("\n");
  const rows = seen.map((line) => JSON.parse(line) as { epoch: number; position: number; row: number });
  expect(rows.map(({ epoch }) => epoch)).toEqual([0, 1, 2, 3].flatMap((epoch) => Array<number>(500).fill(epoch)));
  expect(new Set(rows.slice(0, 500).map(({ row }) => row)).size).toBe(500);
  expect((await run("--checkpoint", saved)).stdout).toContain(`saw 1,000 rows in 1 attempt`);
  const another = saved.startsWith("b3:0") ? "b3:1" : "b3:0"; // the start of a digest names it
  expect((await run("--checkpoint", another)).code).toBe(3);
});

test(
  "a run that moved through more versions than an entry of the log holds is replayed whole",
  { timeout: 300_000 },
  async () => {
    await using dir = await tempDir("audit-replay-long");
    await using local = await startLocalGroup({ dir: path.join(dir.path, "group") });
    await local.waitForLeader();
    await using group = await connect({ url: local.url, onNotice: () => undefined });
    const publish = async (version: number): Promise<void> =>
      void (await group.publish(
        "points",
        await tinyShard(path.join(dir.path, "points"), `part-${version}`, version, 8),
      ));
    await publish(1);
    await using points = await group.open("points@v1");
    const options = { xs: { x: { shape: [1] } }, batchSize: 8, seed: 3, receipt: "bytes", follow: true } as const;
    const loader = points.loader({ ...options, run: { id: "long" } });
    const versions = SPANS_PER_PART + 5;
    for (let version = 1; version <= versions; version++) {
      for await (const batch of await loader.iterator()) {
        batch.ack();
        tf.dispose([batch.xs]);
      }
      if (version < versions) await publish(version + 1);
    }
    await loader.close();
    const told = await startCli(["audit", "replay", "long", "--bytes", "--json"], {
      ...{ cwd: dir.path, env: { SHARDPACT_URL: local.url }, timeoutMs: 120_000 },
    });
    expect(told.code, told.stdout + told.stderr).toBe(0);
    const { attempts, rows, findings } = JSON.parse(told.stdout) as {
      readonly attempts: readonly { readonly last: Receipt }[];
      readonly rows: number;
      readonly findings: unknown[];
    };
    expect([rows, findings]).toEqual([versions * 8, []]);
    expect(attempts.map(({ last }) => last.spans.length)).toEqual([versions]);
    const [{ postgresUrl }] = local.replicas as [LocalGroup["replicas"][number]];
    const kinds = await sql(
      postgresUrl,
      "select coalesce(receipt->>'kind', 'whole') as kind, max(length(receipt::text)) as bytes from shardpact.receipts group by 1",
    );
    expect(kinds.map(({ kind }) => kind).sort()).toEqual(["part", "receipt", "whole"]); // whole: while it was short
    for (const { bytes } of kinds) expect(Number(bytes)).toBeLessThan(LIMITS.commandBytesMax / 2);
  },
);
