import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cutPages, decodePage, encodePage, pageDigest, pageTotals } from "../../src/merkle/page.ts";
import type { PageEntry } from "../../src/merkle/page.ts";
import { bytesEqual, utf8 } from "../../src/model/bytes.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { digestOf } from "../support/catalog.ts";

const entry = (over: Partial<PageEntry> = {}): PageEntry => ({
  name: "train-00000.arrow",
  split: 0,
  rows: 10,
  bytes: 1000,
  digest: digestOf("d"),
  segmentIndex: digestOf("i"),
  ...over,
});

const anyDigest = fc.integer().map((n) => digestOf(String(n)));
const anyName = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 30 })
  .map((s) => `x${s.replaceAll(/[\p{Cc}\p{Cs}\\/]/gu, "_")}x`.normalize("NFC"));
const anyEntry: fc.Arbitrary<PageEntry> = fc.record({
  name: anyName,
  split: fc.nat(LIMITS.splitsMax - 1),
  rows: fc.maxSafeNat(),
  bytes: fc.maxSafeNat(),
  digest: anyDigest,
  segmentIndex: anyDigest,
});
const anyEntries = fc.uniqueArray(anyEntry, { minLength: 1, maxLength: 20, selector: (e) => e.name });

describe("page encoding (I19)", () => {
  it("decodes what it encodes", () => {
    fc.assert(fc.property(anyEntries, (entries) => void expect(decodePage(encodePage(entries))).toEqual(entries)));
  });

  it("what decodes encodes to the same bytes, whatever byte is changed; all else is `damaged`", () => {
    const edit = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.nat(12) });
    let decoded = 0;
    let refused = 0;
    fc.assert(
      fc.property(anyEntries, fc.array(edit, { minLength: 1, maxLength: 3 }), (entries, edits) => {
        let bytes = encodePage(entries);
        for (const { at, byte, cut } of edits) {
          bytes[at % bytes.byteLength] = byte;
          if (cut === 12) bytes = bytes.slice(0, at % bytes.byteLength || 1);
        }
        try {
          expect(bytesEqual(encodePage(decodePage(bytes)), bytes)).toBe(true);
          decoded++;
        } catch (error) {
          if (!isShardpactError(error, "damaged")) throw error;
          refused++;
        }
      }),
      { numRuns: 500 },
    );
    expect(Math.min(decoded, refused)).toBeGreaterThan(10);
  });

  it("refuses noise as `damaged`, without a crash", () => {
    const head = utf8("SPPG\u0001\u0000");
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (noise, withHead) => {
        const bytes = withHead ? new Uint8Array([...head, ...noise]) : noise;
        expect(() => decodePage(bytes)).toThrow(expect.objectContaining({ code: "damaged" }));
      }),
    );
  });

  it.each<[string, (view: DataView) => void]>([
    ["another version", (view) => view.setUint16(4, 2, true)],
    ["no shards", (view) => view.setUint16(6, 0, true)],
    ["more shards than fit", (view) => view.setUint16(6, 65_535, true)],
    ["hostile name length", (view) => view.setUint32(8, 0xffff_ffff, true)],
    ["a name that ends outside", (view) => view.setUint32(12, 0xffff_fff0, true)],
    ["rows beyond 2^53", (view) => view.setUint32(12 + 4 + 1 + 4, 0xffff_ffff, true)],
    ["a split beyond the limit", (view) => view.setUint8(12 + 4, 200)],
  ])("refuses %s", (_what, change) => {
    const bytes = encodePage([entry()]);
    change(new DataView(bytes.buffer));
    expect(() => decodePage(bytes)).toThrow(expect.objectContaining({ code: "damaged" }));
  });

  it("refuses a byte order mark that a decoder would swallow", () => {
    const bytes = encodePage([entry({ name: "\ufeffa" })]);
    expect(decodePage(bytes)[0]?.name).toBe("\ufeffa");
  });
});

describe("page entries", () => {
  it.each<[string, Partial<PageEntry>[]]>([
    ["a name twice", [{}, { split: 1 }]],
    ["an empty name", [{ name: "" }]],
    ["a name that is too long", [{ name: "a".repeat(256) }]],
    ["a name not in NFC", [{ name: "e\u0301" }]],
    ["half a surrogate pair", [{ name: "a\ud800" }]],
    ["a control character", [{ name: "a\u0000" }]],
    ["a backslash", [{ name: "a\\b" }]],
    ["a way out of the folder", [{ name: "../a" }]],
    ["an absolute name", [{ name: "/a" }]],
    ["a split out of range", [{ split: LIMITS.splitsMax }]],
    ["negative rows", [{ rows: -1 }]],
    ["bytes that are no integer", [{ bytes: 1.5 }]],
    ["nothing at all", []],
  ])("refuses %s", (_what, list) => {
    expect(() => encodePage(list.map(entry))).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it("refuses too many", () => {
    const many = Array.from({ length: LIMITS.pageShardsMax + 1 }, (_, i) => entry({ name: `s${i}` }));
    expect(() => encodePage(many)).toThrow(expect.objectContaining({ code: "limit_exceeded" }));
    const long = Array.from({ length: 1000 }, (_, i) => entry({ name: `${i}`.padStart(200, "n") }));
    expect(() => encodePage(long)).toThrow(expect.objectContaining({ code: "limit_exceeded" }));
  });

  it("totals per split, sorted by ordinal", () => {
    const entries = [entry({ name: "a", split: 2 }), entry({ name: "b" }), entry({ name: "c", split: 2, rows: 5 })];
    expect(pageTotals(entries)).toEqual([
      { split: 0, rows: 10, bytes: 1000, shards: 1 },
      { split: 2, rows: 15, bytes: 2000, shards: 2 },
    ]);
    expect(() => pageTotals([entry({ rows: Number.MAX_SAFE_INTEGER }), entry()])).toThrow(
      expect.objectContaining({ code: "limit_exceeded" }),
    );
  });
});

describe("cutPages", () => {
  it("fills pages by count, then by bytes, keeps the order, and every page encodes", () => {
    const short = Array.from({ length: 2500 }, (_, i) => entry({ name: `s${i}` }));
    expect(cutPages(short).map((page) => page.length)).toEqual([1024, 1024, 452]);
    const long = Array.from({ length: 2500 }, (_, i) => entry({ name: `${i}`.padStart(255, "n") }));
    const pages = cutPages(long);
    expect(pages.flat()).toEqual(long);
    for (const page of pages.slice(0, -1)) {
      expect(encodePage(page).byteLength).toBeGreaterThan(LIMITS.pageBytesMax - 400);
    }
    expect(cutPages([])).toEqual([]);
  });

  it("an append changes only the last page", () => {
    const all = Array.from({ length: 2500 }, (_, i) => entry({ name: `s${i}` }));
    const digests = (list: PageEntry[]): string[] => cutPages(list).map((page) => pageDigest(encodePage(page)));
    expect(digests(all.slice(0, 2490)).slice(0, 2)).toEqual(digests(all).slice(0, 2));
  });
});
