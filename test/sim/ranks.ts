/**
 * Owns the simulated ranks of runs that follow their dataset: real client code (`runCalls`, `agreeOn`) that begins a run, comes
 * to one epoch after the other at its own pace, and is killed and comes back now and then (docs/spec.md: I70).
 */
import { confirmedVersion, resolve } from "../../src/client/open.ts";
import { agreeOn } from "../../src/client/run-calls.ts";
import { createSession, type Session } from "../../src/client/session.ts";
import type { ConfirmedVersion, RunEpoch } from "../../src/client/types.ts";
import { hashBytes } from "../../src/merkle/hash.ts";
import { formatDigest, utf8 } from "../../src/model/bytes.ts";
import type { RunPlan } from "../../src/model/commands.ts";
import { type ErrorCode, isShardpactError } from "../../src/model/errors.ts";
import type { RefTarget } from "../../src/model/names.ts";
import { type Cluster, fork } from "./cluster.ts";
import { createProcess, type SimProcess } from "./process.ts";
import { between, chance, type Random, type Scheduler } from "./scheduler.ts";

export interface Ranks {
  readonly names: readonly string[];
  /** Epochs that ranks came to; and how often one came back. */
  readonly counts: { epochs: number; resumed: number };
  stop(): void;
}

export interface RanksOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly cluster: Cluster;
}

const DATASET = "alpha";
const RUNS = ["live-1", "live-2"];
const RANKS_PER_RUN = 3;
const EPOCH_MS: readonly [number, number] = [5, 150];
const RETRY_MS: readonly [number, number] = [20, 200];
const KILLED = 0.15;
const PASSING = new Set<ErrorCode>(["unavailable", "timeout", "not_leader", "no_quorum"]);
const ORDER = { alg: "sp-order/1", strength: "none", seed: "0", n: 1, K: 1, g: 1 } as const;
const SELECTION = formatDigest(hashBytes(utf8("all")));
const SHAPE = { world: RANKS_PER_RUN, batchSize: 1, last: "drop" } as const;
const PLAN = { selection: SELECTION, order: ORDER, ...SHAPE, follow: true } as const;

interface Rank {
  readonly run: string;
  readonly process: SimProcess;
  readonly session: Session;
  readonly random: Random;
  /** Where it stands; null: not begun. What a killed rank finds in its checkpoint. */
  at: RunEpoch | null;
}

export function startRanks({ scheduler, random, cluster }: RanksOptions): Ranks {
  const { genesis, groupId, network, checker } = cluster;
  const check: typeof checker.check = checker.check;
  const counts = { epochs: 0, resumed: 0 };
  /** What any rank was told, by `run epoch`. */
  const told = new Map<string, RunEpoch>();
  let stopped = false;
  const ranks = RUNS.flatMap((run) =>
    Array.from({ length: RANKS_PER_RUN }, (_, i): Rank => {
      const process = createProcess(`${run}-${i}`, scheduler, fork(random), { offsetMs: 0, rate: 1 });
      const session = createSession({
        transport: network.connect(process),
        timing: process.timing,
        discovered: { group: genesis.name, groupId, genesis, leader: null, stores: [] },
        actor: process.name,
        onNotice: () => undefined,
      });
      return { run, process, session, random: fork(random), at: null };
    }),
  );

  const open = async ({ session }: Rank, target: RefTarget): Promise<ConfirmedVersion> =>
    confirmedVersion(session, await resolve(session, { dataset: DATASET, target }), { stores: [] });

  /** Begins, or comes back: at the version of its epoch, which the run must still have there. */
  async function begin(rank: Rank): Promise<ConfirmedVersion> {
    const at = rank.at;
    const version = await open(rank, at === null ? { kind: "head" } : { kind: "version", version: at.version });
    const epoch = at?.epoch ?? 0;
    const { root } = version;
    const plan: RunPlan = { dataset: DATASET, version: version.version, root, ...PLAN };
    try {
      await version.beginRun(rank.run, plan, {}, epoch);
    } catch (error) {
      // Others began with an older head: their version is the run's.
      if (at !== null || !isShardpactError(error, "plan_mismatch")) throw error;
      const agreed = await version.following.agreed(rank.run, 0);
      check(agreed !== null, `I70 ${rank.run} was begun, and a majority does not know its first epoch`);
      hear(rank, agreed);
      return open(rank, { kind: "version", version: agreed.version });
    }
    hear(rank, { epoch, version: version.version, root, order: ORDER });
    return version;
  }

  /** One version an epoch, for all ranks; and never back. */
  function hear(rank: Rank, agreed: RunEpoch): void {
    const key = `${rank.run} ${agreed.epoch}`;
    const before = told.get(key) ?? agreed;
    const isSame = before.version === agreed.version && before.root === agreed.root;
    check(isSame, `I70 ${key} is v${agreed.version} for ${rank.process.name}, and was v${before.version}`);
    const last = rank.at?.version ?? 0;
    check(agreed.version >= last, `I70 ${key} goes back from v${last} to v${agreed.version}`);
    told.set(key, before);
    rank.at = agreed;
  }

  async function next(rank: Rank, version: ConfirmedVersion): Promise<ConfirmedVersion> {
    const epoch = (rank.at?.epoch ?? 0) + 1;
    const known = told.get(`${rank.run} ${epoch}`);
    const agreed = await agreeOn(version.following, rank.run, epoch, async () => {
      check(known === undefined, `I70 ${rank.run} ${epoch} was agreed on before it was asked, and is not known`);
      const newest = await version.following.newest();
      check(newest.version >= version.version, `I8 the newest version fell to v${newest.version}`);
      return { version: newest.version, root: newest.root, order: ORDER };
    });
    hear(rank, agreed);
    counts.epochs += 1;
    return agreed.version === version.version ? version : version.following.open(agreed);
  }

  async function live(rank: Rank): Promise<void> {
    let version: ConfirmedVersion | null = null;
    const pause = (range: readonly [number, number]): Promise<void> =>
      new Promise((done) => rank.process.runtime.after(between(rank.random, ...range), done));
    while (!stopped) {
      try {
        version = version === null ? await begin(rank) : await next(rank, version);
        await pause(EPOCH_MS);
        if (!chance(rank.random, KILLED)) continue;
        counts.resumed += 1;
        version = null;
      } catch (error) {
        const isEarly = rank.at === null && isShardpactError(error, "not_found");
        if (!isShardpactError(error) || !(isEarly || PASSING.has(error.code))) throw error;
        // A version that could not be opened yet: comes back at what it agreed on.
        if (version !== null && version.version !== rank.at?.version) version = null;
        await pause(RETRY_MS);
      }
    }
  }

  for (const rank of ranks) void live(rank).catch((error: unknown) => scheduler.fail(error as Error));
  return {
    names: ranks.map(({ process }) => process.name),
    counts,
    stop() {
      stopped = true;
    },
  };
}
