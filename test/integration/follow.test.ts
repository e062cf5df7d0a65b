/**
 * Ranks of a run that follows its dataset, on a real group, while publishing goes on: they agree on every epoch's version,
 * whoever dies in between.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type LocalGroup, startLocalGroup } from "../../src/cli/embedded/local-group.ts";
import type { ConfirmedVersion, Following } from "../../src/client/types.ts";
import { connect, type Group } from "../../src/index.ts";
import { createHostLoader, type HostLoader, type LoaderOptions } from "../../src/loader/host-loader.ts";
import { startCli } from "../cli/run-cli.ts";
import { ON_DIST } from "../support/dist.ts";
import { ENGINE } from "../support/engine.ts";
import type { RankLine, RankOptions } from "../support/follow-rank.ts";
import { sql, tinyShard, waitForAgreement } from "../support/group.ts";
import { tempDir, type TempDir } from "../support/temp-dir.ts";
import { waitFor } from "../support/wait-for.ts";

let dir: TempDir;
let local: LocalGroup;
let group: Group;

beforeAll(async () => {
  dir = await tempDir("follow");
  local = await startLocalGroup({ dir: path.join(dir.path, "group"), engine: ENGINE });
  await local.waitForLeader();
  group = await connect({ url: local.url, onNotice: () => undefined });
});
afterAll(async () => {
  await group?.close();
  await local?.close();
  await dir?.[Symbol.asyncDispose]();
});

/** The next version: `rows` values from 1000 · seed on. */
const publish = async (dataset: string, seed: number, rows: number): Promise<void> =>
  void (await group.publish(dataset, await tinyShard(path.join(dir.path, dataset), `part-${seed}`, seed, rows), {
    timeoutMs: 60_000,
  }));

/** What each replica's tables say of a run. */
async function epochsInSql(run: string): Promise<string[][]> {
  await waitForAgreement(local);
  const query = `select epoch || ' v' || version as line from shardpact.v_run_epochs where run = '${run}' order by epoch`;
  return Promise.all(
    local.replicas.map(async ({ postgresUrl }) => (await sql(postgresUrl, query)).map((row) => String(row["line"]))),
  );
}

const numbers = (seed: number, rows: number): number[] => Array.from({ length: rows }, (_, i) => seed * 1000 + i);
const sorted = (rows: readonly number[]): number[] => rows.toSorted((a, b) => a - b);

const SCRIPT = path.join(import.meta.dirname, "..", "support", "follow-rank.ts");

interface RankProcess {
  readonly child: ChildProcess;
  readonly lines: RankLine[];
  readonly ended: Promise<unknown>;
}

function startRank(o: RankOptions): RankProcess {
  const child = spawn(process.execPath, [...ON_DIST, SCRIPT, JSON.stringify(o)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines: RankLine[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => void lines.push(JSON.parse(line) as RankLine));
  return { child, lines, ended: once(child, "close") };
}

test("a rank that is killed in the middle of an epoch comes back to the same version and the next row", async () => {
  await publish("ingest", 1, 384);
  const fixed = { url: local.url, dataset: "ingest", run: "ingest-run", world: 2, epochs: 3 };
  const steady = startRank({ ...fixed, rank: 0, stepMs: 100, state: null });
  const killed = startRank({ ...fixed, rank: 1, stepMs: 150, state: null });
  await waitFor(() => (steady.lines.length > 0 && killed.lines.length > 0 ? true : null), {
    timeoutMs: 30_000,
    what: "both ranks to train",
  });
  await publish("ingest", 2, 192);
  await waitFor(() => (killed.lines.filter(({ epoch }) => epoch === 1).length >= 2 ? true : null), {
    timeoutMs: 60_000,
    what: "the slow rank to be in epoch 1",
  });
  killed.child.kill("SIGKILL");
  await killed.ended;
  await publish("ingest", 3, 144);
  const { state } = killed.lines.at(-1) as RankLine;
  const again = startRank({ ...fixed, rank: 1, stepMs: 0, state });
  await Promise.all([steady.ended, again.ended]);
  const lines = [...steady.lines, ...killed.lines, ...again.lines];
  const rootOf = (epoch: number) => new Set(lines.filter((line) => line.epoch === epoch).map(({ root }) => root));
  for (const epoch of [0, 1, 2]) expect(rootOf(epoch).size, `roots of epoch ${epoch}`).toBe(1);
  const [agreed] = (await epochsInSql("ingest-run")) as [string[]];
  expect(agreed[0]).toBe("0 v1");
  for (const [epoch, line] of agreed.entries()) {
    const version = Number(line.split("v")[1]);
    const rows = lines.filter((one) => one.epoch === epoch).flatMap((one) => one.rows);
    expect(sorted(rows), line).toEqual(numbers(version, [384, 192, 144][version - 1] ?? 0));
  }
  expect(agreed.some((line) => !line.endsWith("v1"))).toBe(true);
});

/** A version whose proposals, and those of the versions after it, go through `around`. */
function hooked(version: ConfirmedVersion, around: (send: () => Promise<void>) => Promise<void>): ConfirmedVersion {
  const { following } = version;
  const wrapped: Following = {
    ...following,
    propose: (run, epoch, signal) => around(() => following.propose(run, epoch, signal)),
    newest: async (signal) => hooked(await following.newest(signal), around),
    open: async (agreed, signal) => hooked(await following.open(agreed, signal), around),
  };
  return { ...version, following: wrapped };
}

async function train(loader: HostLoader): Promise<{ readonly root: string; readonly rows: number[] }> {
  const rows: number[] = [];
  const epoch = loader.iterate();
  let root = "";
  for (let batch = await epoch.next(); batch; batch = await epoch.next()) {
    rows.push(...[...(batch.columns.xs["x"]?.data ?? [])].map(Number));
    root = batch.origin.root;
  }
  return { root, rows };
}

test("the leader dies between proposals and their answers: one version an epoch, on every replica", async () => {
  await publish("cuts", 1, 32);
  const groups = await Promise.all([0, 1].map(() => connect({ url: local.url, onNotice: () => undefined })));
  const options: LoaderOptions = { xs: "x", batchSize: 8, world: 2, seed: 3, shuffle: true, follow: true };
  let around = (send: () => Promise<void>): Promise<void> => send();
  const loaders = await Promise.all(
    groups.map(async (own, rank) => {
      const { source } = await own.open("cuts@v1");
      const version = hooked(source, (send) => around(send));
      return createHostLoader(version, { ...options, rank, run: { id: "cuts-run" } });
    }),
  );
  await Promise.all(loaders.map(train));
  let killed = 0;
  /** Followers sleep, so nothing can be chosen; the leader dies with the proposal; then they wake up. */
  const unreplicated = async (leader: string): Promise<void> => {
    const others = local.replicas.filter(({ id }) => id !== leader);
    await Promise.all(others.map((replica) => replica.kill("SIGSTOP")));
    await sleep(50);
    await local.replicas.find(({ id }) => id === leader)?.kill("SIGKILL");
    await Promise.all(others.map((replica) => replica.kill("SIGCONT")));
  };
  /** Somewhere between its arrival and its answer. */
  const soon = async (leader: string, delayMs: number): Promise<void> => {
    await sleep(delayMs);
    await local.replicas.find(({ id }) => id === leader)?.kill("SIGKILL");
  };
  const deaths = [unreplicated, ...[0, 2, 5].map((ms) => (leader: string) => soon(leader, ms))];
  for (const [i, die] of deaths.entries()) {
    await publish("cuts", 2 + i, 32 + 16 * i);
    const leader = await local.waitForLeader();
    let dying: Promise<void> | null = null;
    around = async (send) => {
      dying ??= die(leader).then(() => void killed++);
      await send();
    };
    const [a, b] = await Promise.all(loaders.map(train));
    await (dying as Promise<void> | null);
    expect(a?.root).toBe(b?.root);
    expect(sorted([...(a?.rows ?? []), ...(b?.rows ?? [])])).toEqual(numbers(2 + i, 32 + 16 * i));
    await local.replicas.find(({ id }) => id === leader)?.restart();
  }
  expect(killed).toBe(deaths.length);
  for (const loader of loaders) await loader.close();
  await Promise.all(groups.map((own) => own.close()));
  for (const epochs of await epochsInSql("cuts-run"))
    expect(epochs).toEqual([0, 1, 2, 3, 4].map((epoch) => `${epoch} v${epoch + 1}`));
});

test("the auditor sees what a run moved through, and recomputes all of it", async () => {
  await publish("audited", 1, 40);
  const { source } = await group.open("audited@v1");
  const run = group.run({ id: "audited-run" });
  const loader = createHostLoader(source, {
    ...{ xs: "x", batchSize: 8, seed: 3, shuffle: true, receipt: "bytes", run, follow: true },
  });
  await train(loader);
  await publish("audited", 2, 72);
  await train(loader);
  await train(loader);
  await loader.close();
  await expect(group.open("audited@v2").then((ds) => ds.pin({ run: "audited-run" }))).resolves.toBeDefined();

  const env = { SHARDPACT_URL: local.url };
  const told = await startCli(["audit", "replay", "audited-run", "--bytes"], { cwd: dir.path, env });
  expect(told.code, told.stdout + told.stderr).toBe(0);
  expect(told.stdout).toMatch(/from epoch 0 on +audited@v1 [^]*from epoch 1 on +audited@v2 [^]*epoch 3 \+ 0 +184 +✓/);
  const [replica] = local.replicas;
  const blast = await sql(
    replica!.postgresUrl,
    `select distinct dataset || '@v' || version || ' ' || reached_by as line from shardpact.v_blast_radius
     where run = 'audited-run' order by line`,
  );
  expect(blast.map(({ line }) => line)).toEqual(["audited@v1 run", "audited@v2 pin", "audited@v2 run"]);

  // A run that claims one version is not led away from it.
  const pinned = { ...{ xs: "x", batchSize: 8, run: { id: "audited-run" } }, follow: true } as const;
  await using late = createHostLoader(source, pinned);
  await expect(train(late)).rejects.toMatchObject({ code: "plan_mismatch" }); // another order than the run's
  const same = { ...pinned, seed: 3, shuffle: true } as const;
  await using later = createHostLoader(source, same);
  await expect(train(later)).rejects.toMatchObject({ code: "pin_conflict" });
});
