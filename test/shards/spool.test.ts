import { expect, it } from "vitest";
import { openSpool, type SpoolPlace } from "../../src/shards/spool.ts";
import { someBytes } from "../contract/shard-store.ts";

it("gives back what was put, in any order, while more is put", async () => {
  await using spool = await openSpool();
  const sizes = [0, 1, 100, 16_384, 16_385, 262_143, 262_144, 300_000, 7, 5_000];
  const kept: { readonly bytes: Uint8Array; readonly place: SpoolPlace }[] = [];
  for (let round = 0; round < 12; round++) {
    for (const size of sizes) {
      const bytes = someBytes(size, round);
      kept.push({ bytes, place: await spool.put(bytes) });
    }
    const backwards = kept.toReversed();
    const mixed = kept.flatMap((piece, i) => [piece, backwards[i] ?? piece]);
    const found = await Promise.all(mixed.map(({ place }) => spool.read(place)));
    for (const [i, { bytes }] of mixed.entries()) expect(Buffer.compare(found[i] ?? new Uint8Array(1), bytes)).toBe(0);
  }
});
