/**
 * What a commit cannot do without, alone: the CPU ms of one NATS request between two Node processes, and of one row made
 * durable by Postgres through `pg`; one at a time, and 64 in flight (64 rows in one statement).
 * Usage: tsx bench/commit-floor.ts
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import pg from "pg";
import { startNats } from "../src/cli/embedded/nats.ts";
import { startPostgres } from "../src/cli/embedded/postgres.ts";
import { connectNats } from "../src/transport/nats.ts";
import { tempDir } from "../test/support/temp-dir.ts";

const SUBJECT = "shardpact.discover";
const BYTES = 700;
const ROUNDS = { warmUp: 3_000, measured: 6_000 } as const;
const MANY = 64;
/** Linux counts a process's times in hundredths of a second. */
const MS_PER_TICK = 10;

const [, , role, url = ""] = process.argv;
if (role === "responder") await respond();
else await measureAll();

/** Answers each request with its own bytes; tells its CPU time when asked by its parent. */
async function respond(): Promise<void> {
  const transport = await connectNats({ servers: [url], name: "responder", timeoutMs: 5_000 });
  transport.subscribe(SUBJECT, ({ data, reply }) => transport.publish(reply ?? "", data));
  await transport.flush(1_000);
  process.on("message", () => process.send?.(process.cpuUsage()));
  process.on("disconnect", () => process.exit());
  process.send?.("ready");
}

async function measureAll(): Promise<void> {
  await using dir = await tempDir("bench-floor");
  await measureNats(path.join(dir.path, "nats"));
  await measurePostgres(path.join(dir.path, "postgres"));
}

async function measureNats(dir: string): Promise<void> {
  await using nats = await startNats({ dir });
  await using transport = await connectNats({ servers: [nats.url], name: "requester", timeoutMs: 5_000 });
  const responder = fork(import.meta.filename, ["responder", nats.url]);
  await once(responder, "message");
  const data = new Uint8Array(BYTES);
  const cpu = async (): Promise<Record<string, number>> => {
    responder.send("cpu");
    const [told] = (await once(responder, "message")) as [NodeJS.CpuUsage];
    return { requester: msOf(process.cpuUsage()), responder: msOf(told), "nats-server": processMs(nats.pid ?? 0) };
  };
  for (const inFlight of [1, MANY]) {
    const ask = async (): Promise<void> => {
      const all = Array.from({ length: inFlight }, () => transport.request(SUBJECT, data, { timeoutMs: 5_000 }));
      await Promise.all(all);
    };
    await report(`NATS request, ${inFlight} in flight`, inFlight, ask, cpu);
  }
  responder.disconnect();
}

async function measurePostgres(dir: string): Promise<void> {
  await using server = await startPostgres({ dir });
  const client = new pg.Client(server.url("postgres"));
  await client.connect();
  await client.query("CREATE TABLE floor (index bigint PRIMARY KEY, payload bytea NOT NULL)");
  const found = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  const payload = Buffer.alloc(BYTES);
  let next = 0;
  for (const rows of [1, MANY]) {
    const text = "INSERT INTO floor SELECT i, $2::bytea FROM generate_series($1::bigint, $3::bigint) i";
    const put = async (): Promise<void> => {
      await client.query({ name: "floor", text, values: [next, payload, next + rows - 1] });
      next += rows;
    };
    const pid = found.rows[0]?.pid ?? 0;
    const cpu = () => Promise.resolve({ node: msOf(process.cpuUsage()), postgres: processMs(pid) });
    await report(`Postgres fsync, ${rows} rows a statement`, rows, put, cpu);
  }
  await client.end();
}

async function report(
  what: string,
  each: number,
  work: () => Promise<void>,
  cpu: () => Promise<Readonly<Record<string, number>>>,
): Promise<void> {
  for (let done = 0; done < ROUNDS.warmUp; done += each) await work();
  const before = await cpu();
  const startedMs = performance.now();
  let done = 0;
  for (; done < ROUNDS.measured; done += each) await work();
  const wallMs = performance.now() - startedMs;
  const after = await cpu();
  const parts = Object.entries(after).map(([part, ms]) => `${part} ${((ms - (before[part] ?? 0)) / done).toFixed(3)}`);
  console.log(`${what}: CPU ms each: ${parts.join(", ")}; wall ${(wallMs / done).toFixed(3)} ms`);
}

function msOf({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1000;
}

function processMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}
