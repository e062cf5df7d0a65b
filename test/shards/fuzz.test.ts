import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Vector } from "apache-arrow";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isShardpactError } from "../../src/model/errors.ts";
import { decodeSegmentIndex } from "../../src/merkle/segment-index.ts";
import { decodeBatch, decodeDictionaries } from "../../src/shards/decode.ts";
import { scanShard } from "../../src/shards/scan.ts";
import type { ScannedShard } from "../../src/shards/scan-file.ts";
import { schemaFromCanonical } from "../../src/shards/schema.ts";
import { tempDir } from "../support/temp-dir.ts";
import { batchOf, bytesOf, fixture, valuesOf, writeArrowJs } from "./support.ts";

/** Whatever passes the scan decodes, and each of its values can be read. */
function expectReadable(bytes: Uint8Array, scanned: ScannedShard): void {
  const index = decodeSegmentIndex(scanned.index);
  const schema = schemaFromCanonical(scanned.schema);
  const slices = index.segments.map(({ offset, bytes: length }) => bytes.slice(offset, offset + length));
  const only = (kind: string) => slices.filter((_, i) => index.segments[i]?.kind === kind);
  const dictionaries = decodeDictionaries(schema, index, only("dictionary"));
  let rows = 0;
  for (const segment of only("batch")) {
    const batch = decodeBatch(schema, dictionaries, segment);
    rows += batch.numRows;
    if (batch.numRows > 1000) continue; // columns without bytes may have any number of rows
    for (const field of schema.fields) expectValues(batch.getChild(field.name));
  }
  expect(rows).toBe(scanned.rows);
}

/** arrow-js itself refuses to give times beyond 2^53 as numbers; that is a value, not a structure. */
function expectValues(vector: Vector | null): void {
  try {
    valuesOf(vector);
  } catch (error) {
    if (!/not safe to convert/.test(String(error))) throw error;
  }
}

async function scanBytes(path: string, bytes: Uint8Array): Promise<void> {
  await writeFile(path, bytes);
  try {
    expectReadable(bytes, await scanShard(path));
  } catch (error) {
    if (!isShardpactError(error, "shard_malformed") && !isShardpactError(error, "limit_exceeded")) throw error;
  }
}

describe("a file that was changed", () => {
  const seeds = ["pyarrow.arrow", "pyarrow-rich.arrow", "polars.arrow", "arrow-js"];
  it.each(seeds)("is refused or scans to something whole: %s", { timeout: 120_000 }, async (name) => {
    await using folder = await tempDir("fuzz");
    const made = join(folder.path, "seed.arrow");
    const good = await bytesOf(
      name === "arrow-js" ? await writeArrowJs(made, [batchOf(0, 4), batchOf(4, 10)]) : fixture(name),
    );
    const path = join(folder.path, "f.arrow");
    const edit = fc.record({ at: fc.nat(good.length - 1), value: fc.constantFrom(0, 1, 0x7f, 0x80, 0xff, 0x55) });
    const property = fc.asyncProperty(
      fc.array(edit, { minLength: 1, maxLength: 4 }),
      fc.option(fc.nat(good.length), { freq: 8 }),
      async (edits, cut) => {
        const bytes = good.slice(0, cut ?? good.length);
        for (const { at, value } of edits) if (at < bytes.length) bytes[at] = value;
        await scanBytes(path, bytes);
      },
    );
    const before = process.memoryUsage().rss;
    await fc.assert(property, { numRuns: 400 });
    expect(process.memoryUsage().rss - before).toBeLessThan(400 * 1024 * 1024);
  });

  it("in every byte of its footer", { timeout: 60_000 }, async () => {
    await using folder = await tempDir("fuzz");
    const good = await bytesOf(fixture("pyarrow.arrow"));
    const footerBytes = new DataView(good.buffer).getInt32(good.length - 10, true);
    for (let at = good.length - 10 - footerBytes; at < good.length; at += 1) {
      const bytes = good.slice();
      bytes[at] = (bytes[at] ?? 0) ^ 0xff;
      await scanBytes(join(folder.path, "f.arrow"), bytes);
    }
  });
});
