/**
 * Owns the door of the Multi-Paxos engine: the only file of this folder that others import.
 */
import type { EngineKind } from "../engine.ts";
import { decodeMessage, encodeMessage } from "./codec.ts";
import type { PaxosMessage } from "./messages.ts";
import { step } from "./paxos.ts";
import { createPaxos, statusOf } from "./state.ts";

export type { PaxosMessage } from "./messages.ts";

/**
 * Multi-Paxos ("Paxos Made Simple" §3; Howard and Mortier, "Paxos vs Raft", 2020) on contiguous logs: one phase 1 for
 * the whole suffix, pipelined accepts in slot order, heartbeat-confirmed reads, hand-over.
 */
export const paxosEngine: EngineKind<PaxosMessage> = {
  name: "paxos",
  create(start, tuning) {
    const paxos = createPaxos(start, tuning);
    return { step: (event) => step(paxos, event), status: () => statusOf(paxos) };
  },
  encodeMessage,
  decodeMessage,
};
