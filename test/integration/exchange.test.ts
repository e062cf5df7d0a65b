/**
 * The exchange of the example with many workers, over a real nats-server: what counts, what is refused, and that it is
 * refused by everybody.
 */
import { randomUUID } from "node:crypto";
import { connect } from "nats";
import { expect, inject, test } from "vitest";
import { PeerFault } from "../../examples/support/arrivals.ts";
import { openExchange, type Exchange } from "../../examples/support/exchange.ts";
import {
  digestOf,
  encodeContribution,
  encodeMessage,
  PART_BYTES,
  type Contribution,
} from "../../examples/support/exchange-messages.ts";
import type { BatchOrigin } from "../../src/loader/origin.ts";

const LENGTH = 40_000; // of a gradient: three parts
const b3 = (text: string): `b3:${string}` => `b3:${text.repeat(64).slice(0, 64)}`;

/** What a rank brings to a step when nothing is wrong. */
function contribution(rank: number, world: number, step = 0, change: Partial<BatchOrigin> = {}): Contribution {
  const order = { alg: "sp-order/1", strength: "full", seed: "7", n: 333, K: 1, g: 1 } as const;
  const where = { dataset: "mnist@v1", root: b3("a"), selection: b3("b"), columns: b3("c"), order };
  const place = { epoch: 0, from: step * 10 * world, to: (step + 1) * 10 * world, bytes: null };
  return {
    origin: { v: 1, ...where, world, batchSize: 10, last: "drop", rank, ...place, ...change },
    ids: Array.from({ length: 10 }, (_, i) => 10 * (step * world + rank) + i),
    weights: `after ${step}`,
    loss: rank,
    gradient: new Float32Array(LENGTH).map((_, i) => Math.sin(rank + i + step)),
  };
}

/** Everything, with a digest for the numbers: comparing them one by one takes seconds. */
const summary = ({ gradient, ...rest }: Contribution) => ({
  ...rest,
  gradient: digestOf(new Uint8Array(gradient.buffer, gradient.byteOffset, gradient.byteLength)),
});

interface Workers extends AsyncDisposable {
  readonly attempt: string;
  readonly all: readonly Exchange[];
}

async function workers(ranks: readonly number[], world: number, o = { joinTimeoutMs: 10_000, stepTimeoutMs: 10_000 }) {
  const attempt = randomUUID();
  const base = { servers: [inject("natsUrl")], attempt, world, gradientBytes: LENGTH * 4, ...o };
  const all = await Promise.all(ranks.map((rank) => openExchange({ ...base, rank })));
  const close = async (): Promise<void> => void (await Promise.all(all.map((each) => each.close())));
  return { attempt, all, [Symbol.asyncDispose]: close } satisfies Workers;
}

/** The message of each worker's refusal, or null where the step counted. */
async function outcomes(steps: readonly Promise<unknown>[]): Promise<(string | null)[]> {
  const settled = await Promise.allSettled(steps);
  return settled.map((result) => {
    if (result.status === "fulfilled") return null;
    expect(result.reason).toBeInstanceOf(PeerFault);
    return (result.reason as Error).message;
  });
}

test("every worker gets the same gradients in the order of ranks, step after step, whoever is slow", async () => {
  await using three = await workers([0, 1, 2], 3);
  for (let step = 0; step < 6; step++) {
    const all = await Promise.all(
      three.all.map(async (each, rank) => {
        if (rank === step % 3) await new Promise((resolve) => setTimeout(resolve, 30));
        return each.step(`step ${step}`, contribution(rank, 3, step));
      }),
    );
    const expected = [0, 1, 2].map((rank) => summary(contribution(rank, 3, step)));
    for (const got of all) expect(got.map(summary)).toEqual(expected);
  }
});

test("one worker alone needs nobody", async () => {
  await using one = await workers([0], 1);
  expect(await one.all[0]!.step("step 1", contribution(0, 1))).toEqual([contribution(0, 1)]);
});

test.each<[string, (good: Contribution) => Contribution, RegExp]>([
  [
    "of another version",
    (c) => ({ ...c, origin: { ...c.origin, dataset: "mnist@v2", root: b3("d") } }),
    /dataset mnist@v2/,
  ],
  ["of other bytes under the same name", (c) => ({ ...c, origin: { ...c.origin, root: b3("d") } }), /root b3:dddd/],
  [
    "of another order",
    (c) => ({ ...c, origin: { ...c.origin, order: { ...c.origin.order, seed: "8" } } }),
    /order.seed 8/,
  ],
  ["of an earlier step", (c) => ({ ...c, origin: { ...c.origin, from: 0, to: 30 } }), /from 0; .* 30/],
  [
    "of another rank's rows",
    (c) => ({ ...c, origin: { ...c.origin, rank: 1 } }),
    /gradient of another rank|has rank 1/,
  ],
  ["of another model", (c) => ({ ...c, gradient: c.gradient.subarray(1) }), /another length/],
  ["from other weights", (c) => ({ ...c, weights: "after something else" }), /other weights/],
])("a gradient %s is refused by all the others, and by nobody counted", async (_, spoil, why) => {
  await using three = await workers([0, 1, 2], 3);
  const first = three.all.map((each, rank) => each.step("step 1", contribution(rank, 3, 0)));
  expect(await outcomes(first)).toEqual([null, null, null]);
  const second = three.all.map((each, rank) => {
    const good = contribution(rank, 3, 1);
    return each.step("step 2", rank === 2 ? spoil(good) : good);
  });
  const told = await outcomes(second);
  expect(told[0]).toMatch(why);
  expect(told[1]).toMatch(why);
  expect(told[2]).not.toBeNull(); // it sees that the others are not like it
});

test("a worker that is late is named at the deadline, and one that leaves at once", async () => {
  await using three = await workers([0, 1, 2], 3, { joinTimeoutMs: 5_000, stepTimeoutMs: 600 });
  const first = three.all.map((each, rank) => each.step("step 1", contribution(rank, 3, 0)));
  expect(await outcomes(first)).toEqual([null, null, null]);
  const [a, b, c] = three.all;
  const late = [a!, b!].map((each, rank) => each.step("step 2", contribution(rank, 3, 1)));
  expect(await outcomes(late)).toEqual(Array(2).fill("worker 2 sent no gradient for step 2 within 0.6 s"));
  await c!.leave("shard_corrupt: a leaf is not the agreed one");
  const startMs = performance.now();
  const told = await outcomes([a!.step("step 2", contribution(0, 3, 1))]);
  expect(told[0]).toMatch(/^worker 2 has stopped: shard_corrupt/);
  expect(performance.now() - startMs).toBeLessThan(500);
});

test("a worker that sent its gradient and is never ready: nobody applies the step", async () => {
  await using two = await workers([0, 1], 3, { joinTimeoutMs: 5_000, stepTimeoutMs: 600 });
  const nats = await connect({ servers: inject("natsUrl") });
  const bytes = encodeContribution(contribution(2, 3));
  const sender = { rank: 2, process: randomUUID() };
  const steps = two.all.map((each, rank) => each.step("step 1", contribution(rank, 3)));
  for (let offset = 0; offset < bytes.byteLength; offset += PART_BYTES) {
    const header = { kind: "part", ...sender, step: 0, offset, total: bytes.byteLength } as const;
    nats.publish(`_INBOX.${two.attempt}`, encodeMessage(header, bytes.subarray(offset, offset + PART_BYTES)));
  }
  expect(await outcomes(steps)).toEqual(Array(2).fill("worker 2 was not ready to apply step 1 within 0.6 s"));
  await nats.close();
});

test("a worker that holds other gradients: nobody who hears of it applies the step", async () => {
  await using two = await workers([0, 1], 3, { joinTimeoutMs: 5_000, stepTimeoutMs: 5_000 });
  const nats = await connect({ servers: inject("natsUrl") });
  const bytes = encodeContribution(contribution(2, 3));
  const sender = { rank: 2, process: randomUUID() };
  const send = (header: Parameters<typeof encodeMessage>[0], part?: Uint8Array) =>
    nats.publish(`_INBOX.${two.attempt}`, encodeMessage(header, part));
  const steps = two.all.map((each, rank) => each.step("step 1", contribution(rank, 3)));
  for (let offset = 0; offset < bytes.byteLength; offset += PART_BYTES) {
    const part = bytes.subarray(offset, offset + PART_BYTES);
    send({ kind: "part", ...sender, step: 0, offset, total: bytes.byteLength }, part);
  }
  send({ kind: "ready", ...sender, step: 0, digest: "of something else" });
  expect(await outcomes(steps)).toEqual(Array(2).fill("worker 2 holds other gradients for step 1"));
  await nats.close();
});

test("two processes that came as one rank are found out by all", async () => {
  await using two = await workers([0, 1], 2, { joinTimeoutMs: 5_000, stepTimeoutMs: 2_000 });
  const base = { servers: [inject("natsUrl")], attempt: two.attempt, world: 2, gradientBytes: LENGTH * 4 };
  const twin = await openExchange({ ...base, rank: 1, joinTimeoutMs: 2_000, stepTimeoutMs: 2_000 });
  const all = [...two.all, twin].map((each, i) => each.step("step 1", contribution(Math.min(i, 1), 2)));
  const told = await outcomes(all);
  expect(told.every((message) => message === "two processes came as worker 1" || message?.includes("worker 0"))).toBe(
    true,
  );
  expect(told.filter((message) => message === "two processes came as worker 1").length).toBeGreaterThanOrEqual(2);
  await twin.close();
});

test("junk, hostile sizes, old attempts and ranks of other worlds change nothing, or end it", async () => {
  await using two = await workers([0, 1], 2, { joinTimeoutMs: 5_000, stepTimeoutMs: 2_000 });
  const nats = await connect({ servers: inject("natsUrl") });
  const publish = (data: Uint8Array, attempt = two.attempt) => nats.publish(`_INBOX.${attempt}`, data);
  const stranger = { rank: 5, process: randomUUID() };
  publish(new Uint8Array(3));
  publish(Uint8Array.of(255, 255, 255, 255, 1, 2));
  publish(Buffer.from("\x02\0\0\0{]"));
  publish(encodeMessage({ kind: "hello", ...stranger }));
  publish(encodeMessage({ kind: "leave", ...stranger, reason: "whatever" }));
  publish(encodeMessage({ kind: "ready", ...stranger, step: 0, digest: "x" }));
  publish(encodeMessage({ kind: "leave", rank: 1, process: randomUUID(), reason: "of yesterday" }), randomUUID());
  await nats.flush();
  expect(await outcomes(two.all.map((each, rank) => each.step("step 1", contribution(rank, 2))))).toEqual([null, null]);

  await using pair = await workers([0], 2, { joinTimeoutMs: 5_000, stepTimeoutMs: 2_000 });
  const step = pair.all[0]!.step("step 1", contribution(0, 2));
  const header = { kind: "part", rank: 1, process: randomUUID(), step: 0, offset: 0, total: 2 ** 40 } as const;
  publish(encodeMessage(header, new Uint8Array(8)), pair.attempt);
  expect(await outcomes([step])).toEqual(["worker 1 trains another model: its gradient is too long"]);
  await nats.close();
});

test("a worker that never comes is named", async () => {
  await using two = await workers([0, 2], 3, { joinTimeoutMs: 700, stepTimeoutMs: 5_000 });
  const steps = [two.all[0]!.step("step 1", contribution(0, 3)), two.all[1]!.step("step 1", contribution(2, 3))];
  expect(await outcomes(steps)).toEqual(Array(2).fill("worker 1 did not come within 0.7 s"));
});
