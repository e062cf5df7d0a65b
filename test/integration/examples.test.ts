/**
 * Every example runs as a user would run it, in a process of its own, and says what it promises.
 */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import { connect } from "../../src/index.ts";
import { sql, tinyShard } from "../support/group.ts";
import { EXAMPLES, runExample, SOURCE_NODE_ARGS } from "../support/run-example.ts";
import { tempDir } from "../support/temp-dir.ts";

test("train-mnist reaches 95 % on held-out digits", async () => {
  expect(await runExample("train-mnist.ts")).toMatch(/held-out accuracy by epoch: .*0\.9[5-9]/);
});

test("train-flights fits a regression on a file published as it is", async () => {
  const out = await runExample("train-flights.ts");
  expect(out).toContain('{"train":180000,"val":20000}');
  const losses = /by epoch: (.*)/.exec(out)![1]!.split(" ").map(Number);
  expect(losses.at(-1)).toBeLessThan(Number(/predicting the mean: (\d+)/.exec(out)![1]));
});

test("train-from-csv learns a class from numbers and days, held out by day", async () => {
  const out = await runExample("train-from-csv.ts");
  expect(out).toContain("classes drizzle fog rain snow sun");
  expect(Number(/held-out accuracy: (\S+)/.exec(out)![1])).toBeGreaterThan(0.6);
});

test("train-on-images learns from a folder of PNG files", async () => {
  const out = await runExample("train-on-images.ts");
  expect(out).toContain('pictures@v1: {"train":2000,"val":500}');
  expect(Number(/held-out accuracy: (\S+)/.exec(out)![1])).toBeGreaterThan(0.85);
});

test("resume-after-a-kill goes on where the checkpoint stands", async () => {
  const out = await runExample("resume-after-a-kill.ts");
  const [, saved] = /the last checkpoint holds .*epoch 1 samples 0 to (\d+)/.exec(out)!;
  expect(out).toContain(`the second process trained epoch 1 samples ${saved} to 9000`);
  expect(out).toContain("nothing skipped, nothing repeated");
});

test("pin-and-reproduce gets the same bytes from the lock after the dataset moved on", async () => {
  const out = await runExample("pin-and-reproduce.ts");
  expect(out).toContain("the head is v2; the lock gave v1 before and v1 after");
});

test("the quickstart tells its whole story, as `npm run quickstart` starts it: all from the sources", async () => {
  const out = await runExample("quickstart.ts", [], {}, SOURCE_NODE_ARGS);
  for (const part of ["leads", "mnist@v1", "accuracy", "(equal)", "refuses", "nothing lost", "stopped"])
    expect(out).toContain(part);
});

test("audit.sql runs from its first to its last statement", async () => {
  await using dir = await tempDir("audit");
  await using local = await startLocalGroup({ dir: path.join(dir.path, "group") });
  await local.waitForLeader();
  await using group = await connect(local.url);
  const v1 = await group.publish("mnist", await tinyShard(dir.path, "a", 1));
  await group.publish("mnist", await tinyShard(dir.path, "b", 2));
  await group.tag("mnist", "prod", v1.version);
  await sql(local.replicas[0]!.postgresUrl, await readFile(path.join(EXAMPLES, "audit.sql"), "utf8"));
});
