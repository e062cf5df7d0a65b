import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { utf8 } from "../../src/model/bytes.ts";
import { scanShard } from "../../src/shards/scan.ts";
import { canonicalSchema, firstSchemaDifference, schemaFromCanonical } from "../../src/shards/schema.ts";
import { tempDir } from "../support/temp-dir.ts";
import { batchOf, fixture, writeArrowJs } from "./support.ts";

const schemaOf = async (name: string) => (await scanShard(fixture(name))).schema;

describe("the canonical schema", () => {
  it("is equal for arrow-js and pyarrow, whatever they name list items and note for themselves", async () => {
    await using folder = await tempDir("schema");
    const path = await writeArrowJs(join(folder.path, "a.arrow"), [batchOf(0, 10)]);
    const { schema } = await scanShard(path);
    expect(firstSchemaDifference(schema, await schemaOf("pyarrow.arrow"))).toBeNull();
    expect(await schemaOf("pyarrow-pandas.arrow")).toEqual(schema);
    expect(canonicalSchema(batchOf(0, 1).schema)).toEqual(schema);
  });

  it("names the first column that differs, where polars has other types", async () => {
    const difference = firstSchemaDifference(await schemaOf("pyarrow.arrow"), await schemaOf("polars.arrow"));
    expect(difference).toEqual({ field: "name", a: "name: utf8", b: "name: utf8_view" });
  });

  it.each(["pyarrow.arrow", "pyarrow-rich.arrow", "polars.arrow"])(
    "goes through arrow-js and back: %s",
    async (name) => {
      const bytes = await schemaOf(name);
      const schema = schemaFromCanonical(bytes);
      expect(canonicalSchema(schema)).toEqual(bytes);
      expect([...schema.dictionaries.keys()]).toEqual([...schema.dictionaries.keys()].map((_, i) => i));
    },
  );

  it("refuses bytes that it would not write", async () => {
    const bytes = await schemaOf("pyarrow.arrow");
    const text = new TextDecoder().decode(bytes);
    const refused = [
      "",
      "{}",
      ` ${text}`,
      text.replace('"nullable":true', '"nullable":1'),
      text.replace('"name":"x"', '"name":"id"'),
      text.replace('"kind":"utf8"', '"kind":"utf9"'),
      text.replace('"name":"item"', '"name":"else"'),
      `{"fields":${"[".repeat(50_000)}`,
    ];
    for (const other of refused) {
      expect(() => schemaFromCanonical(utf8(other))).toThrowError(expect.objectContaining({ code: "damaged" }));
    }
  });
});
