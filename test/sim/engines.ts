/**
 * Owns the table of engines that the simulator runs: the engine, and what its log is held to.
 */
import type { EngineKind } from "../../src/consensus/engine.ts";
import { paxosEngine, type PaxosMessage } from "../../src/consensus/paxos/index.ts";
import { raftEngine, type RaftMessage } from "../../src/consensus/raft/index.ts";
import type { LogRules, RulesWorld } from "./log-rules.ts";
import { createPaxosRules } from "./paxos-rules.ts";
import { createRaftRules } from "./raft-rules.ts";

export interface SimEngine<M> {
  readonly kind: EngineKind<M>;
  readonly createRules: (world: RulesWorld) => LogRules<M>;
}

export type EngineName = EngineKind<unknown>["name"];

const RAFT: SimEngine<RaftMessage> = { kind: raftEngine, createRules: createRaftRules };
const PAXOS: SimEngine<PaxosMessage> = { kind: paxosEngine, createRules: createPaxosRules };

/** Gives `use` the engine of that name, whatever its messages are. */
export function withEngine<T>(name: EngineName, use: <M>(engine: SimEngine<M>) => T): T {
  return name === "raft" ? use(RAFT) : use(PAXOS);
}

/** @throws Error for a name that no engine has */
export function engineNamed(name: string): EngineName {
  if (name === "raft" || name === "paxos") return name;
  throw new Error(`there is no engine '${name}': raft, paxos`);
}
