/**
 * Tables as people have them: lines that do not fit, files that differ, values that DuckDB would change. All of it comes, or an
 * error says what does not; nothing is left out in silence.
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import {
  type DataType,
  Dictionary,
  Field,
  Float64,
  Int8,
  LargeUtf8,
  List,
  makeVector,
  Table,
  tableFromIPC,
  tableToIPC,
  Utf8,
  Utf8View,
} from "apache-arrow";
import { describe, expect, it } from "vitest";
import { type ImportOptions, importSources } from "../../src/import/import.ts";
import { dataOf, type Cell } from "../loader/support/arrow-data.ts";
import { tempDir } from "../support/temp-dir.ts";

type Files = Readonly<Record<string, string | Uint8Array>>;

/** What comes of some files in a folder: rows, or the error. */
async function importFiles(files: Files, more: Partial<ImportOptions> = {}) {
  await using dir = await tempDir("import");
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir.path, name)), { recursive: true });
    await writeFile(join(dir.path, name), content);
  }
  return await importFolder(dir.path, more);
}

async function importFolder(folder: string, more: Partial<ImportOptions> = {}) {
  const warnings: string[] = [];
  const options = { sources: [folder], onWarning: (text: string) => void warnings.push(text), ...more };
  await using made = await importSources(options);
  const train = join(made.folder, "train");
  const parts = await Promise.all((await readdir(train)).sort().map((name) => readFile(join(train, name))));
  const table = parts.map((bytes) => tableFromIPC(bytes)).reduce((all: Table, part) => all.concat(part));
  const rows = table.toArray().map((row) => JSON.parse(JSON.stringify(row, jsonOf)) as Record<string, unknown>);
  return { table, rows, warnings };
}

const jsonOf = (_: string, value: unknown): unknown => (typeof value === "bigint" ? Number(value) : value);

async function parquet(folder: string, selects: Readonly<Record<string, string>>): Promise<void> {
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  for (const [name, select] of Object.entries(selects)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await connection.run(`copy (${select}) to '${join(folder, name)}' (format parquet, row_group_size 2048)`);
  }
  connection.closeSync();
  instance.closeSync();
}

const lines = (count: number, changed: Readonly<Record<number, string>>): string =>
  Array.from({ length: count }, (_, i) => `${changed[i] ?? `${i},${i}`}\n`).join("");

describe("rows after which something is wrong are not left out", () => {
  it.each([
    ["CSV, a field too many", "a.csv", lines(60_000, { 0: "a,b", 50_000: "5,6,7" })],
    ["CSV, a field too few", "a.csv", lines(60_000, { 0: "a,b", 50_000: "5" })],
    ["CSV, a quote that does not end", "a.csv", lines(60_000, { 0: "a,b", 50_000: '5,"6' })],
    ["CSV, no UTF-8", "a.csv", new Uint8Array(Buffer.from(lines(60_000, { 0: "a,b", 50_000: "5,\xff" }), "latin1"))],
    ["NDJSON, half a line", "a.ndjson", `${'{"a":1}\n'.repeat(60_000)}{"a":\n${'{"a":1}\n'.repeat(10)}`],
  ])("%s", async (_, name, content) => {
    await expect(importFiles({ [name]: content })).rejects.toMatchObject({
      code: "shard_malformed",
      message: expect.stringContaining(name) as string,
    });
  });

  it("Parquet whose later bytes are damaged", async () => {
    await using dir = await tempDir("import");
    await parquet(dir.path, { "a.parquet": "select range as a, 'text ' || range as b from range(60000)" });
    const path = join(dir.path, "a.parquet");
    const bytes = await readFile(path);
    await writeFile(path, bytes.fill(0, bytes.byteLength / 2, bytes.byteLength / 2 + 4000));
    await expect(importFolder(dir.path)).rejects.toMatchObject({ code: "shard_malformed" });
  });

  it("values that a type given for them does not hold", async () => {
    const files = { "a.csv": lines(60_000, { 0: "a,b", 50_000: "5,x" }) };
    await expect(importFiles(files, { types: { b: "INTEGER" } })).rejects.toMatchObject({ code: "shard_malformed" });
  });
});

describe("CSV", () => {
  it.each([
    ["lines of other lengths at the start", "a,b\n1,2\n3\n4,5,6\n"],
    ["a title", "Export of 2024\n\na,b\n1,2\n3,4\n"],
    ["a comment", "#by hand\na,b\n1,2\n3,4\n"],
    ["a quote that does not end", 'a,b\n1,2\n3,"4\n5,6\n'],
  ])("%s: refused, not skipped", async (_, content) => {
    await expect(importFiles({ "a.csv": content })).rejects.toMatchObject({
      code: "shard_malformed",
      message: expect.stringContaining("a.csv") as string,
    });
  });

  it("texts that look like comments, quotes or delimiters are texts", async () => {
    const { rows } = await importFiles({ "a.csv": `\ufefftag,n\n#love,1\n'tis,2\n"a, ""b""\nc",3\n` });
    expect(rows).toEqual([
      { tag: "#love", n: 1 },
      { tag: "'tis", n: 2 },
      { tag: 'a, "b"\nc', n: 3 },
    ]);
    expect((await importFiles({ "a.csv": "text\nHello, world\nfoo\n" })).rows).toHaveLength(2);
  });

  it("types come from all files, columns by name; a file without a byte is none", async () => {
    const many = Object.fromEntries(Array.from({ length: 14 }, (_, i) => [`${10 + i}.csv`, "a,b\n1,2\n"]));
    const { rows } = await importFiles({ ...many, "25.csv": "a,b\n7,2.5\n", "26.csv": "" });
    expect(rows).toHaveLength(15);
    expect(rows.at(-1)).toEqual({ a: 7, b: 2.5 });
    const swapped = await importFiles({ "1.csv": "a,b\n1,2\n", "2.csv": "b,a\n20,10\n" });
    expect(swapped.rows.at(-1)).toEqual({ a: 10, b: 20 });
  });

  it("whole numbers that a double rounds are told", async () => {
    const files = { "a.csv": "id\n18446744073709551615\n18446744073709551614\n" };
    const { warnings } = await importFiles(files);
    expect(warnings).toEqual([expect.stringContaining("'id'")]);
    const named = await importFiles(files, { types: { id: "UBIGINT" } });
    expect(named.warnings).toEqual([]);
    expect(named.table.getChildAt(0)?.get(0)).toBe(18446744073709551615n);
    expect((await importFiles({ "a.csv": "x\n0.5\n1e300\n\n2\n" })).warnings).toHaveLength(1);
    expect((await importFiles({ "a.csv": "x\n0.5\n1e15\n2\n" })).warnings).toEqual([]);
  });
});

describe("files of one table", () => {
  it.each([
    ["another column", "select 1 as a, 2 as c"],
    ["a column more", "select 1 as a, 2 as b, 3 as c"],
    ["a column less", "select 1 as a"],
    ["a wider type, whose values would be rounded", "select 1.5::double as a, 2 as b"],
    ["a text", "select '1' as a, 2 as b"],
  ])("Parquet, %s: refused", async (_, select) => {
    await using dir = await tempDir("import");
    await parquet(dir.path, { "1.parquet": "select 1 as a, 2 as b", "2.parquet": select });
    await expect(importFolder(dir.path)).rejects.toMatchObject({
      code: "schema_differs",
      message: expect.stringContaining("2.parquet") as string,
    });
  });

  it("CSV, a column more: refused", async () => {
    await expect(importFiles({ "1.csv": "a,b\n1,2\n", "2.csv": "a,b,c\n1,2,3\n" })).rejects.toMatchObject({
      code: "schema_differs",
    });
  });

  it("Parquet, columns in another order: by name", async () => {
    await using dir = await tempDir("import");
    await parquet(dir.path, { "1.parquet": "select 1 as a, 2 as b", "2.parquet": "select 20 as b, 10 as a" });
    expect((await importFolder(dir.path)).rows).toEqual([
      { a: 1, b: 2 },
      { a: 10, b: 20 },
    ]);
  });

  it("NDJSON: keys and types of the last of many files count", async () => {
    const many = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`${10 + i}.ndjson`, '{"a":1}\n']));
    const { rows } = await importFiles({ ...many, "60.ndjson": '{"a":1.5,"z":{"q":1}}\n' });
    expect(rows.at(-1)).toEqual({ a: 1.5, z: { q: 1 } });
  });

  it("folders say values below the published one, not above", async () => {
    await using dir = await tempDir("import");
    const folder = join(dir.path, "host=one");
    await parquet(folder, { "year=2020/1.parquet": "select 1 as a", "year=2021/2.parquet": "select 2 as a" });
    expect((await importFolder(folder)).rows).toEqual([
      { a: 1, year: 2020 },
      { a: 2, year: 2021 },
    ]);
    expect((await importFolder(join(folder, "year=2020"))).rows).toEqual([{ a: 1 }]);
  });
});

describe("nested and odd types", () => {
  it("lists of structs, of decimals, of lists; texts of other names inside", async () => {
    await using dir = await tempDir("import");
    await parquet(dir.path, {
      "1.parquet": `select * from (values
        ([{'x': 1, 'y': [{'z': 'é'}]}], [1.25::decimal(4,2), null], [[1], []], [uuid '00000000-0000-0000-0000-000000000001'], {'u': uuid '00000000-0000-0000-0000-000000000002', 'n': 1}),
        (null, [], null, [], null)) t(ls, ld, ll, lu, su)`,
    });
    const { rows, table } = await importFolder(dir.path);
    expect(rows[0]).toMatchObject({
      ls: [{ x: 1, y: [{ z: "é" }] }],
      ll: [[1], []],
      lu: ["00000000-0000-0000-0000-000000000001"],
      su: { u: "00000000-0000-0000-0000-000000000002", n: 1 },
    });
    expect(rows[1]).toEqual({ ls: null, ld: [], ll: null, lu: [], su: null });
    expect(String(table.schema.fields[1]?.type)).toBe("List<Decimal[4e+2]>");
    expect(Array.from((table.getChildAt(1)?.get(0) as Iterable<Uint32Array | null>) ?? []).map((v) => v?.[0])).toEqual([
      125,
      undefined,
    ]);
  });

  it("NDJSON, lists of objects", async () => {
    const { rows } = await importFiles({ "a.ndjson": '{"a":[{"x":1,"y":[{"z":"é"}]}]}\n{"a":[]}\n' });
    expect(rows).toEqual([{ a: [{ x: 1, y: [{ z: "é" }] }] }, { a: [] }]);
  });
});

describe("Arrow files, written anew", () => {
  const arrow = (type: DataType, cells: readonly Cell[]): Files => ({
    "a.arrow": tableToIPC(new Table({ c: makeVector(dataOf(type, cells)) }), "file"),
  });
  const textsOf = async (type: DataType, cells: readonly Cell[]) => {
    const { rows, table } = await importFiles(arrow(type, cells), { shuffle: 1 });
    const texts = rows.map(({ c }) => JSON.stringify(c)).sort();
    return { texts, type: String(table.schema.fields[0]?.type) };
  };

  it("texts of wide offsets and views are texts, also in lists and behind dictionaries", async () => {
    const cells = ["é", "", null, "a text of more than twelve bytes"];
    const texts = cells.map((cell) => JSON.stringify(cell)).sort();
    for (const type of [new Utf8(), new LargeUtf8(), new Utf8View()]) {
      expect(await textsOf(type, cells)).toEqual({ texts, type: "Utf8" });
      const lists = new List(new Field("item", type, true));
      expect(await textsOf(lists, [cells.filter((cell) => cell !== null), []])).toEqual({
        texts: ['["é","","a text of more than twelve bytes"]', "[]"],
        type: "List<Utf8>",
      });
      const coded = new Dictionary(type, new Int8());
      expect(await textsOf(coded, cells)).toEqual({ texts, type: "Dictionary<Int8, Utf8>" });
    }
  });

  it("a row of a dictionary's null is null, and not the text of it", async () => {
    const type = new Dictionary(new Utf8(), new Int8());
    const values = makeVector(dataOf(new Utf8(), ["a", null]));
    const data = dataOf(type, ["a", "b"]);
    const nulls = makeVector(data.clone(type, 0, 2, 0, data.buffers, [])).data[0];
    Object.assign(nulls ?? {}, { dictionary: values });
    const files = { "a.arrow": tableToIPC(new Table({ c: makeVector(nulls ?? data) }), "file") };
    const { rows } = await importFiles(files, { shuffle: 1 });
    expect(rows.map(({ c }) => c).sort()).toEqual(["a", null]);
  });

  it("what can't be written anew is refused by name", async () => {
    const files = arrow(new Dictionary(new Float64(), new Int8()), [1.5, 2.5]);
    await expect(importFiles(files, { shuffle: 1 })).rejects.toMatchObject({
      code: "type_unsupported",
      message: expect.stringContaining("'c'") as string,
    });
  });
});

describe("folders of images", () => {
  const png = new Uint8Array(Buffer.from("\x89PNG\r\n\x1a\n", "latin1"));
  const webp = new Uint8Array(Buffer.from("RIFF\x04\0\0\0WEBP", "latin1"));
  const tiff = new Uint8Array(Buffer.from("II*\0", "latin1"));

  it("all formats that loaders decode are taken; what is left out, or will not be decoded, is told", async () => {
    const { rows, warnings } = await importFiles({
      "cat/1.png": png,
      "cat/2.webp": webp,
      "dog/3.tiff": tiff,
      "dog/4.jpg": new Uint8Array(Buffer.from("<html>no picture</html>")),
      "dog/readme.txt": "words",
    });
    expect(rows.map((row) => row["path"])).toEqual(["cat/1.png", "cat/2.webp", "dog/3.tiff", "dog/4.jpg"]);
    expect(warnings).toEqual([
      expect.stringContaining("readme.txt is left out"),
      expect.stringContaining("4.jpg is no PNG"),
    ]);
  });
});
