import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { tableFromArrays, tableFromIPC, tableToIPC, type Table } from "apache-arrow";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";
import { compressors } from "hyparquet-compressors";
import { describe, expect, it } from "vitest";
import { draftVersion } from "../../src/client/draft.ts";
import { type ImportOptions, importSources, needsImport } from "../../src/import/import.ts";
import { type PreparedVersion, prepareVersion } from "../../src/shards/prepare.ts";
import { tempDir } from "../support/temp-dir.ts";

const vega = (name: string): string => join(import.meta.dirname, "../../node_modules/vega-datasets/data", name);

/** Imports, and gives what would be published to `use`. */
async function imported<T>(
  options: ImportOptions,
  use: (prepared: PreparedVersion, folder: string) => Promise<T> | T,
): Promise<T> {
  await using made = await importSources(options);
  await using prepared = await prepareVersion({ sources: made.folder, written: made.written });
  return await use(prepared, made.folder);
}

const rootOf = async (prepared: PreparedVersion): Promise<string> => (await draftVersion("d", null, prepared, "")).root;

async function rowsOf(folder: string, split = "train"): Promise<Table> {
  const files = (await readdir(join(folder, split))).sort();
  const tables = await Promise.all(files.map(async (name) => tableFromIPC(await readFile(join(folder, split, name)))));
  return tables.reduce((all, table) => all.concat(table));
}

async function duck(sql: string): Promise<void> {
  const instance = await DuckDBInstance.create(":memory:");
  const connection = await instance.connect();
  await connection.run(sql);
  connection.closeSync();
  instance.closeSync();
}

async function writeNumbers(path: string, from: number, to: number): Promise<void> {
  const id = Int32Array.from({ length: to - from }, (_, i) => from + i);
  await writeFile(path, tableToIPC(tableFromArrays({ id, x: Float32Array.from(id, (v) => v / 2) }), "file"));
}

describe("tables", () => {
  it(
    "flights: three million rows come to one root, at any number of threads, and are the file's",
    { timeout: 240_000 },
    async () => {
      const sources = [vega("flights-3m.parquet")];
      const roots: string[] = [];
      for (const threads of [1, 2]) {
        await imported({ sources, threads }, async (prepared, folder) => {
          roots.push(await rootOf(prepared));
          if (threads === 2) return;
          const table = await rowsOf(folder);
          expect(table.numRows).toBe(3_000_000);
          const file = await asyncBufferFromFile(sources[0] ?? "");
          for (const rowStart of [0, 1_500_000, 2_999_000]) {
            const expected = await parquetReadObjects({ file, compressors, rowStart, rowEnd: rowStart + 1000 });
            for (const i of [0, 17, 999]) {
              const row = table.get(rowStart + i)?.toJSON() as Record<string, unknown>;
              expect({ ...row, date: Number(row["date"]) }).toEqual({
                ...expected[i],
                date: Number(expected[i]?.["date"]),
              });
            }
          }
        });
      }
      expect(roots).toEqual([FLIGHTS_ROOT, FLIGHTS_ROOT]);
    },
  );

  it("every type that has a place in a shard, nulls included", async () => {
    await using dir = await tempDir("import");
    const file = join(dir.path, "types [*].parquet");
    await duck(`copy (select * from (values
      (true, -1::tinyint, 200::utinyint, 70000::integer, 9007199254740993::bigint, 1.5::float, 2.25::double, 'a', '\\x01\\x02'::blob,
       date '2020-02-03', timestamp '2020-02-03 04:05:06.789', timestamptz '2020-02-03 04:05:06+02', 12.34::decimal(10,2), [1,2,3], [1.0,2.0]::float[2],
       {'p': 1, 'q': 'z'}, 'x'::enum('x','y'), uuid '00000000-0000-0000-0000-000000000001'),
      (null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)
      ) t(b, i8, u8, i32, i64, f, d, s, bl, dt, ts, tz, de, li, ar, st, en, uu)) to '${file}' (format parquet)`);
    await imported({ sources: [file], types: { ar: "FLOAT[2]" } }, async (_, folder) => {
      const table = await rowsOf(folder);
      expect(table.numRows).toBe(2);
      const [row, nulls] = table.toArray().map((r) => r?.toJSON() as Record<string, unknown>);
      expect(Object.values(nulls ?? {}).every((value) => value === null)).toBe(true);
      expect(row).toMatchObject({
        b: true,
        i8: -1,
        u8: 200,
        i32: 70000,
        i64: 9007199254740993n,
        f: 1.5,
        d: 2.25,
        s: "a",
        en: "x",
      });
      expect(row?.["uu"]).toBe("00000000-0000-0000-0000-000000000001");
      expect(Array.from(row?.["bl"] as Uint8Array)).toEqual([1, 2]);
      expect(Array.from(row?.["li"] as Iterable<number>)).toEqual([1, 2, 3]);
      expect(Array.from(row?.["ar"] as Iterable<number>)).toEqual([1, 2]);
      expect(JSON.parse(JSON.stringify(row?.["st"]))).toEqual({ p: 1, q: "z" });
      expect(Number(row?.["dt"])).toBe(Date.UTC(2020, 1, 3));
      expect(Number(row?.["ts"])).toBe(Date.UTC(2020, 1, 3, 4, 5, 6, 789));
      expect(Number(row?.["tz"])).toBe(Date.UTC(2020, 1, 3, 2, 5, 6));
      expect(Array.from(row?.["de"] as Uint32Array)[0]).toBe(1234);
      expect(table.schema.fields.map((field) => `${field.name} ${String(field.type)}`)).toMatchSnapshot();
    });
  });

  it("CSV: types come from all rows, or from the caller", async () => {
    await using dir = await tempDir("import");
    const file = join(dir.path, "a.csv");
    const lines = Array.from({ length: 50_000 }, (_, i) => `${i},00${i % 10},${i === 49_999 ? "late" : i}`);
    await writeFile(file, `id,zip,last\n${lines.join("\n")}\n`);
    await imported({ sources: [file], types: { zip: "VARCHAR" } }, async (_, folder) => {
      const table = await rowsOf(folder);
      expect(table.get(49_999)?.toJSON()).toEqual({ id: 49_999n, zip: "009", last: "late" });
    });
    await expect(importSources({ sources: [file], types: { nope: "VARCHAR" } })).rejects.toMatchObject({
      code: "column_unknown",
    });
    await expect(importSources({ sources: [file], types: { zip: "INT); drop" } })).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });

  it("NDJSON, nested", async () => {
    await using dir = await tempDir("import");
    const file = join(dir.path, "a.ndjson");
    await writeFile(file, '{"a": 1, "b": {"c": [1.5]}}\n{"a": 2, "b": null}\n');
    await imported({ sources: [file] }, async (_, folder) => {
      const rows = (await rowsOf(folder)).toArray().map((row) => String(row));
      expect(rows).toEqual(['{"a": 1, "b": {"c":[1.5]}}', '{"a": 2, "b": null}']);
    });
  });

  it("says which file is not what its name says, and what can't be mixed", async () => {
    await using dir = await tempDir("import");
    await writeFile(join(dir.path, "bad.parquet"), "this is no parquet");
    await expect(importSources({ sources: [dir.path] })).rejects.toMatchObject({
      code: "shard_malformed",
      message: expect.stringContaining("bad.parquet") as string,
    });
    await writeFile(join(dir.path, "a.csv"), "x\n1\n");
    await expect(importSources({ sources: [dir.path] })).rejects.toMatchObject({ code: "invalid_argument" });
    await writeFile(join(dir.path, "b.ndjson"), "");
    await expect(
      importSources({ sources: [join(dir.path, "a.csv")], split: { train: 0.9, val: 0.1 } }),
    ).rejects.toMatchObject({
      code: "invalid_argument",
      hint: expect.stringContaining("--key") as string,
    });
    expect(await needsImport({ sources: [vega("flights-200k.arrow")] })).toBe(false);
  });
});

describe("splits by a key", () => {
  const options = { split: { train: 0.7, val: 0.2, test: 0.1 }, key: ["id"] };

  it("deal an entity to the same split in every version, and keep the shares", async () => {
    await using dir = await tempDir("import");
    await writeNumbers(join(dir.path, "a.arrow"), 0, 20_000);
    const splitOf = async (sources: string[], more: Partial<ImportOptions> = {}) =>
      imported({ sources, ...options, ...more }, async (prepared, folder) => {
        expect(prepared.splits).toEqual(["train", "test", "val"]);
        const found = new Map<number, string>();
        for (const split of prepared.splits) {
          for (const row of (await rowsOf(folder, split)).toArray()) found.set(Number(row?.["id"]), split);
        }
        return found;
      });
    const first = await splitOf([dir.path]);
    expect(first.size).toBe(20_000);
    const counts = ["train", "val", "test"].map((split) => [...first.values()].filter((s) => s === split).length);
    expect(counts.map((count) => Math.abs(count / 20_000 - [0.7, 0.2, 0.1][counts.indexOf(count)]!) < 0.01)).toEqual([
      true,
      true,
      true,
    ]);
    // Later: more rows, other files, another order. The version before says by what.
    await writeNumbers(join(dir.path, "b.arrow"), 15_000, 30_000);
    const rule = { kind: "key" as const, columns: ["id"], salt: "", ppm: { test: 100_000, val: 200_000 } };
    const { split: _, key: __, ...bare } = options;
    const again = await imported(
      { sources: [join(dir.path, "b.arrow")], ...bare, before: { rule, splits: ["train", "test", "val"] }, shuffle: 3 },
      async (prepared, folder) => {
        expect(prepared.splitRule).toEqual(rule);
        const found = new Map<number, string>();
        for (const split of prepared.splits) {
          for (const row of (await rowsOf(folder, split)).toArray()) found.set(Number(row?.["id"]), split);
        }
        return found;
      },
    );
    expect(again.size).toBe(15_000);
    for (let id = 15_000; id < 20_000; id++) expect(again.get(id)).toBe(first.get(id));
  });

  it("are the same for a number, whatever its width, and its text; a null is no text", async () => {
    await using dir = await tempDir("import");
    const csv = join(dir.path, "a.csv");
    await writeFile(csv, `id\n${Array.from({ length: 2_000 }, (_, i) => i).join("\n")}\n`);
    const roots = await Promise.all(
      ["TINYINT", "BIGINT", "VARCHAR"]
        .slice(1)
        .map((type) =>
          imported({ sources: [csv], types: { id: type }, ...options }, async (_, folder) =>
            (await rowsOf(folder, "val")).toArray().map((row) => String(row?.["id"])),
          ),
        ),
    );
    expect(roots[0]).toEqual(roots[1]);
    // A day's part is that of its number and a `d`.
    const days = join(dir.path, "days.csv");
    const dayOf = (i: number) => new Date(i * 86_400_000).toISOString().slice(0, 10);
    const lines = Array.from({ length: 2_000 }, (_, i) => `${dayOf(i)},${i}d`);
    await writeFile(days, `day,id\n${lines.join("\n")}\n`);
    const [byDay, byText] = await Promise.all(
      ["day", "id"].map((key) =>
        imported({ sources: [days], types: { day: "DATE" }, ...options, key: [key] }, async (_, folder) =>
          (await rowsOf(folder, "val")).toArray().map((row) => String(row?.["id"])),
        ),
      ),
    );
    expect(byDay).toEqual(byText);
    expect(byDay?.length).toBeGreaterThan(300);
    await expect(importSources({ sources: [csv], types: { id: "DOUBLE" }, ...options })).rejects.toMatchObject({
      code: "type_unsupported",
    });
    await expect(importSources({ sources: [csv], split: options.split, key: ["nope"] })).rejects.toMatchObject({
      code: "column_unknown",
    });
  });
});

describe("shuffle", () => {
  it("gives every row once, in an order that only the seed decides", async () => {
    await using dir = await tempDir("import");
    await writeNumbers(join(dir.path, "a.arrow"), 0, 50_000);
    const orderOf = (shuffle: number) =>
      imported({ sources: [dir.path], shuffle }, async (prepared, folder) => ({
        root: await rootOf(prepared),
        ids: (await rowsOf(folder)).toArray().map((row) => Number(row?.["id"])),
      }));
    const one = await orderOf(1);
    expect(one.ids.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 50_000 }, (_, i) => i));
    expect((await orderOf(1)).root).toBe(one.root);
    expect((await orderOf(2)).root).not.toBe(one.root);
    // Rank correlation of place and value: about 1/√n when they are independent.
    const mean = 24_999.5;
    const covariance = one.ids.reduce((sum, id, place) => sum + (id - mean) * (place - mean), 0) / 50_000;
    expect(Math.abs(covariance / ((50_000 ** 2 - 1) / 12))).toBeLessThan(0.02);
    const neighbours = one.ids.filter((id, place) => Math.abs(id - (one.ids[place + 1] ?? -9)) === 1).length;
    expect(neighbours).toBeLessThan(15);
  });
});

describe("images", () => {
  it("become rows of their own bytes, with path and class; split folders become splits", async () => {
    await using dir = await tempDir("import");
    for (const [name, byte] of [
      ["train/cat/1.png", 1],
      ["train/dog/2.jpg", 2],
      ["val/cat/3.PNG", 3],
    ] as const) {
      await mkdir(join(dir.path, name, ".."), { recursive: true });
      await writeFile(join(dir.path, name), new Uint8Array(1000).fill(byte));
    }
    await writeFile(join(dir.path, "readme.txt"), "left out");
    await imported({ sources: [dir.path] }, async (prepared, folder) => {
      expect(prepared.splits).toEqual(["train", "val"]);
      expect(prepared.splitRule).toEqual({ kind: "folders" });
      expect(new TextDecoder().decode(prepared.classes)).toContain('"label":["cat","dog"]');
      const rows = (await rowsOf(folder)).toArray().map((row) => row?.toJSON() as Record<string, unknown>);
      expect(rows.map(({ path, label }) => [path, label])).toEqual([
        ["train/cat/1.png", "cat"],
        ["train/dog/2.jpg", "dog"],
      ]);
      expect(Array.from(rows[1]?.["image"] as Uint8Array).every((byte) => byte === 2)).toBe(true);
    });
    await writeFile(join(dir.path, "train/cat/0.png"), "");
    await expect(importSources({ sources: [dir.path] })).rejects.toMatchObject({ code: "shard_malformed" });
  });
});

/** A change of it is another importer: raise its number, and say so in CHANGELOG.md. */
const FLIGHTS_ROOT = "b3:b13c854d67f1a9163ce4c68e00a60bad95280c50095a346973bf4f019cbacdae";
