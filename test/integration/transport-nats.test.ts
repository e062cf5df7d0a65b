import { expect, inject, test } from "vitest";
import { startNats } from "../../src/cli/embedded/nats.ts";
import { SUBJECTS } from "../../src/model/api.ts";
import { createSeed, nkeyOf } from "../../src/model/keys.ts";
import { connectNats } from "../../src/transport/nats.ts";
import type { Refusal } from "../../src/transport/port.ts";
import { transportContract } from "../contract/transport.ts";
import { openTcpProxy } from "../support/tcp-proxy.ts";
import { tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

transportContract("NATS", async () => {
  const url = new URL(inject("natsUrl"));
  const proxy = await openTcpProxy(url.hostname, Number(url.port));
  return {
    connect: (name) => connectNats({ servers: [`nats://127.0.0.1:${proxy.port}`], name, timeoutMs: 5000 }),
    interrupt: proxy.down,
    restore: proxy.up,
    close: proxy.close,
  };
});

test("a subject that the server refuses is told once, also to who asks later", async () => {
  await using dir = await tempDir("nats-refuses");
  const seed = createSeed();
  const access = { group: "g", members: [{ id: "r1", nkey: nkeyOf(seed) }] };
  await using nats = await startNats({ dir: dir.path, access });
  await using transport = await connectNats({ servers: [nats.url], name: "r1", seed, timeoutMs: 5000 });
  const told: Refusal[] = [];
  transport.onStatus((_connected, refused) => void (refused && told.push(refused)));
  transport.subscribe(SUBJECTS.peer("g", "r1", "*"), () => undefined);
  transport.subscribe(SUBJECTS.peer("g", "r2", "*"), () => undefined);
  for (let i = 0; i < 3; i++) transport.publish(SUBJECTS.peer("g", "r2", "r3"), new Uint8Array(1));
  transport.publish(SUBJECTS.peer("g", "r2", "r1"), new Uint8Array(1));
  await transport.flush(5000);
  const refused = [
    { operation: "subscribe", subject: "shardpact.g.peer.r2.*" },
    { operation: "publish", subject: "shardpact.g.peer.r2.r3" },
  ];
  await waitFor(() => (told.length >= 2 ? true : null), { timeoutMs: 5000, what: "both refusals" });
  await transport.flush(5000);
  expect(told).toEqual(refused);
  const later: unknown[] = [];
  transport.onStatus((connected, refusal) => void later.push([connected, refusal]));
  expect(later).toEqual([[true, null], ...refused.map((refusal) => [true, refusal])]);
});

test.each(["peer", "snapshot", "bulk"] as const)("only r1 may say something in r1's name to r2 (%s)", async (kind) => {
  await using dir = await tempDir("nats-names");
  const seeds = new Map(["r1", "r2", "r3"].map((id) => [id, createSeed()]));
  const members = [...seeds].map(([id, seed]) => ({ id, nkey: nkeyOf(seed) }));
  await using nats = await startNats({ dir: dir.path, access: { group: "g", members } });
  const open = (seed?: string) =>
    connectNats({ servers: [nats.url], name: "x", timeoutMs: 5000, ...(seed === undefined ? {} : { seed }) });
  await using r1 = await open(seeds.get("r1"));
  await using r2 = await open(seeds.get("r2"));
  await using r3 = await open(seeds.get("r3"));
  await using client = await open();
  const subject = SUBJECTS[kind]("g", "r2", "r1");
  const heard: string[] = [];
  r2.subscribe(SUBJECTS[kind]("g", "r2", "*"), ({ data }) => void heard.push(`r2 hears ${data[0]}`));
  // Whoever is not r2 can't listen either.
  for (const other of [r1, r3, client]) other.subscribe(subject, () => void heard.push("somebody else hears"));
  await Promise.all([r1, r2, r3, client].map((transport) => transport.flush(5000)));
  for (const [i, from] of [r3, client, r2, r1].entries()) {
    from.publish(subject, Uint8Array.of(i));
    await from.flush(5000);
  }
  await waitFor(() => (heard.length > 0 ? true : null), { timeoutMs: 5000, what: "r1's message" });
  await r2.flush(5000);
  expect(heard).toEqual(["r2 hears 3"]);
});

test("an absent server is `unavailable` by the deadline", async () => {
  const proxy = await openTcpProxy("127.0.0.1", 1);
  await proxy.close();
  const startMs = performance.now();
  await expect(
    connectNats({ servers: [`nats://127.0.0.1:${proxy.port}`], name: "x", timeoutMs: 300 }),
  ).rejects.toMatchObject({ code: "unavailable" });
  expect(performance.now() - startMs).toBeLessThan(2000);
});
