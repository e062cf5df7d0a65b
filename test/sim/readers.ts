/**
 * Owns the simulated readers: real client code that asks one replica, which may be any, for a linearizable read or for one of
 * a bounded age (`rowsFromOne`), or has what that replica confirms as if it led (`confirm`: a client that has not heard of a
 * later leader), and what each answer must hold (docs/spec.md: I8, I60, I61).
 */
import { confirm } from "../../src/client/confirm.ts";
import { rowsFromOne } from "../../src/client/rows.ts";
import { createSession } from "../../src/client/session.ts";
import { type ErrorCode, isShardpactError } from "../../src/model/errors.ts";
import type { ReadConsistency } from "../../src/model/api.ts";
import { type Cluster, fork } from "./cluster.ts";
import { createProcess } from "./process.ts";
import { between, chance, pick, type Random, type Scheduler } from "./scheduler.ts";

/** What clients were told, and when: whoever reads later must see it. */
export interface Acknowledged {
  told(index: number): void;
  /** The highest index that anybody was told of by then. */
  by(ms: number): number;
  now(): number;
}

export function createAcknowledged(scheduler: Pick<Scheduler, "nowMs">): Acknowledged {
  const points: { readonly ms: number; readonly index: number }[] = [];
  const now = (): number => points.at(-1)?.index ?? 0;
  return {
    told(index) {
      if (index > now()) points.push({ ms: scheduler.nowMs(), index });
    },
    by: (ms) => points.findLast((point) => point.ms <= ms)?.index ?? 0,
    now,
  };
}

export interface Readers {
  readonly counts: { linearizable: number; bounded: number };
  readonly name: string;
  stop(): void;
}

export interface ReadersOptions {
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly cluster: Cluster;
  readonly acknowledged: Acknowledged;
}

const EVERY_MS: readonly [number, number] = [20, 300];
const TIMEOUT_MS: readonly [number, number] = [100, 2_000];
const AGE_MS: readonly [number, number] = [1, 3_000];
/** A replica counts an age by its own clock, which may be a tenth too fast or too slow. */
const CLOCK_RATE_MAX = 1.12;
/** Share of reads. */
const CONFIRMED = 0.4;
const QUERY = { kind: "datasets", after: "", limit: 10 } as const;
const PASSING = new Set<ErrorCode>(["unavailable", "timeout", "not_leader", "no_quorum"]);

export function startReaders({ scheduler, random, cluster, acknowledged }: ReadersOptions): Readers {
  const { genesis, groupId, network, checker } = cluster;
  const check: typeof checker.check = checker.check;
  const counts = { linearizable: 0, bounded: 0 };
  const process = createProcess("reader", scheduler, fork(random), { offsetMs: 0, rate: 1 });
  const session = createSession({
    transport: network.connect(process),
    timing: process.timing,
    discovered: { group: genesis.name, groupId, genesis, leader: null, stores: [] },
    actor: "reader",
    onNotice: () => undefined,
  });
  let stopped = false;

  function next(): void {
    process.runtime.after(between(random, ...EVERY_MS), () => {
      if (stopped) return;
      void read()
        .catch((error: unknown) => {
          if (!isShardpactError(error) || !PASSING.has(error.code)) scheduler.fail(error as Error);
        })
        .finally(next);
    });
  }

  async function readConfirmed(): Promise<void> {
    session.hintLeader(pick(random, cluster.ids));
    const floor = acknowledged.now();
    const timeoutMs = Math.ceil(between(random, ...TIMEOUT_MS));
    const { index } = (await confirm(session, QUERY, { timeoutMs })).confirmation;
    check(index >= floor, `I8 a reader got ${index} confirmed; ${floor} was acknowledged before it asked`);
    counts.linearizable += 1;
  }

  async function read(): Promise<void> {
    if (chance(random, CONFIRMED)) return readConfirmed();
    const isBounded = chance(random, 0.5);
    const ageMsMax = Math.ceil(between(random, ...AGE_MS));
    const consistency: ReadConsistency = isBounded ? { kind: "bounded", ageMsMax } : { kind: "linearizable" };
    const askedMs = scheduler.nowMs();
    const floor = acknowledged.now();
    const timeoutMs = Math.ceil(between(random, ...TIMEOUT_MS));
    const { index, ageMs, replica } = await rowsFromOne(session, QUERY, consistency, { timeoutMs });
    // A damaged or removed replica answers nothing that it is not sure of, either.
    if (isBounded) {
      counts.bounded += 1;
      const ms = askedMs - (ageMs ?? 0) * CLOCK_RATE_MAX - 1;
      const least = acknowledged.by(ms);
      check(index >= least, `I61 ${replica} read at ${index}, ${ageMs} ms old; ${least} was acknowledged before that`);
      check((ageMs ?? Infinity) <= ageMsMax, `I61 ${replica} answered ${ageMs} ms old, at most ${ageMsMax} was wanted`);
    } else {
      counts.linearizable += 1;
      check(index >= floor, `I60 ${replica} read at ${index}; ${floor} was acknowledged before it was asked`);
    }
  }

  next();
  return {
    counts,
    name: process.name,
    stop() {
      stopped = true;
    },
  };
}
