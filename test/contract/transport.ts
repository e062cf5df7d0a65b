/**
 * The contract of `Transport`: every adapter passes this file.
 */
import { describe, expect, test } from "vitest";
import { isShardpactError } from "../../src/model/errors.ts";
import type { Message, Transport } from "../../src/transport/port.ts";

export interface TransportFixture {
  connect(name: string): Promise<Transport>;
  /** The server goes away for every connection, then comes back. */
  interrupt(): Promise<void>;
  restore(): Promise<void>;
  close(): Promise<void>;
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
const code = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "resolved",
    (error: unknown) => (isShardpactError(error) ? error.code : `foreign: ${String(error)}`),
  );

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`waited in vain for: ${what}`);
}

export function transportContract(name: string, open: () => Promise<TransportFixture>): void {
  const run = (title: string, body: (a: Transport, b: Transport, fixture: TransportFixture) => Promise<void>): void =>
    test(title, async () => {
      const fixture = await open();
      const a = await fixture.connect("a");
      const b = await fixture.connect("b");
      try {
        await body(a, b, fixture);
      } finally {
        await Promise.all([a.close(), b.close()]);
        await fixture.close();
      }
    });

  describe(`transport contract: ${name}`, () => {
    run("delivers in order, the sender's own subscriptions included", async (a, b) => {
      const seen: string[] = [];
      const own: string[] = [];
      b.subscribe("t.one", (m) => seen.push(text(m.data)));
      a.subscribe("t.one", (m) => own.push(text(m.data)));
      await Promise.all([a.flush(1000), b.flush(1000)]);
      for (let i = 0; i < 50; i++) a.publish("t.one", bytes(String(i)));
      await until(() => seen.length === 50 && own.length === 50, "50 messages");
      expect(seen).toEqual(Array.from({ length: 50 }, (_, i) => String(i)));
      expect(own).toEqual(seen);
    });

    run("matches wildcards, and stops at close", async (a, b) => {
      const seen: string[] = [];
      const star = b.subscribe("w.*.x", (m) => seen.push(`* ${m.subject}`));
      b.subscribe("w.>", (m) => seen.push(`> ${m.subject}`));
      await b.flush(1000);
      for (const subject of ["w.1.x", "w.1.y", "w", "w.1.2.x", "v.1.x"]) a.publish(subject, bytes(""));
      await until(() => seen.length >= 4, "4 matches");
      expect(seen.toSorted()).toEqual(["* w.1.x", "> w.1.2.x", "> w.1.x", "> w.1.y"]);
      star.close();
      star.close();
      await b.flush(1000);
      a.publish("w.2.x", bytes(""));
      await until(() => seen.length === 5, "one more match");
      expect(seen.at(-1)).toBe("> w.2.x");
    });

    run("gives the receiver bytes of its own", async (a, b) => {
      const seen: Uint8Array[] = [];
      b.subscribe("t.copy", (m) => seen.push(m.data));
      await b.flush(1000);
      const sent = bytes("first");
      a.publish("t.copy", sent);
      await until(() => seen.length === 1, "a message");
      sent.fill(0);
      expect(text(seen[0] ?? bytes(""))).toBe("first");
      expect(seen[0]?.byteOffset).toBe(0);
    });

    run("answers requests; many at once do not mix", async (a, b) => {
      b.subscribe("r.echo", (m: Message) => m.reply && b.publish(m.reply, bytes(`re ${text(m.data)}`)));
      await b.flush(1000);
      const answers = await Promise.all(
        Array.from({ length: 64 }, (_, i) => a.request("r.echo", bytes(String(i)), { timeoutMs: 2000 })),
      );
      expect(answers.map(text)).toEqual(Array.from({ length: 64 }, (_, i) => `re ${i}`));
    });

    run("an inbox is reached by others", async (a, b) => {
      const inbox = a.inbox();
      expect(inbox).toMatch(/^_INBOX\./);
      expect(a.inbox()).not.toBe(inbox);
      const seen: string[] = [];
      a.subscribe(inbox, (m) => seen.push(text(m.data)));
      await a.flush(1000);
      b.publish(inbox, bytes("hello"));
      await until(() => seen.length === 1, "a message at the inbox");
    });

    run("a request fails by code: nobody there, no answer, aborted", async (a, b) => {
      expect(await code(a.request("r.nobody", bytes(""), { timeoutMs: 2000 }))).toBe("unavailable");
      b.subscribe("r.silent", () => undefined);
      await b.flush(1000);
      expect(await code(a.request("r.silent", bytes(""), { timeoutMs: 50 }))).toBe("timeout");
      const controller = new AbortController();
      const open = code(a.request("r.silent", bytes(""), { timeoutMs: 5000, signal: controller.signal }));
      controller.abort();
      expect(await open).toBe("aborted");
      expect(await code(a.request("r.silent", bytes(""), { timeoutMs: 5000, signal: controller.signal }))).toBe(
        "aborted",
      );
    });

    run("refuses a message above the server's limit", async (a) => {
      expect(a.payloadBytesMax).toBeGreaterThanOrEqual(1024 * 1024);
      expect(() => a.publish("t.big", new Uint8Array(a.payloadBytesMax + 1))).toThrow(
        expect.objectContaining({ code: "limit_exceeded" }),
      );
    });

    run("drops while disconnected, tells, and works again afterwards", async (a, b, fixture) => {
      const states: boolean[] = [];
      const seen: string[] = [];
      const stop = a.onStatus((connected) => states.push(connected));
      expect(states).toEqual([true]);
      b.subscribe("t.gap", (m) => seen.push(text(m.data)));
      b.subscribe("r.gap", () => undefined);
      await b.flush(1000);
      const open = code(a.request("r.gap", bytes(""), { timeoutMs: 20_000 }));
      await fixture.interrupt();
      await until(() => !a.connected && !b.connected, "the loss to be noticed");
      expect(await open).toBe("unavailable");
      a.publish("t.gap", bytes("lost"));
      expect(await code(a.request("r.gap", bytes(""), { timeoutMs: 1000 }))).toBe("unavailable");
      await fixture.restore();
      await until(() => a.connected && b.connected, "the connection to be back");
      await Promise.all([a.flush(1000), b.flush(1000)]);
      a.publish("t.gap", bytes("after"));
      await until(() => seen.length > 0, "a message after the gap");
      expect(seen).toEqual(["after"]);
      expect(states).toEqual([true, false, true]);
      stop();
    });

    run("close is idempotent and final", async (a) => {
      const open = code(a.request("r.never", bytes(""), { timeoutMs: 5000 }));
      await Promise.all([a.close(), a.close()]);
      await a.close();
      expect(["closed", "unavailable"]).toContain(await open);
      expect(a.connected).toBe(false);
      expect(() => a.publish("t.closed", bytes(""))).toThrow(expect.objectContaining({ code: "closed" }));
      expect(await code(a.request("t.closed", bytes(""), { timeoutMs: 100 }))).toBe("closed");
    });
  });
}
