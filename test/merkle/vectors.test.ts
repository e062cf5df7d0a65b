import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { makeVectors } from "./vectors.ts";

it("formats are frozen: this build makes the bytes and digests of vectors.json", () => {
  const frozen = JSON.parse(readFileSync(new URL("vectors.json", import.meta.url), "utf8")) as { contexts: unknown[] };
  const made = JSON.parse(JSON.stringify(makeVectors())) as typeof frozen;
  // A new context is no new format of the old ones.
  expect(made.contexts).toEqual(expect.arrayContaining(frozen.contexts));
  expect({ ...made, contexts: [] }).toEqual({ ...frozen, contexts: [] });
});
