/**
 * The same random operations on the stores in memory and in Postgres, while a real Postgres terminates the backend before,
 * or in the middle of, any statement. After each failure what Postgres holds must be what it was before the operation or
 * after it, whole; at the end everything must be equal: log, ledger, chains, rows (by the snapshot's bytes) and answers.
 *
 * A failure names the seed; `SHARDPACT_STORM_SEED=7` runs that one alone, `SHARDPACT_STORM_SEEDS=50` more of them.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import type { Entry } from "../../src/consensus/engine.ts";
import { isShardpactError } from "../../src/model/errors.ts";
import { createMemoryDisk } from "../../src/storage/memory/disk.ts";
import { openMemoryStores } from "../../src/storage/memory/open.ts";
import type { CatalogStore, LogState, LogStore, LogWrite, ReplicaStores } from "../../src/storage/port.ts";
import { openPostgresStores } from "../../src/storage/postgres/open.ts";
import { questions, scriptedEntries } from "../contract/catalog-script.ts";
import { SCRIPTED } from "../contract/snapshot.ts";
import { seededRandom } from "../contract/store-harness.ts";
import { tempDir } from "../support/temp-dir.ts";

const only = process.env["SHARDPACT_STORM_SEED"];
const SEEDS = only
  ? [Number(only)]
  : Array.from({ length: Number(process.env["SHARDPACT_STORM_SEEDS"] ?? 4) }, (_, i) => i + 1);
const ENTRIES = 120;
const OPERATIONS = 80;
/** Of operations that meet a terminated backend. */
const KILL_SHARE = 0.5;
/** The longest operation has about this many statements: an apply that loads, and begins again. */
const STATEMENTS_AHEAD_MAX = 6;
const READ_BYTES_MAX = 1 << 20;

/** Counts the statements of the stores under test and terminates their backends when told to. */
interface Killer {
  /** Before the n-th statement from now on (`before`), or while it runs. */
  arm(statementsAhead: number, before: boolean): void;
  disarm(): void;
  readonly kills: () => number;
  close(): Promise<void>;
}

type Query = (...parameters: readonly unknown[]) => unknown;
type Backend = pg.Client & { readonly processID: number; readonly connectionParameters: { application_name?: string } };

async function startKiller(): Promise<Killer> {
  const admin = new pg.Client(inject("postgresUrl"));
  await admin.connect();
  const original = pg.Client.prototype.query as Query;
  let ahead = Infinity;
  let before = true;
  let kills = 0;

  function query(this: Backend, ...parameters: readonly unknown[]): unknown {
    const run = (): unknown => Reflect.apply(original, this, parameters);
    const isOurs = this.connectionParameters.application_name?.startsWith("shardpact ") === true;
    if (!isOurs || (ahead -= 1) > 0) return run();
    ahead = Infinity;
    kills += 1;
    const terminated = Reflect.apply(original, admin, ["SELECT pg_terminate_backend($1)", [this.processID]]);
    const isPromise = typeof parameters.at(-1) !== "function" && !hasSubmit(parameters[0]);
    if (!before || !isPromise) return run();
    return Promise.resolve(terminated).then(run);
  }
  Object.assign(pg.Client.prototype, { query });

  return {
    arm(statementsAhead, first) {
      ahead = statementsAhead;
      before = first;
    },
    disarm() {
      ahead = Infinity;
    },
    kills: () => kills,
    async close() {
      Object.assign(pg.Client.prototype, { query: original });
      await admin.end();
    },
  };
}

/** Cursors and COPY streams are told of their end through themselves. */
function hasSubmit(value: unknown): boolean {
  return typeof value === "object" && value !== null && "submit" in value;
}

/** What must be equal in both stores: everything but which database and which boot it is. */
type Told = Omit<LogState, "incarnation" | "boot">;

async function told(log: LogStore): Promise<Told> {
  const { incarnation: _incarnation, boot: _boot, ...rest } = await log.boot();
  return rest;
}

/** Two transactions that may run beside each other: what each of them touches. */
const logPart = ({ applied: _applied, ...rest }: Told): unknown => rest;
const catalogPart = ({ applied }: Told): unknown => applied;

interface Work {
  readonly append: readonly LogWrite[] | null;
  readonly apply: readonly Entry[] | null;
  readonly peer: number | null;
}

interface Storm {
  readonly seed: number;
  readonly random: () => number;
  readonly script: readonly Entry[];
  readonly memory: ReplicaStores;
  readonly postgres: ReplicaStores;
  readonly killer: Killer;
  logged: number;
  applied: number;
  epoch: number;
  boots: number;
}

const below = (storm: Storm, n: number): number => Math.floor(storm.random() * n);

/** The next piece of the log, often after a tail that a later leader takes back; some of what is logged; a peer. */
function nextWork(storm: Storm): Work {
  const { script, random } = storm;
  const dice = random();
  let append: LogWrite[] | null = null;
  let apply: readonly Entry[] | null = null;
  if (dice < 0.6 && storm.logged < script.length) {
    const put = script.slice(storm.logged, storm.logged + 1 + below(storm, 8));
    const index = storm.logged + 1;
    const wrong: Entry = { index, epoch: put[0]?.epoch ?? 1, kind: "noop", payload: new Uint8Array(0) };
    const isRewritten = random() < 0.3 && wrong.epoch >= storm.epoch;
    storm.epoch = Math.max(storm.epoch + below(storm, 2), put.at(-1)?.epoch ?? 1);
    const hardState = { epoch: storm.epoch, votedFor: random() < 0.5 ? "r2" : null };
    append = [
      ...(isRewritten ? [{ hardState: null, removeFrom: null, put: [wrong] }] : []),
      { hardState, removeFrom: isRewritten ? index : null, put },
    ];
    storm.logged += put.length;
  }
  // Beside an append, as in a replica: never more than was logged before it.
  const logged = storm.logged - (append?.at(-1)?.put.length ?? 0);
  if (dice > 0.3 && storm.applied < logged) {
    apply = script.slice(storm.applied, Math.min(logged, storm.applied + 1 + below(storm, 20)));
    storm.applied += apply.length;
  }
  return { append, apply, peer: dice > 0.9 ? below(storm, 1_000) : null };
}

function start({ log, catalog }: ReplicaStores, { append, apply, peer }: Work): readonly Promise<unknown>[] {
  return [
    ...(append === null ? [] : [log.append(append)]),
    ...(apply === null ? [] : [catalog.apply(apply)]),
    ...(peer === null ? [] : [log.recordPeer({ peer: "r2", incarnation: "i2", boot: peer })]),
  ];
}

/** Boots until it is done: the backend of a boot may be terminated too. */
async function bootAgain(storm: Storm): Promise<Told> {
  for (let attempt = 0; ; attempt++) {
    try {
      storm.boots += 1;
      return await told(storm.postgres.log);
    } catch (error) {
      if (!isShardpactError(error, "unavailable") || attempt > 5) throw error;
    }
  }
}

/** Runs the work on both; what Postgres did not do before it lost its backend is done after the next boot. */
async function runOn(storm: Storm, work: Work, before: Told): Promise<Told> {
  const { memory, postgres, random, killer } = storm;
  await Promise.all(start(memory, work));
  const after = await told(memory.log);
  if (random() < KILL_SHARE) killer.arm(1 + below(storm, STATEMENTS_AHEAD_MAX), random() < 0.5);
  const ended = await Promise.allSettled(start(postgres, work));
  const failures = ended.flatMap((result) => (result.status === "rejected" ? [result.reason as unknown] : []));
  for (const error of failures) expect(isShardpactError(error, "unavailable"), String(error)).toBe(true);
  if (failures.length === 0 && random() < 0.9) return after;
  const found = await bootAgain(storm);
  killer.disarm();
  if (failures.length === 0) {
    expect(found, "what was acknowledged").toEqual(after);
    return after;
  }
  // An append and a peer's record are writes of the log that follow each other: some of them may be done.
  const isApplied = work.apply === null || isDeepStrictEqual(catalogPart(found), catalogPart(after));
  if (!isApplied) expect(catalogPart(found), "a part of an apply").toEqual(catalogPart(before));
  const rest: Work[] = isApplied ? [] : [{ append: null, apply: work.apply, peer: null }];
  if (!isDeepStrictEqual(logPart(found), logPart(after))) {
    const isAppended = work.append === null || found.lastIndex === after.lastIndex;
    const peers = isAppended ? before.peers : found.peers;
    const wanted = isAppended ? { ...after, peers } : { ...before, peers };
    expect(logPart(found), "a part of an append").toEqual(logPart({ ...wanted, applied: found.applied }));
    rest.push({ append: isAppended ? null : work.append, apply: null, peer: work.peer });
  }
  for (const again of rest) await Promise.all(start(postgres, again));
  expect(await bootAgain(storm), "after doing the rest").toEqual(after);
  return after;
}

async function wholeLog(log: LogStore, { base, lastIndex }: Told): Promise<readonly Entry[]> {
  const all: Entry[] = [];
  for (let from = base.index + 1; from <= lastIndex; from = base.index + 1 + all.length) {
    all.push(...(await log.read(from, lastIndex, READ_BYTES_MAX)));
  }
  return all;
}

async function answers(catalog: CatalogStore, at: number): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const query of questions(at)) all.push({ query, answer: await catalog.query(query, null) });
  for (let index = 1; index <= at; index++) all.push(await catalog.chainAt(index));
  return all;
}

describe("stores in a storm of terminated backends", () => {
  let killer: Killer;
  let server: pg.Client;
  const total = { kills: 0, boots: 0 };
  beforeAll(async () => {
    server = new pg.Client(inject("postgresUrl"));
    await server.connect();
    killer = await startKiller();
  });
  afterAll(async () => {
    await killer.close();
    await server.end();
    console.log(`storm: seeds ${SEEDS.join(", ")}: ${total.kills} backends terminated, ${total.boots} boots`);
    expect(total.kills).toBeGreaterThan(SEEDS.length * 5);
  });

  it.each(SEEDS)("end as the stores in memory do, whole after every failure (seed %i)", async (seed) => {
    const name = `storm_${seed}_${randomBytes(6).toString("hex")}`;
    await server.query(`CREATE DATABASE ${name}`);
    const url = Object.assign(new URL(inject("postgresUrl")), { pathname: `/${name}` }).href;
    const dir = await tempDir("storm");
    const memory = openMemoryStores(createMemoryDisk(), SCRIPTED);
    const postgres = await openPostgresStores({ url, identity: SCRIPTED });
    const random = seededRandom(seed);
    const script = scriptedEntries(seed, ENTRIES);
    const storm: Storm = {
      ...{ seed, random, script, memory, postgres, killer },
      ...{ logged: 0, applied: 0, epoch: 0, boots: 0 },
    };
    const killsBefore = killer.kills();
    try {
      let state = await told(memory.log);
      expect(await bootAgain(storm)).toEqual(state);
      for (let i = 0; i < OPERATIONS || storm.applied < storm.logged; i++) {
        state = await runOn(storm, nextWork(storm), state);
        if (random() > 0.95 && storm.applied > 20) {
          const compacted = storm.applied - 10 - below(storm, 10);
          for (const { log } of [memory, postgres]) await retried(storm, () => log.compactTo(compacted));
          state = await told(memory.log);
        }
      }
      killer.disarm();
      expect(await bootAgain(storm)).toEqual(state);
      expect(state.applied.index).toBeGreaterThan(ENTRIES / 2);
      expect(await wholeLog(postgres.log, state)).toEqual(await wholeLog(memory.log, state));
      const at = state.applied.index;
      expect(await answers(postgres.catalog, at)).toEqual(await answers(memory.catalog, at));
      const [mine, theirs] = [
        await memory.catalog.exportSnapshot(join(dir.path, "memory")),
        await postgres.catalog.exportSnapshot(join(dir.path, "postgres")),
      ];
      expect(theirs.digest).toBe(mine.digest);
    } finally {
      killer.disarm();
      total.kills += killer.kills() - killsBefore;
      total.boots += storm.boots;
      await postgres.close();
      await server.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await dir.remove();
    }
  });
});

/** A write that may be repeated, until it is done. */
async function retried(storm: Storm, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!isShardpactError(error, "unavailable")) throw error;
    await bootAgain(storm);
    await write();
  }
}
