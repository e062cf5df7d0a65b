/**
 * Owns when which fault comes: a shuffled deck of all kinds, dealt one after the other, so that also a short run sees
 * most of them. Some overlap; after a whole deck there is a moment of calm.
 *
 * The seed decides kinds, order, targets and times as they are drawn. Who leads, and how long a restart takes, is the
 * machine's doing: the same seed makes the same plan, not the same run.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { below, between, type Random } from "../sim/scheduler.ts";
import type { Clients } from "./clients.ts";
import type { Cluster } from "./cluster.ts";
import { type Fault, FAULTS, type FaultKind } from "./faults.ts";

const GAP_MS: readonly [number, number] = [200, 1_800];
const CALM_MS = 4_000;
const ACTIVE_MAX = 2;
const POLL_MS = 20;

export interface Nemesis {
  /** Faults that were made, by kind; and how many of those hit the leader. */
  readonly counts: Readonly<Record<string, number>>;
  readonly leaderHits: number;
  /** Parts that a fault has now: they may be down. */
  busy(): ReadonlySet<string>;
  /** Starting or ending a fault has failed: `stop` tells why. */
  failed(): boolean;
  /** No more faults. Resolves when all have ended. @throws what starting or ending one threw */
  stop(): Promise<void>;
}

export interface NemesisOptions {
  readonly cluster: Cluster;
  readonly clients: Clients;
  readonly random: Random;
  readonly say: (line: string) => void;
}

export function startNemesis({ cluster, clients, random, say }: NemesisOptions): Nemesis {
  const counts: Record<string, number> = {};
  const busy = new Set<string>();
  const active = new Set<Promise<void>>();
  let leaderHits = 0;
  let stopping = false;
  let failure: unknown = null;

  async function run(kind: FaultKind, fault: Fault): Promise<void> {
    say(`${kind}: ${fault.text}, for ${fault.lastsMs} ms`);
    counts[kind] = (counts[kind] ?? 0) + 1;
    if (fault.leads) leaderHits += 1;
    try {
      await fault.start();
      await sleep(fault.lastsMs);
    } finally {
      await fault.end();
    }
  }

  async function deal(kind: FaultKind): Promise<void> {
    const leader = (await cluster.leading())?.replica ?? null;
    const fault = FAULTS[kind]({ cluster, clients, random, leader });
    const isFree = (): boolean => active.size < ACTIVE_MAX && fault.parts.every((part) => !busy.has(part));
    while (!isFree() && !stopping) await sleep(POLL_MS);
    if (stopping) return;
    for (const part of fault.parts) busy.add(part);
    const running: Promise<void> = run(kind, fault)
      .catch((error: unknown) => {
        failure ??= error;
        stopping = true;
      })
      .finally(() => {
        for (const part of fault.parts) busy.delete(part);
        active.delete(running);
      });
    active.add(running);
  }

  async function storm(): Promise<void> {
    while (!stopping) {
      for (const kind of shuffled(Object.keys(FAULTS) as FaultKind[], random)) {
        await deal(kind);
        await sleep(between(random, ...GAP_MS));
        if (stopping) break;
      }
      if (!stopping) await sleep(CALM_MS);
    }
    await Promise.all(active);
    if (failure !== null) throw failure as Error;
  }

  const storming = storm();
  storming.catch(() => undefined); // `stop` tells
  return {
    counts,
    get leaderHits() {
      return leaderHits;
    },
    busy: () => busy,
    failed: () => failure !== null,
    async stop() {
      stopping = true;
      await storming;
    },
  };
}

function shuffled<T>(from: readonly T[], random: Random): T[] {
  const deck = [...from];
  for (let i = deck.length - 1; i > 0; i--) {
    const j = below(random, i + 1);
    [deck[i], deck[j]] = [deck[j] as T, deck[i] as T];
  }
  return deck;
}
