import { expect, inject, test } from "vitest";
import { connectNats } from "../../src/transport/nats.ts";
import { transportContract } from "../contract/transport.ts";
import { openTcpProxy } from "../support/tcp-proxy.ts";

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

test("an absent server is `unavailable` by the deadline", async () => {
  const proxy = await openTcpProxy("127.0.0.1", 1);
  await proxy.close();
  const startMs = performance.now();
  await expect(
    connectNats({ servers: [`nats://127.0.0.1:${proxy.port}`], name: "x", timeoutMs: 300 }),
  ).rejects.toMatchObject({ code: "unavailable" });
  expect(performance.now() - startMs).toBeLessThan(2000);
});
