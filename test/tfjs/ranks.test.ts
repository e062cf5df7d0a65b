/**
 * Which rank a loader takes itself for: two that are both the first train on the same rows.
 */
import "@tensorflow/tfjs-node";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import type { LoaderOptions } from "../../src/loader/host-loader.ts";
import { createLoader } from "../../src/tfjs/loader.ts";
import { makeVersion, numberedBatches, type TestVersion } from "../loader/support/version.ts";

let data: TestVersion;
beforeAll(async () => {
  data = await makeVersion({ splits: { train: numberedBatches(40, 8) } });
});
afterAll(() => data.close());
afterEach(() => vi.unstubAllEnvs());

async function firstRows(o: Partial<LoaderOptions>): Promise<number[]> {
  await using loader = createLoader(data.version, { xs: "x", batchSize: 4, ...o });
  for await (const batch of loader) {
    batch[Symbol.dispose]();
    return [...batch.ids];
  }
  return [];
}

const [FIRST, SECOND] = [
  [0, 1, 2, 3],
  [4, 5, 6, 7],
];

test("the environment says what the caller leaves open, one by one", async () => {
  expect(await firstRows({})).toEqual(FIRST);
  vi.stubEnv("RANK", "1");
  expect(await firstRows({})).toEqual(FIRST); // of one
  expect(await firstRows({ world: 2 })).toEqual(SECOND);
  vi.stubEnv("WORLD_SIZE", "2");
  expect(await firstRows({})).toEqual(SECOND);
  expect(await firstRows({ world: undefined, rank: undefined } as never)).toEqual(SECOND);
  expect(await firstRows({ rank: 0 })).toEqual(FIRST);
  expect(await firstRows({ world: 1 })).toEqual(FIRST);
});

test("of several ranks none is taken for the first because nobody said which it is", () => {
  const make = (o: Partial<LoaderOptions>) => createLoader(data.version, { xs: "x", batchSize: 4, ...o });
  vi.stubEnv("RANK", undefined);
  vi.stubEnv("WORLD_SIZE", undefined);
  expect(() => make({ world: 2 })).toThrow(/which of its ranks/);
  vi.stubEnv("WORLD_SIZE", "2");
  expect(() => make({})).toThrow(/which of its ranks/);
  vi.stubEnv("RANK", "two");
  expect(() => make({})).toThrow(/rank must be/);
});
