import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytesEqual, toHex } from "../../src/model/bytes.ts";
import {
  decodeSegmentIndex,
  encodeSegmentIndex,
  segmentIndexDigest,
  tileSegments,
  type SegmentIndex,
  type SegmentPart,
} from "../../src/merkle/segment-index.ts";

function indexOf(parts: readonly SegmentPart[], dictionaryIds: readonly number[] = []): SegmentIndex {
  const segments = tileSegments(parts);
  const leafCount = segments.reduce((sum, s) => sum + s.leafCount, 0);
  const leaves = Uint8Array.from({ length: 32 * leafCount }, (_, i) => i % 251);
  const fileBytes = parts.reduce((sum, s) => sum + s.bytes, 0);
  return { fileBytes, fileDigest: new Uint8Array(32).fill(7), segments, leaves, dictionaryIds };
}

const small = indexOf(
  [
    { kind: "head", bytes: 8, rows: 0 },
    { kind: "schema", bytes: 400, rows: 0 },
    { kind: "dictionary", bytes: 200, rows: 3 },
    { kind: "batch", bytes: 300_000, rows: 1000 },
    { kind: "footer", bytes: 500, rows: 0 },
  ],
  [4],
);

describe("the segment index", () => {
  it("has the bytes that its specification says", () => {
    const bytes = encodeSegmentIndex(small);
    const view = new DataView(bytes.buffer);
    expect(new TextDecoder().decode(bytes.subarray(0, 4))).toBe("SPSI");
    expect(view.getUint32(4, true)).toBe(1);
    expect(view.getBigUint64(8, true)).toBe(301_108n);
    expect([48, 52, 56, 60].map((at) => view.getUint32(at, true))).toEqual([131_072, 5, 1, 7]);
    expect(view.getBigUint64(64, true)).toBe(4n);
    expect(view.getBigUint64(72 + 3 * 8, true)).toBe(300_000n);
    expect(view.getBigUint64(112 + 3 * 8, true)).toBe(1000n);
    expect([...bytes.subarray(152, 160)]).toEqual([0, 1, 2, 3, 4, 0, 0, 0]);
    expect(bytes.byteLength).toBe(160 + 7 * 32);
    expect(toHex(segmentIndexDigest(bytes))).toMatchInlineSnapshot(
      `"f0ea8a28f5bfb7a7b50ac52b05e9443ce1fd5126f21efb400cda793b4902ffd2"`,
    );
  });

  it("gives back what was put in", () => {
    expect(decodeSegmentIndex(encodeSegmentIndex(small))).toEqual(small);
    const middle = fc.record({
      kind: fc.constantFrom("dictionary" as const, "batch" as const),
      bytes: fc.integer({ min: 1, max: 2 ** 40 }).map((n) => (n > 2 ** 25 ? n % 2 ** 25 || 1 : n)),
      rows: fc.nat(),
    });
    const property = fc.property(fc.array(middle, { maxLength: 5 }), fc.array(fc.maxSafeNat()), (parts, ids) => {
      const head: SegmentPart = { kind: "head", bytes: 8, rows: 0 };
      const index = indexOf([head, ...parts, { kind: "footer", bytes: 99, rows: 0 }], ids);
      const bytes = encodeSegmentIndex(index);
      const back = decodeSegmentIndex(bytes);
      expect(bytesEqual(encodeSegmentIndex(back), bytes)).toBe(true);
      expect(back.segments).toEqual(index.segments);
    });
    fc.assert(property, { numRuns: 200 });
  });

  it("refuses, without much memory, whatever it would not write", () => {
    const good = encodeSegmentIndex(small);
    const property = fc.property(fc.nat(159), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const bytes = good.slice();
      bytes[at] = (bytes[at] ?? 0) ^ flip;
      try {
        expect(bytesEqual(encodeSegmentIndex(decodeSegmentIndex(bytes)), bytes)).toBe(true);
      } catch (error) {
        expect(error).toMatchObject({ code: "damaged" });
      }
    });
    fc.assert(property, { numRuns: 2000 });
    for (const bytes of [good.subarray(0, 63), good.subarray(0, good.length - 1), new Uint8Array(0)]) {
      expect(() => decodeSegmentIndex(bytes)).toThrowError(expect.objectContaining({ code: "damaged" }));
    }
  });

  it.each([
    [
      [
        { kind: "batch", bytes: 8, rows: 1 },
        { kind: "footer", bytes: 9, rows: 0 },
      ],
    ],
    [
      [
        { kind: "head", bytes: 8, rows: 0 },
        { kind: "batch", bytes: 9, rows: 1 },
      ],
    ],
    [
      [
        { kind: "head", bytes: 8, rows: 1 },
        { kind: "footer", bytes: 9, rows: 0 },
      ],
    ],
    [
      [
        { kind: "head", bytes: 8, rows: 0 },
        { kind: "batch", bytes: 0, rows: 1 },
        { kind: "footer", bytes: 9, rows: 0 },
      ],
    ],
    [
      [
        { kind: "head", bytes: 8, rows: 0 },
        { kind: "batch", bytes: 8, rows: 1 },
        { kind: "schema", bytes: 8, rows: 0 },
        { kind: "footer", bytes: 9, rows: 0 },
      ],
    ],
    [
      [
        { kind: "head", bytes: 8, rows: 0 },
        { kind: "head", bytes: 8, rows: 0 },
        { kind: "footer", bytes: 9, rows: 0 },
      ],
    ],
  ] as const)("refuses segments out of order: %j", (parts) => {
    expect(() => encodeSegmentIndex(indexOf(parts))).toThrowError(expect.objectContaining({ code: "internal" }));
  });
});
