import fc from "fast-check";
import { expect, it } from "vitest";
import { changedShards } from "../../src/cli/changed-shards.ts";
import type { ShardEntry } from "../../src/client/types.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { formatDigest, utf8 } from "../../src/model/bytes.ts";
import { collect } from "../support/collect.ts";

const entry = (name: string, content: number, split = 0): ShardEntry => {
  const digest = formatDigest(hashBytes(utf8(String(content))));
  return { name, split, rows: 1, bytes: 10, digest, segmentIndex: digest };
};

async function* pages(entries: readonly ShardEntry[]) {
  for (let i = 0; i < entries.length; i += 7) yield entries.slice(i, i + 7);
}

const changes = (before: readonly ShardEntry[], after: readonly ShardEntry[], expected: number) =>
  collect(changedShards(pages(before), pages(after), expected));

it("finds what a look at all of both finds, in however many parts", async () => {
  const side = fc.uniqueArray(fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 2 })), {
    selector: ([name]) => name,
  });
  await fc.assert(
    fc.asyncProperty(side, side, async (a, b) => {
      const [before, after] = [a, b].map((list) => list.map(([name, content]) => entry(`s-${name}`, content)));
      const was = new Map(before?.map((e) => [e.name, e.digest]));
      const is = new Map(after?.map((e) => [e.name, e.digest]));
      const expected = [...new Set([...was.keys(), ...is.keys()])].flatMap((name) => {
        if (!is.has(name)) return [`removed ${name}`];
        if (!was.has(name)) return [`added ${name}`];
        return was.get(name) === is.get(name) ? [] : [`changed ${name}`];
      });
      for (const entries of [100, 1_000_000]) {
        const found = await changes(before ?? [], after ?? [], entries);
        expect(found.map(([change, { name }]) => `${change} ${name}`).toSorted()).toEqual(expected.toSorted());
      }
    }),
    { numRuns: 50 },
  );
});

it("keeps the versions' order when one part holds them, and sees another split", async () => {
  const before = [entry("b", 1), entry("a", 1), entry("c", 1)];
  const after = [entry("d", 1), entry("c", 1, 1), entry("a", 2)];
  const found = await changes(before, after, 6);
  expect(found.map(([change, { name }]) => `${change} ${name}`)).toEqual([
    "removed b",
    "changed c",
    "changed a",
    "added d",
  ]);
});
