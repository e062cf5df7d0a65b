import { randomBytes } from "node:crypto";
import { join } from "node:path";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, inject, it } from "vitest";
import { startPostgres } from "../../src/cli/embedded/postgres.ts";
import { openPostgresStores } from "../../src/storage/postgres/open.ts";
import { exportPostgresSnapshot } from "../../src/storage/postgres/snapshot-export.ts";
import type { ReplicaStores } from "../../src/storage/port.ts";
import { scriptedEntries } from "../contract/catalog-script.ts";
import { SCRIPTED, snapshotContract } from "../contract/snapshot.ts";
import { type StoreHarness, write } from "../contract/store-harness.ts";
import { tempDir } from "../support/temp-dir.ts";

interface Database {
  readonly url: string;
  readonly admin: pg.Client;
  open(identity?: typeof SCRIPTED): Promise<ReplicaStores>;
  drop(): Promise<void>;
}

async function makeDatabase(): Promise<Database> {
  const name = `snapshot_${randomBytes(6).toString("hex")}`;
  const server = new pg.Client(inject("postgresUrl"));
  await server.connect();
  await server.query(`CREATE DATABASE ${name}`);
  const url = Object.assign(new URL(inject("postgresUrl")), { pathname: `/${name}` }).href;
  const admin = new pg.Client(url);
  await admin.connect();
  const opened: ReplicaStores[] = [];
  return {
    url,
    admin,
    async open(identity = SCRIPTED) {
      const stores = await openPostgresStores({ url, identity });
      opened.push(stores);
      return stores;
    },
    async drop() {
      await Promise.all(opened.map((stores) => stores.close()));
      await admin.end();
      await server.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await server.end();
    },
  };
}

const TERMINATE = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'shardpact %'`;

async function makeHarness(): Promise<StoreHarness> {
  const db = await makeDatabase();
  return {
    open: (identity) => db.open(identity ?? SCRIPTED),
    damage: async (index) =>
      void (await db.admin.query(
        "UPDATE shardpact.log SET checksum = set_byte(checksum, 0, get_byte(checksum, 0) # 1) WHERE index = $1",
        [index],
      )),
    damageLedger: async () => undefined,
    dropLedger: async () => undefined,
    damageObjects: async () => undefined,
    damagePromises: async () => undefined,
    dropPromises: async () => undefined,
    drop: async (index) => void (await db.admin.query("DELETE FROM shardpact.log WHERE index = $1", [index])),
    breakConnections: async () => void (await db.admin.query(TERMINATE)),
    close: () => db.drop(),
  };
}

snapshotContract("postgres", makeHarness, { flips: 90 });

describe("snapshots of the Postgres store", () => {
  const history = scriptedEntries(29, 90).slice(0, 90);
  let db: Database;
  let dir: Awaited<ReturnType<typeof tempDir>>;
  let path: string;
  beforeEach(async () => {
    [db, dir] = await Promise.all([makeDatabase(), tempDir("snapshot")]);
    path = join(dir.path, "a");
  });
  afterEach(async () => {
    await db.drop();
    await dir.remove();
  });

  /** Writes the snapshot of the whole history from a database of its own. */
  async function writeWhole(): Promise<void> {
    const source = await makeDatabase();
    const stores = await source.open();
    await stores.log.boot();
    await stores.catalog.apply(history);
    await stores.catalog.exportSnapshot(path);
    await source.drop();
  }

  async function lagging(): Promise<ReplicaStores> {
    const stores = await db.open();
    await stores.log.boot();
    await stores.log.append([write(history.slice(0, 30))]);
    await stores.catalog.apply(history.slice(0, 30));
    return stores;
  }

  it("is taken beside the running replica, whose place it does not take, and holds one moment", async () => {
    const { catalog, log } = await lagging();
    const applying: Promise<unknown>[] = [];
    const info = await exportPostgresSnapshot(db, path, {
      // While the file is written, more is applied.
      onProgress: () => {
        if (applying.length === 0) applying.push(catalog.apply(history.slice(30)));
      },
    });
    await Promise.all(applying);
    expect(info.applied.index).toBe(30);
    expect(catalog.applied().index).toBe(90);
    await log.append([write([], { hardState: { epoch: 20, votedFor: "r1" } })]);
    const other = await makeDatabase();
    const { catalog: copy, log: copyLog } = await other.open();
    await copyLog.boot();
    await copy.installSnapshot(path);
    await copy.apply(history.slice(30));
    expect(copy.applied()).toEqual(catalog.applied());
    await other.drop();
    const empty = await makeDatabase();
    await expect(exportPostgresSnapshot(empty, path)).rejects.toMatchObject({ code: "not_found" });
    await empty.drop();
  });

  it("leaves what was there when the connection breaks in the middle of an install", async () => {
    await writeWhole();
    const { catalog, log } = await lagging();
    const before = catalog.applied();
    const broken: Promise<unknown>[] = [];
    const install = catalog.installSnapshot(path, {
      onProgress: ({ step }) => {
        if (step === "install" && broken.length === 0) broken.push(db.admin.query(TERMINATE));
      },
    });
    await expect(install).rejects.toMatchObject({ code: "unavailable" });
    await Promise.all(broken);
    const state = await log.boot();
    expect(state).toMatchObject({ applied: before, lastIndex: 30, firstIndex: 1, damaged: [] });
    expect((await db.admin.query("SELECT count(*)::int AS n FROM shardpact.ledger")).rows).toEqual([{ n: 30 }]);
    expect(await catalog.installSnapshot(path)).toMatchObject({ installed: true });
  });

  it("takes everything back when it is aborted, and can go on", async () => {
    await writeWhole();
    const { catalog } = await lagging();
    const controller = new AbortController();
    const onProgress = ({ table }: { table: string }) => (table === "versions" ? controller.abort() : undefined);
    const install = catalog.installSnapshot(path, { signal: controller.signal, onProgress });
    await expect(install).rejects.toMatchObject({ code: "aborted" });
    await catalog.apply(history.slice(30, 40));
    expect(catalog.applied().index).toBe(40);
    expect(await catalog.installSnapshot(path)).toMatchObject({ installed: true });
    expect(catalog.applied().index).toBe(90);
  });

  it("lets votes be written while it installs, and lets no other boot in between", async () => {
    await writeWhole();
    const { catalog, log } = await lagging();
    const voted: Promise<unknown>[] = [];
    const other = await db.open();
    let booting: Promise<{ readonly applied: { readonly index: number } }> | null = null;
    await catalog
      .installSnapshot(path, {
        onProgress({ step, table }) {
          if (step !== "install" || booting) return;
          if (table === "ledger") voted.push(log.append([write([], { hardState: { epoch: 40, votedFor: "r2" } })]));
          if (table === "leases") booting = other.log.boot().catch(() => other.log.boot());
        },
      })
      .catch(() => null);
    await Promise.all(voted);
    const state = await (booting as unknown as Promise<Awaited<ReturnType<typeof other.log.boot>>>);
    expect(state.hardState).toEqual({ epoch: 40, votedFor: "r2" });
    // Whole or not at all: a deadlock is broken by ending one of the two.
    expect([30, 90]).toContain(state.applied.index);
    expect(state.lastIndex).toBe(state.applied.index);
    await expect(log.append([write([])])).rejects.toMatchObject({ code: "fenced" });
  });

  it("refuses rows that its own history does not lead to", async () => {
    await writeWhole();
    const { catalog } = await lagging();
    await db.admin.query("INSERT INTO shardpact.revocations VALUES ('mnist@v999', 12, 1, 'eve', 'made up')");
    const error = { code: "replica_diverged", details: { table: "revocations" } };
    await expect(catalog.installSnapshot(path)).rejects.toMatchObject(error);
    expect(catalog.applied().index).toBe(30);
  });

  it("compacts a log in steps, while appends go on", async () => {
    const { log, catalog } = await lagging();
    await log.append([write(history.slice(30))]);
    await catalog.apply(history.slice(30));
    const epoch = history.at(-1)?.epoch ?? 1;
    const append = log.append([write([{ index: 91, epoch, kind: "noop", payload: new Uint8Array(0) }])]);
    await Promise.all([log.compactTo(90), append]);
    expect((await db.admin.query("SELECT index::int FROM shardpact.log")).rows).toEqual([{ index: 91 }]);
  });
});

describe("a Postgres server that dies", () => {
  const history = scriptedEntries(37, 60).slice(0, 60);

  it("never has dropped an entry whose apply it then forgets (I34; etcd 13766, openraft 2116)", async () => {
    await using dir = await serverDir();
    const server = await startPostgres({ dir: dir.path });
    try {
      const url = server.url("postgres");
      // The slowest background flush that there is: applies stay in memory unless somebody forces them.
      const admin = new pg.Client(url);
      admin.on("error", () => undefined);
      await admin.connect();
      await admin.query("ALTER SYSTEM SET wal_writer_delay = '10s'");
      await admin.query("SELECT pg_reload_conf()");
      const open = async () => {
        const stores = await openPostgresStores({ url, identity: SCRIPTED });
        return { ...stores, state: await stores.log.boot() };
      };
      const first = await open();
      await first.log.append([write(history)]);
      for (let i = 0; i < 40; i += 1) await first.catalog.apply(history.slice(i, i + 1));
      await first.log.compactTo(30);
      for (let i = 40; i < 60; i += 1) await first.catalog.apply(history.slice(i, i + 1));
      await server.kill("SIGKILL");
      await first.close();
      await server.restart();
      const { state, catalog, log } = await open();
      expect(state).toMatchObject({ base: { index: 30 }, lastIndex: 60, damaged: [] });
      expect(state.applied.index).toBeGreaterThanOrEqual(40);
      await catalog.apply(history.slice(state.applied.index));
      await log.compactTo(60);
      expect(catalog.applied()).toEqual(first.catalog.applied());
      await catalog[Symbol.asyncDispose]();
    } finally {
      await server.stop();
    }
  });

  async function serverDir() {
    const dir = await tempDir("dying");
    return { path: join(dir.path, "postgres"), [Symbol.asyncDispose]: () => dir.remove() };
  }
});
