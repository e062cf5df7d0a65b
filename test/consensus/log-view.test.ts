import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  appendToView,
  cachedEntries,
  compactView,
  createLogView,
  epochAt,
  evict,
  lastIndexOfEpochUpTo,
  noteDurable,
  noteWrite,
  truncateView,
  unwrittenBytes,
  writeCovering,
} from "../../src/consensus/raft/log-view.ts";
import { entriesOf } from "./single.ts";

const WIDE = { entriesMax: 1000, bytesMax: 1 << 20 };

describe("the log view", () => {
  it("a late completion does not vouch for a rewritten tail (ABA of asynchronous storage)", () => {
    const log = createLogView(4, [{ epoch: 1, first: 1 }]);
    appendToView(log, entriesOf([2, 2, 2], 5));
    noteWrite(log, 1, 5);
    truncateView(log, 5);
    appendToView(log, entriesOf([3, 3], 5));
    noteWrite(log, 2, 5);
    // The entries of epoch 2 come back, this time through a leader of epoch 4.
    truncateView(log, 5);
    appendToView(log, entriesOf([2, 2, 2, 4], 5));
    noteWrite(log, 3, 5);
    expect(writeCovering(log, 7)).toBe(3);
    noteDurable(log, 1);
    expect(log.durableIndex).toBe(4);
    noteDurable(log, 2);
    expect(log.durableIndex).toBe(4);
    noteDurable(log, 3);
    expect(log.durableIndex).toBe(8);
    expect(writeCovering(log, 8)).toBeNull();
  });

  it("knows epochs, hints, cached entries and bytes as a plain array does", () => {
    const action = fc.oneof(
      fc.record({
        kind: fc.constant("append" as const),
        count: fc.integer({ min: 1, max: 5 }),
        rise: fc.nat({ max: 2 }),
      }),
      fc.record({ kind: fc.constant("truncate" as const), back: fc.integer({ min: 1, max: 6 }) }),
      fc.record({ kind: fc.constant("compact" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
      fc.record({ kind: fc.constant("flush" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
      fc.record({ kind: fc.constant("evict" as const), bytesMax: fc.nat({ max: 1500 }) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const log = createLogView(0, []);
        let model: number[] = [];
        let token = 0;
        let flushed = 0;
        let base = 0;
        for (const each of actions) {
          if (each.kind === "append") {
            const epoch = (model.at(-1) ?? 1) + each.rise;
            const first = model.length + 1;
            appendToView(
              log,
              entriesOf(
                Array.from({ length: each.count }, () => epoch),
                first,
              ),
            );
            model = model.concat(Array.from({ length: each.count }, () => epoch));
            noteWrite(log, (token += 1), first);
          } else if (each.kind === "truncate" && model.length > 0) {
            const at = Math.max(base + 1, model.length - each.back + 1);
            if (at > model.length) continue;
            truncateView(log, at);
            model = model.slice(0, at - 1);
            noteWrite(log, (token += 1), at);
          } else if (each.kind === "flush") {
            const to = flushed + Math.round((token - flushed) * each.share);
            if (to > flushed) noteDurable(log, to);
            flushed = to;
          } else if (each.kind === "evict") evict(log, each.bytesMax);
          else if (each.kind === "compact") {
            base += Math.floor((log.durableIndex - base) * each.share);
            if (base > log.base.index) compactView(log, base);
          }

          expect(log.lastIndex).toBe(model.length);
          expect(log.durableIndex).toBeLessThanOrEqual(model.length);
          if (flushed === token) expect(log.durableIndex).toBe(model.length);
          expect(log.cacheFirst).toBeLessThanOrEqual(log.durableIndex + 1);
          for (let i = 1; i < base; i += 1) expect(epochAt(log, i)).toBeNull();
          for (let i = Math.max(base, 1); i <= model.length; i += 1) expect(epochAt(log, i)).toBe(model[i - 1]);
          expect(epochAt(log, model.length + 1)).toBeNull();
          const held = cachedEntries(log, log.cacheFirst, log.lastIndex, WIDE) ?? [];
          expect(held.map((entry) => entry.epoch)).toEqual(model.slice(log.cacheFirst - 1));
          const unwritten = held.filter((entry) => entry.index > log.durableIndex);
          expect(unwrittenBytes(log)).toBe(unwritten.reduce((sum, entry) => sum + entry.payload.byteLength + 64, 0));
          const hint = lastIndexOfEpochUpTo(log, model.length, 2);
          // Below the base it only says that it lies below.
          expect(Math.max(hint, base - 1)).toBe(Math.max(model.filter((epoch) => epoch <= 2).length, base - 1));
        }
      }),
      { numRuns: 400 },
    );
  });

  it("hands out at least one entry, and no more than the bounds", () => {
    const log = createLogView(0, []);
    appendToView(log, entriesOf([1, 1, 1, 1, 1]));
    expect(cachedEntries(log, 2, 5, { entriesMax: 2, bytesMax: 1000 })?.map(({ index }) => index)).toEqual([2, 3]);
    expect(cachedEntries(log, 2, 5, { entriesMax: 9, bytesMax: 1 })?.map(({ index }) => index)).toEqual([2]);
    expect(cachedEntries(log, 6, 9, WIDE)).toBeNull();
  });
});
