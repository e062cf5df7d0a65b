/**
 * The embedded servers: what their configuration allows, that they keep their data, and that they never outlive us.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { startNats, type EmbeddedNats } from "../../src/cli/embedded/nats.ts";
import { startPostgres } from "../../src/cli/embedded/postgres.ts";
import { SUBJECTS } from "../../src/model/api.ts";
import { LIMITS } from "../../src/model/limits.ts";
import { createSeed, nkeyOf } from "../../src/model/keys.ts";
import { connectNats } from "../../src/transport/nats.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("embedded");
});
afterAll(() => dir.remove());

const NOTHING = new Uint8Array(0);

describe("the shipped nats.conf", () => {
  const seeds = { r1: createSeed(), r2: createSeed() };
  let nats: EmbeddedNats;
  beforeAll(async () => {
    const members = Object.entries(seeds).map(([id, seed]) => ({ id, nkey: nkeyOf(seed) }));
    nats = await startNats({ dir: join(dir.path, "nats"), access: { group: "g", members } });
  });
  afterAll(() => nats.stop());

  const connectAs = (name: string, seed?: string) =>
    connectNats({ servers: [nats.url], name, timeoutMs: 5_000, ...(seed === undefined ? {} : { seed }) });

  test("only its own key may send in a replica's name, only the addressee hears it", async () => {
    await using r1 = await connectAs("r1", seeds.r1);
    await using r2 = await connectAs("r2", seeds.r2);
    await using client = await connectAs("client");
    const heard: string[] = [];
    for (const [name, transport] of Object.entries({ r1, r2, client })) {
      transport.subscribe("shardpact.g.peer.r2.*", ({ subject }) => heard.push(`${name} ${subject}`));
    }
    await Promise.all([r1, r2, client].map((transport) => transport.flush(2_000)));
    client.publish(SUBJECTS.peer("g", "r2", "r1"), NOTHING);
    r1.publish(SUBJECTS.peer("g", "r2", "r9"), NOTHING);
    await Promise.all([client, r1].map((transport) => transport.flush(2_000)));
    r1.publish(SUBJECTS.peer("g", "r2", "r1"), NOTHING);
    await waitFor(() => (heard.length > 0 ? true : null), { timeoutMs: 2_000, what: "r1's message" });
    expect(heard).toEqual(["r2 shardpact.g.peer.r2.r1"]);
  });

  test("clients without credentials can discover and ask, and get answers", async () => {
    await using r1 = await connectAs("r1", seeds.r1);
    await using client = await connectAs("client");
    for (const subject of [SUBJECTS.discover, "shardpact.g.api.r1.*"]) {
      r1.subscribe(subject, ({ reply }) => reply !== null && r1.publish(reply, new TextEncoder().encode(subject)));
    }
    await r1.flush(2_000);
    for (const subject of [SUBJECTS.discover, SUBJECTS.api("g", "r1", "status")]) {
      const answer = await client.request(subject, NOTHING, { timeoutMs: 2_000 });
      expect(answer.byteLength).toBeGreaterThan(0);
    }
  });

  test("it takes messages as large as the group sends", async () => {
    await using client = await connectAs("client");
    expect(client.payloadBytesMax).toBeGreaterThanOrEqual(LIMITS.natsMaxPayloadBytesMin);
  });

  test("a key that is no member's is refused", async () => {
    await expect(connectAs("stranger", createSeed())).rejects.toMatchObject({ code: "unauthorized" });
  });

  test("killed and restarted, it serves at the same address", async () => {
    const before = nats.pid;
    await nats.kill("SIGKILL");
    expect(nats.pid).toBeNull();
    await nats.restart();
    expect(nats.pid).not.toBe(before);
    await using client = await connectAs("client");
    expect(client.connected).toBe(true);
  });
});

test("Postgres is durable, keeps its data over a kill, and starts again in the same folder", async () => {
  const folder = join(dir.path, "postgres");
  const first = await startPostgres({ dir: folder });
  const url = await first.createDatabase("kept");
  expect(await first.createDatabase("kept")).toBe(url);
  const settings = await sql(
    url,
    "select name, setting from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit')",
  );
  expect(settings.map((row) => row["setting"])).toEqual(["on", "on", "on"]);
  await sql(url, "create table t as select 42 as x");
  await first.kill("SIGKILL");
  await first.restart();
  expect(await sql(url, "select x from t")).toEqual([{ x: 42 }]);
  await first.stop();
  await first.stop();
  await using second = await startPostgres({ dir: folder });
  expect(await sql(second.url("kept"), "select x from t")).toEqual([{ x: 42 }]);
});

test("below a folder that only we can enter (we may be root) data is kept, and is gone with its folder", async () => {
  // One path for ever: what stands for it elsewhere is one folder for ever.
  const closed = join(homedir(), ".shardpact-test");
  const folder = join(closed, "postgres");
  await mkdir(closed, { recursive: true, mode: 0o700 });
  try {
    for (const expected of [[], [{ x: 1 }]]) {
      await using server = await startPostgres({ dir: folder });
      const url = await server.createDatabase("d");
      expect(await sql(url, "select 1 as x from pg_tables where tablename = 't'")).toEqual(expected);
      await sql(url, "create table if not exists t (x int)");
    }
    await rm(folder, { recursive: true });
    await using server = await startPostgres({ dir: folder });
    const names = await sql(server.url("postgres"), "select datname from pg_database where datname = 'd'");
    expect(names).toEqual([]);
  } finally {
    await rm(closed, { recursive: true, force: true });
  }
});

test("without a usable nats-server the error says what to do", async () => {
  vi.stubEnv("NATS_SERVER_BIN", join(dir.path, "absent"));
  await expect(startNats({ dir: join(dir.path, "none") })).rejects.toMatchObject({
    code: "setup_failed",
    hint: expect.stringContaining("npm run setup"),
  });
  vi.unstubAllEnvs();
});

test("a server that cannot start says why", async () => {
  const folder = join(dir.path, "broken");
  const server = await startPostgres({ dir: folder });
  try {
    await expect(startPostgres({ dir: folder })).rejects.toMatchObject({
      code: "setup_failed",
      message: expect.stringContaining("postmaster.pid"),
    });
  } finally {
    await server.stop();
  }
});

test("servers end when their parent is killed", async () => {
  const script = join(dir.path, "parent.mts");
  const source = (file: string) => JSON.stringify(new URL(`../../src/cli/embedded/${file}`, import.meta.url).href);
  await writeFile(
    script,
    `import { startNats } from ${source("nats.ts")};
    import { startPostgres } from ${source("postgres.ts")};
    const nats = await startNats({ dir: ${JSON.stringify(join(dir.path, "orphan-nats"))} });
    const postgres = await startPostgres({ dir: ${JSON.stringify(join(dir.path, "orphan-postgres"))} });
    console.log(JSON.stringify([nats.pid, postgres.pid]));
    setInterval(() => {}, 1000);`.replaceAll("\n    ", "\n"),
  );
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  const parent = spawn(process.execPath, ["--import", tsx, script], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(parent.stdout, "data", { signal: AbortSignal.timeout(30_000) })) as [Buffer];
  const pids = JSON.parse(line.toString()) as number[];
  expect(pids.every(runs)).toBe(true);
  parent.kill("SIGKILL");
  await waitFor(() => (pids.some(runs) ? null : true), { timeoutMs: 15_000, what: "the orphans to end" });
});

/** True for a process that does something; a zombie that nobody reaps has ended. */
function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return true;
  }
}

async function sql(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}
