/**
 * Owns the two processes of the confirm bench. `echo` answers bare requests; `measure` opens a version and sends bare
 * requests in turns over one connection, and prints one JSON line.
 * Usage: tsx bench/confirm-client.ts echo URL | measure URL REF ROUNDS
 */
import { randomBytes } from "node:crypto";
import { built } from "./built.ts";
import { median, quantile } from "./report.ts";

const { openConnection } = await built<typeof import("../src/connect.ts")>("connect.ts");
const { createGroup } = await built<typeof import("../src/dataset.ts")>("dataset.ts");
const { connectNats } = await built<typeof import("../src/transport/nats.ts")>("transport/nats.ts");

/** Clients may publish and listen only here. */
const ECHO = "_INBOX.bench.echo";
const WARM_UP = 200;
const TIMEOUT_MS = 10_000;
/** About what a confirmation's answer takes. */
const ECHO_BYTES = 1_024;

const [role, url = "", ref = "", rounds = "0"] = process.argv.slice(2);
if (role === "echo") await echo();
else await measure(Number(rounds));

async function echo(): Promise<void> {
  const transport = await connectNats({ servers: [url], name: "bench echo", timeoutMs: TIMEOUT_MS });
  const answer = randomBytes(ECHO_BYTES);
  transport.subscribe(ECHO, ({ reply }) => {
    if (reply !== null) transport.publish(reply, answer);
  });
  await transport.flush(TIMEOUT_MS);
  console.log("ready");
  process.stdin.on("end", () => process.exit(0)).resume();
}

async function measure(count: number): Promise<void> {
  await using connection = await openConnection({ url });
  const group = createGroup(connection);
  const { transport } = connection.session;
  const ask = randomBytes(256);
  const bare = () => transport.request(ECHO, ask, { timeoutMs: TIMEOUT_MS });
  const open = async () => (await group.open(ref)).close();
  const times = { bare: [] as number[], open: [] as number[] };
  for (let i = -WARM_UP; i < count; i++) {
    const [bareMs, openMs] = [await timed(bare), await timed(open)];
    if (i < 0) continue;
    times.bare.push(bareMs);
    times.open.push(openMs);
  }
  const figures = (ms: number[]) => ({ medianMs: median(ms), p99Ms: quantile(ms, 0.99) });
  console.log(JSON.stringify({ bare: figures(times.bare), open: figures(times.open) }));
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}
