import { describe, expect, test } from "vitest";
import { decodeApi, encodeApi } from "../../src/model/api.ts";
import { type ReadIndex, createReadIndex } from "../../src/replica/read-index.ts";
import { z } from "zod";
import type { Role } from "../../src/consensus/engine.ts";

interface Bench {
  readonly reads: ReadIndex;
  readonly tickets: number[];
  readonly sent: { kind: string; to: string; body: Uint8Array }[];
  status: { role: Role; leader: string | null };
  /** Lets this much time pass. */
  pass(ms: number): Promise<void>;
}

function bench(status: Bench["status"]): Bench {
  let nowMs = 0;
  let timers: { atMs: number; fn: () => void }[] = [];
  const tickets: number[] = [];
  const sent: Bench["sent"] = [];
  const b: Bench = {
    tickets,
    sent,
    status,
    reads: createReadIndex({
      runtime: {
        monotonicMs: () => nowMs,
        randomU32: () => 7,
        after(ms, fn) {
          const timer = { atMs: nowMs + ms, fn };
          timers.push(timer);
          return () => (timers = timers.filter((other) => other !== timer));
        },
      },
      resendMs: 100,
      status: () => ({ ...b.status, epoch: 3, lastIndex: 20 }),
      read: (ticket) => void tickets.push(ticket),
      send: (kind, to, body) => void sent.push({ kind, to, body }),
    }),
    async pass(ms) {
      const untilMs = nowMs + ms;
      for (;;) {
        const [next] = timers.filter(({ atMs }) => atMs <= untilMs).toSorted((x, y) => x.atMs - y.atMs);
        if (!next) break;
        timers = timers.filter((timer) => timer !== next);
        nowMs = next.atMs;
        next.fn();
      }
      nowMs = untilMs;
      await Promise.resolve();
    },
  };
  return b;
}

const nonceOf = (body: Uint8Array): string => decodeApi(z.object({ nonce: z.string() }), body).nonce;

describe("reads on the leader (thesis §6.4)", () => {
  test("reads that come while a question is out share the next one, never the one before", async () => {
    const b = bench({ role: "leader", leader: "A" });
    const first = b.reads.fetch(1000);
    await b.pass(5);
    const second = b.reads.fetch(1000);
    const third = b.reads.fetch(1000);
    expect(b.tickets).toEqual([1]);
    b.reads.ready(1, 10);
    expect(await first).toMatchObject({ index: 10, askedMs: 0 });
    expect(b.tickets).toEqual([1, 2]);
    b.reads.ready(2, 12);
    expect(await Promise.all([second, third])).toMatchObject([
      { index: 12, askedMs: 5 },
      { index: 12, askedMs: 5 },
    ]);
  });

  test("a read that failed with the leadership is asked again, of whoever leads then", async () => {
    const b = bench({ role: "leader", leader: "A" });
    const point = b.reads.fetch(1000);
    b.status = { role: "follower", leader: "B" };
    b.reads.failed(1);
    b.reads.ready(1, 99); // Of a ticket that has failed: nobody's any more.
    await b.pass(20);
    expect(b.sent).toMatchObject([{ kind: "read_index", to: "B" }]);
    b.reads.receive(
      "read_at",
      "B",
      encodeApi({ nonce: nonceOf(b.sent[0]?.body ?? new Uint8Array()), index: 4, epoch: 3, lastIndex: 20 }),
    );
    expect(await point).toMatchObject({ index: 4, askedMs: 0 });
  });

  test("a follower's question is answered with its nonce; a newer question of it takes the old one's place", () => {
    const b = bench({ role: "leader", leader: "A" });
    b.reads.receive("read_index", "C", encodeApi({ nonce: "x" }));
    b.reads.receive("read_index", "C", encodeApi({ nonce: "y" }));
    b.reads.ready(1, 5);
    expect(b.sent).toEqual([]);
    b.reads.ready(2, 6);
    expect(b.sent).toMatchObject([{ kind: "read_at", to: "C" }]);
    expect(nonceOf(b.sent[0]?.body ?? new Uint8Array())).toBe("y");
  });

  test("a leader without a quorum answers no follower", () => {
    const b = bench({ role: "leader", leader: "A" });
    b.reads.receive("read_index", "C", encodeApi({ nonce: "x" }));
    b.reads.failed(1);
    b.reads.ready(1, 5);
    expect(b.sent).toEqual([]);
  });
});

describe("reads on a follower", () => {
  test("a lost question is sent again; an answer to an earlier one counts for nothing", async () => {
    const b = bench({ role: "follower", leader: "B" });
    const first = b.reads.fetch(150);
    await b.pass(100);
    expect(b.sent).toHaveLength(2);
    const old = nonceOf(b.sent[0]?.body ?? new Uint8Array());
    await b.pass(51);
    await expect(first).rejects.toMatchObject({ code: "unavailable" });
    await b.pass(100);
    const second = b.reads.fetch(1000);
    b.reads.receive("read_at", "B", encodeApi({ nonce: old, index: 3, epoch: 3, lastIndex: 20 }));
    const nonce = nonceOf(b.sent.at(-1)?.body ?? new Uint8Array());
    expect(nonce).not.toBe(old);
    b.reads.receive("read_at", "B", encodeApi({ nonce, index: 8, epoch: 3, lastIndex: 20 }));
    expect((await second).index).toBe(8);
  });

  test("without a leader it waits for one, then gives up and says so", async () => {
    const b = bench({ role: "follower", leader: null });
    const lost = b.reads.fetch(50);
    await b.pass(60);
    await expect(lost).rejects.toMatchObject({
      code: "unavailable",
      message: expect.stringContaining("no leader") as string,
    });
    const found = b.reads.fetch(500);
    await b.pass(30);
    b.status = { role: "follower", leader: "B" };
    await b.pass(30);
    b.reads.receive(
      "read_at",
      "B",
      encodeApi({ nonce: nonceOf(b.sent.at(-1)?.body ?? new Uint8Array()), index: 1, epoch: 3, lastIndex: 20 }),
    );
    expect((await found).index).toBe(1);
  });

  test("the newest point is one that is applied, and is as old as its question", async () => {
    const b = bench({ role: "follower", leader: "B" });
    const take = async (index: number): Promise<void> => {
      const point = b.reads.fetch(1000);
      b.reads.receive(
        "read_at",
        "B",
        encodeApi({ nonce: nonceOf(b.sent.at(-1)?.body ?? new Uint8Array()), index, epoch: 3, lastIndex: 20 }),
      );
      await point;
    };
    expect(b.reads.newest(100)).toBeNull();
    await take(5);
    expect(b.reads.newest(4)).toBeNull();
    expect(b.reads.newest(5)).toMatchObject({ index: 5, askedMs: 0 });
    await b.pass(40);
    await take(9);
    expect(b.reads.newest(8)).toMatchObject({ index: 5, askedMs: 0 });
    expect(b.reads.newest(9)).toMatchObject({ index: 9, askedMs: 40 });
  });

  test("malformed messages are lost; a stopped one fails its readers", async () => {
    const b = bench({ role: "follower", leader: "B" });
    const point = b.reads.fetch(1000);
    b.reads.receive("read_at", "B", new Uint8Array([1, 2, 3]));
    b.reads.receive("read_index", "B", new Uint8Array([255]));
    expect(b.tickets).toEqual([]);
    b.reads.stop();
    await expect(point).rejects.toMatchObject({ code: "unavailable" });
  });
});
