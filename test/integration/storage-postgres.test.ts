import { randomBytes } from "node:crypto";
import { createServer, connect as connectTcp, type AddressInfo, type Socket } from "node:net";
import { readdir, readFile } from "node:fs/promises";
import pg from "pg";
import { afterEach, beforeEach, describe, expect, inject, it } from "vitest";
import { auditVerify } from "../../src/storage/postgres/audit.ts";
import { openPostgresStores } from "../../src/storage/postgres/open.ts";
import type { ReplicaStores } from "../../src/storage/port.ts";
import { scriptedEntries } from "../contract/catalog-script.ts";
import { catalogStoreContract } from "../contract/catalog-store.ts";
import { logStoreContract } from "../contract/log-store.ts";
import { entries, entry, IDENTITY, type StoreHarness, write } from "../contract/store-harness.ts";

interface Database {
  readonly url: string;
  readonly name: string;
  readonly admin: pg.Client;
  readonly opened: ReplicaStores[];
  open(identity?: typeof IDENTITY, url?: string): Promise<ReplicaStores>;
  drop(): Promise<void>;
}

async function makeDatabase(): Promise<Database> {
  const name = `storage_${randomBytes(6).toString("hex")}`;
  await asServer((server) => server.query(`CREATE DATABASE ${name}`));
  const url = Object.assign(new URL(inject("postgresUrl")), { pathname: `/${name}` }).href;
  const admin = new pg.Client(url);
  await admin.connect();
  const opened: ReplicaStores[] = [];
  return {
    url,
    name,
    admin,
    opened,
    open: async (identity = IDENTITY, at = url) => {
      const stores = await openPostgresStores({ url: at, identity });
      opened.push(stores);
      return stores;
    },
    drop: async () => {
      await Promise.all(opened.map((stores) => stores.close()));
      await admin.end();
      await asServer((server) => server.query(`DROP DATABASE ${name} WITH (FORCE)`));
    },
  };
}

async function asServer<T>(work: (server: pg.Client) => Promise<T>): Promise<T> {
  const server = new pg.Client(inject("postgresUrl"));
  await server.connect();
  try {
    return await work(server);
  } finally {
    await server.end();
  }
}

const TERMINATE = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'shardpact %'`;

async function makeHarness(): Promise<StoreHarness> {
  const db = await makeDatabase();
  return {
    open: (identity) => db.open(identity),
    damage: async (index) => {
      await db.admin.query(
        "UPDATE shardpact.log SET payload = set_byte(payload, 0, get_byte(payload, 0) # 1) WHERE index = $1",
        [index],
      );
    },
    drop: async (index) => {
      await db.admin.query("DELETE FROM shardpact.log WHERE index = $1", [index]);
    },
    damageLedger: async (index) => {
      await db.admin.query(`BEGIN; ALTER TABLE shardpact.ledger DISABLE TRIGGER USER;
        UPDATE shardpact.ledger SET payload = payload || '\\x00'::bytea WHERE index = ${index};
        ALTER TABLE shardpact.ledger ENABLE TRIGGER USER; COMMIT`);
    },
    dropLedger: async (index) => {
      await db.admin.query(`BEGIN; ALTER TABLE shardpact.ledger DISABLE TRIGGER USER;
        DELETE FROM shardpact.ledger WHERE index = ${index};
        ALTER TABLE shardpact.ledger ENABLE TRIGGER USER; COMMIT`);
    },
    damageObjects: async () => {
      await db.admin.query("UPDATE shardpact.pages SET bytes = set_byte(bytes, 0, get_byte(bytes, 0) # 1)");
    },
    damagePromises: async () => {
      await db.admin.query("UPDATE shardpact.replica_state SET epoch = epoch # 1");
    },
    dropPromises: async () => {
      await db.admin.query("DELETE FROM shardpact.replica_state");
    },
    breakConnections: async () => {
      await db.admin.query(TERMINATE);
    },
    close: () => db.drop(),
  };
}

logStoreContract("postgres", makeHarness);
catalogStoreContract("postgres", makeHarness);

describe("postgres stores", () => {
  let db: Database;
  beforeEach(async () => {
    db = await makeDatabase();
  });
  afterEach(async () => {
    await db.drop();
  });

  const start = async (): Promise<ReplicaStores> => {
    const stores = await db.open();
    await stores.log.boot();
    return stores;
  };

  it("migrates once when six replicas open at once", async () => {
    await Promise.all(Array.from({ length: 6 }, () => db.open()));
    const { rows } = await db.admin.query("SELECT hash FROM shardpact.migrations");
    expect(rows.length).toBe((await readdir("migrations")).filter((name) => name.endsWith(".sql")).length);
    expect(new Set(rows.map((row: { hash: string }) => row.hash)).size).toBe(rows.length);
  });

  it("refuses a database that a newer build migrated", async () => {
    await db.open();
    await db.admin.query("INSERT INTO shardpact.migrations (hash, created_at) VALUES ('newer', 99999999999999)");
    await expect(db.open()).rejects.toMatchObject({ code: "upgrade_required" });
  });

  it("refuses a server with fsync off", async () => {
    // The shared server must stay durable, so this database only says that it is not.
    await db.admin.query(`CREATE SCHEMA shadow;
      CREATE FUNCTION shadow.current_setting(name text) RETURNS text LANGUAGE sql STABLE AS
        $$ SELECT CASE name WHEN 'fsync' THEN 'off' ELSE pg_catalog.current_setting(name) END $$;
      ALTER DATABASE ${db.name} SET search_path = shadow, pg_catalog, public`);
    await expect(db.open()).rejects.toMatchObject({ code: "config_invalid", message: "Postgres runs with fsync=off" });
  });

  it("refuses a connection pooler", async () => {
    await using pooler = await startPooler(new URL(db.url));
    const through = Object.assign(new URL(db.url), { hostname: "127.0.0.1", port: String(pooler.port) }).href;
    await expect(db.open(IDENTITY, through)).rejects.toMatchObject({ code: "config_invalid", message: /pooler/ });
  });

  it("cannot reach a server: unavailable within the deadline", async () => {
    const nowhere = Object.assign(new URL(db.url), { hostname: "127.0.0.1", port: "1" }).href;
    await expect(db.open(IDENTITY, nowhere)).rejects.toMatchObject({ code: "unavailable", retryable: true });
  });

  it("does not vote any more on another cluster or timeline", async () => {
    await start();
    await db.admin.query("UPDATE shardpact.replica_state SET system_id = 'another/00000001'");
    const { log } = await db.open();
    expect((await log.boot()).voting).toBe(false);
    expect((await log.boot()).voting).toBe(false);
  });

  it("sees what its last bytes were when the tail row was replaced", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 3))]);
    await log.append([write([entry(3, 2)], { removeFrom: 3 })]);
    const older = entry(3, 1);
    const { checksumOf } = await import("../../src/storage/log-record.ts");
    await db.admin.query("UPDATE shardpact.log SET epoch = 1, payload = $1, checksum = $2 WHERE index = 3", [
      Buffer.from(older.payload),
      Buffer.from(checksumOf(older)),
    ]);
    expect((await (await db.open()).log.boot()).damaged).toEqual([3]);
  });

  it("survives its backend's end in the middle of an append", async () => {
    const { log } = await start();
    await log.append([write(entries(1, 2))]);
    await db.admin.query("BEGIN");
    await db.admin.query("SELECT FROM shardpact.replica_state FOR UPDATE");
    const blocked = log.append([write([entry(3)])]);
    const outcome = expect(blocked).rejects.toMatchObject({ code: "unavailable" });
    await new Promise((resolve) => setTimeout(resolve, 200));
    await db.admin.query(TERMINATE);
    await outcome;
    await db.admin.query("ROLLBACK");
    expect(await log.boot()).toMatchObject({ boot: 2, lastIndex: 2, damaged: [] });
  });

  it("finds one of the two outcomes whenever its backend ends", async () => {
    const { log } = await start();
    let last = 0;
    for (let round = 0; round < 12; round++) {
      const appended = log.append([write(entries(last + 1, last + 40))]).then(
        () => true,
        () => false,
      );
      await new Promise((resolve) => setTimeout(resolve, round % 4));
      await db.admin.query(TERMINATE);
      const durable = await appended;
      const state = await log.boot();
      expect(state.damaged).toEqual([]);
      expect(durable ? [last + 40] : [last, last + 40]).toContain(state.lastIndex);
      last = state.lastIndex;
      if (last > 0) expect(await log.read(1, last, 1e7)).toEqual(entries(1, last));
    }
  });

  it("applies a history while its backends are ended again and again", async () => {
    const { log, catalog } = await start();
    const history = scriptedEntries(21, 150);
    for (let round = 0; catalog.applied().index < history.length; round++) {
      const at = catalog.applied().index;
      const applied = catalog.apply(history.slice(at, at + 7)).catch(() => undefined);
      if (round % 3 === 0) await db.admin.query(TERMINATE);
      await applied;
      if (round % 3 === 0) await log.boot();
    }
    expect((await auditVerify(db.url)).findings).toEqual([]);
  });

  it.each(["ledger", "versions", "shards", "tag_moves", "receipts", "revocations"])(
    "refuses to change %s",
    async (table) => {
      const { catalog } = await start();
      await catalog.apply(scriptedEntries(5, 60));
      for (const change of [`DELETE FROM shardpact.${table}`, `TRUNCATE shardpact.${table}`])
        await expect(db.admin.query(change)).rejects.toMatchObject({ code: "23001" });
      await db.admin.query("SET session_replication_role = replica");
      const column =
        { revocations: "reason", receipts: "rank", shards: "rows", tag_moves: "actor" }[table] ?? "time_ms";
      await expect(db.admin.query(`UPDATE shardpact.${table} SET ${column} = ${column}`)).rejects.toMatchObject({
        code: "23001",
      });
    },
  );

  it("explains every table, view, column and function", async () => {
    await db.open();
    const { rows } = await db.admin.query<{ name: string }>(`
      SELECT c.relname AS name FROM pg_class c
      WHERE c.relnamespace = 'shardpact'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname <> 'migrations'
        AND obj_description(c.oid, 'pg_class') IS NULL
      UNION ALL
      SELECT c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE c.relnamespace = 'shardpact'::regnamespace AND c.relkind = 'r' AND c.relname <> 'migrations'
        AND a.attnum > 0 AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
      UNION ALL
      SELECT p.proname FROM pg_proc p
      WHERE p.pronamespace = 'shardpact'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL`);
    expect(rows).toEqual([]);
  });

  it("lets an auditor run the audit queries, and nothing else", async () => {
    const { catalog } = await start();
    await catalog.apply(scriptedEntries(6, 120));
    const text = await readFile(new URL("../../examples/audit.sql", import.meta.url), "utf8");
    await db.admin.query("SET ROLE shardpact_auditor");
    const queries = text.split(/;\s*$/m).filter((query) => /^\s*(SELECT|WITH)/im.test(query));
    expect(queries.length).toBeGreaterThan(8);
    const counts: number[] = [];
    for (const query of queries) counts.push((await db.admin.query(query)).rows.length);
    expect(counts.filter((count) => count > 0).length).toBeGreaterThan(6);
    await expect(db.admin.query("DELETE FROM shardpact.tags")).rejects.toMatchObject({ code: "42501" });
  });

  it("runs under the runtime role, which owns nothing", async () => {
    await db.open();
    const role = `runtime_${db.name}`;
    await db.admin.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x' IN ROLE shardpact_runtime`);
    const url = Object.assign(new URL(db.url), { username: role, password: "x" }).href;
    try {
      const { log, catalog, close } = await db.open(IDENTITY, url);
      await log.boot();
      const history = scriptedEntries(7, 60);
      await log.append([write(entries(1, 3))]);
      await log.append([write(history, { removeFrom: 1 })]);
      await catalog.apply(history);
      await close();
      expect((await auditVerify(db.url)).findings).toEqual([]);
    } finally {
      await db.admin.query(`DROP ROLE ${role}`);
    }
  });

  it("verifies a history, and names what was edited in it", async () => {
    const { log, catalog, close } = await start();
    const history = scriptedEntries(8, 150);
    await log.append([write(history)]);
    await catalog.apply(history);
    await close();
    const clean = await auditVerify(db.url);
    expect(clean).toMatchObject({ findings: [], applied: { index: history.length } });
    await db.admin.query("ALTER TABLE shardpact.ledger DISABLE TRIGGER append_only");
    await db.admin.query("ALTER TABLE shardpact.versions DISABLE TRIGGER append_only");
    const edits = [
      [
        "ledger",
        "UPDATE shardpact.ledger SET actor = 'mallory' WHERE index = (SELECT min(index) FROM shardpact.ledger WHERE actor = 'ada')",
      ],
      ["versions", "UPDATE shardpact.versions SET message = 'nothing to see' WHERE dataset = 'mnist' AND version = 1"],
      [
        "pages",
        "UPDATE shardpact.pages SET bytes = set_byte(bytes, 20, 0) WHERE digest = (SELECT page FROM shardpact.version_pages LIMIT 1)",
      ],
      ["tags", "DELETE FROM shardpact.tags WHERE (dataset, tag) = (SELECT dataset, tag FROM shardpact.tags LIMIT 1)"],
      ["log", "UPDATE shardpact.log SET payload = '\\x00' WHERE index = 5"],
      ["applied_state", "UPDATE shardpact.applied_state SET chain = decode(repeat('ab', 32), 'hex')"],
    ] as const;
    for (const [table, edit] of edits) expect((await db.admin.query(edit)).rowCount, table).toBe(1);
    const { findings } = await auditVerify(db.url);
    expect(new Set(findings.map((finding) => finding.table))).toEqual(new Set(edits.map(([table]) => table)));
  });
});

/** A proxy that makes up process ids, as poolers do. */
async function startPooler(to: URL): Promise<AsyncDisposable & { port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connectTcp(Number(to.port), to.hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    client.pipe(upstream);
    upstream.on("data", (chunk: Buffer) => {
      // BackendKeyData: 'K', length 12, process id.
      const at = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
      if (at >= 0) chunk.writeInt32BE(4_242_424, at + 5);
      client.write(chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
