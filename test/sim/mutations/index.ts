/**
 * Owns the list of all bugs that the simulator must find, by engine.
 */
import type { EngineName } from "../engines.ts";
import { FOLLOWING_MUTATIONS } from "./following.ts";
import type { Mutation } from "./mutation.ts";
import { PAXOS_MUTATIONS } from "./paxos.ts";
import { RAFT_MUTATIONS } from "./raft.ts";
import { SHARED_MUTATIONS } from "./shared.ts";

export const MUTATIONS: Readonly<Record<EngineName, readonly Mutation[]>> = {
  raft: [...RAFT_MUTATIONS, ...SHARED_MUTATIONS, ...FOLLOWING_MUTATIONS],
  paxos: [...PAXOS_MUTATIONS, ...SHARED_MUTATIONS, ...FOLLOWING_MUTATIONS],
};
