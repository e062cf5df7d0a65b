/**
 * Owns how a leader that is about to stop hands over.
 */
import type { Driver } from "./driver.ts";
import type { Peers } from "./peers.ts";
import type { Runtime } from "./runtime.ts";

const HAND_OVER_POLL_MS = 5;

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
