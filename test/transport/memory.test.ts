import { describe, expect, test } from "vitest";
import { createMemoryBus } from "../../src/transport/memory.ts";
import { subjectMatches } from "../../src/transport/subjects.ts";
import { transportContract } from "../contract/transport.ts";

transportContract("memory", async () => {
  const bus = createMemoryBus();
  return {
    connect: async (name) => bus.connect(name),
    interrupt: async () => ["a", "b"].forEach((name) => bus.setConnected(name, false)),
    restore: async () => ["a", "b"].forEach((name) => bus.setConnected(name, true)),
    close: async () => undefined,
  };
});

/** A clock that a test turns by hand; equal times run in the order in which they were asked for. */
function handClock() {
  let now = 0;
  const due: { at: number; fn: () => void }[] = [];
  return {
    after(ms: number, fn: () => void) {
      const entry = { at: now + ms, fn };
      due.push(entry);
      return () => void due.splice(due.indexOf(entry), 1);
    },
    run() {
      for (;;) {
        const next = due.toSorted((a, b) => a.at - b.at)[0];
        if (!next) return;
        due.splice(due.indexOf(next), 1);
        now = next.at;
        next.fn();
      }
    },
  };
}

describe("memory bus faults", () => {
  test("drop, duplicate, delay and reorder are the injected decision", () => {
    const clock = handClock();
    const bus = createMemoryBus({ clock });
    const plan = [[], [5, 0], [1], [0]];
    bus.setFaults({ deliver: () => plan.shift() ?? [0] });
    const seen: number[] = [];
    bus.connect("b").subscribe("x", (m) => seen.push(m.data[0] ?? -1));
    const a = bus.connect("a");
    for (const n of [1, 2, 3, 4]) a.publish("x", new Uint8Array([n]));
    clock.run();
    expect(seen).toEqual([2, 4, 3, 2]);
  });

  test("a cut link loses one direction until healed", () => {
    const clock = handClock();
    const bus = createMemoryBus({ clock });
    const [a, b] = [bus.connect("a"), bus.connect("b")];
    const seen: string[] = [];
    a.subscribe("x", () => seen.push("a"));
    b.subscribe("x", () => seen.push("b"));
    bus.cut("a", "b");
    a.publish("x", new Uint8Array());
    b.publish("x", new Uint8Array());
    clock.run();
    expect(seen).toEqual(["a", "a", "b"]);
    bus.heal();
    a.publish("x", new Uint8Array());
    clock.run();
    expect(seen).toEqual(["a", "a", "b", "a", "b"]);
  });
});

test("subjects match token by token", () => {
  expect(subjectMatches("a.*.c", "a.b.c")).toBe(true);
  expect(subjectMatches("a.*", "a.b.c")).toBe(false);
  expect(subjectMatches("a.>", "a.b.c")).toBe(true);
  expect(subjectMatches("a.>", "a")).toBe(false);
  expect(subjectMatches("a.b", "a.b")).toBe(true);
});
