/**
 * Owns the two pieces of work of a session that wait for something: reading entries for the engine, and handing over.
 */
import type { Effect } from "../consensus/engine.ts";
import { isShardpactError } from "../model/errors.ts";
import type { LogStore } from "../storage/port.ts";
import type { Driver } from "./driver.ts";
import type { Peers } from "./peers.ts";
import type { Runtime } from "./runtime.ts";

const HAND_OVER_POLL_MS = 5;

/** Answers the engine's `load`. */
export async function load<M>(
  { driver, log }: { readonly driver: Driver<M>; readonly log: LogStore },
  { token, from, to, bytesMax }: Extract<Effect<M>, { kind: "load" }>,
): Promise<void> {
  try {
    const entries = await log.read(from, to, bytesMax);
    driver.feed({ kind: "loaded", token, entries });
  } catch (error) {
    // Compacted meanwhile: whoever needs it gets a snapshot.
    if (isShardpactError(error, "not_found")) return driver.feed({ kind: "load_failed", token });
    if (!isShardpactError(error, "damaged")) return driver.fail(error);
    driver.feed({ kind: "load_failed", token });
    driver.stopVoting(error.message);
  }
}

interface HandOver<M> {
  readonly driver: Driver<M>;
  readonly peers: Peers;
  readonly runtime: Runtime;
  readonly timeoutMs: number;
}

/** A leader that is about to stop gives the lead to a live peer, if it can in time. */
export async function handOver<M>({ driver, peers, runtime, timeoutMs }: HandOver<M>): Promise<void> {
  const to = peers.lastHeard(timeoutMs);
  if (to === null || driver.status().role !== "leader") return;
  const deadlineMs = runtime.monotonicMs() + timeoutMs;
  driver.feed({ kind: "transfer", to });
  while (!driver.over() && driver.status().role === "leader" && runtime.monotonicMs() < deadlineMs) {
    await new Promise<void>((resolve) => void runtime.after(HAND_OVER_POLL_MS, resolve));
  }
}
