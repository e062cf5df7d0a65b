/**
 * Owns what a group's `config` entries say: its first one, and those that follow whenever the membership changes.
 *
 * Each configuration names the one before by its digest, so together they are a chain that begins at the group's id;
 * `merkle/configuration.ts` has the digests and how the chain is proven, docs/spec.md the format.
 */
import { z } from "zod";
import type { Digest } from "./bytes.ts";
import { LIMITS } from "./limits.ts";
import { replicaId } from "./names.ts";

const digest = z.templateLiteral(["b3:", z.string().regex(/^[0-9a-f]{64}$/)]);
const count = z.number().int().nonnegative();

/** One replica, as the group's configuration names it. `publicKey`: Ed25519, raw 32 bytes in hex; signs answers. */
export const memberInfo = z.object({ id: z.string(), publicKey: z.string().regex(/^[0-9a-f]{64}$/) });
export type MemberInfo = z.infer<typeof memberInfo>;

/** The group's first log entry. Its digest (`genesis` context, over its canonical JSON) is the group id. */
export const genesis = z.object({
  format: z.literal("shardpact-group/1"),
  name: z.string(),
  nonce: z.string(),
  engine: z.enum(["raft", "paxos"]),
  catalogLevel: z.number().int().positive(),
  voters: z.array(memberInfo).min(1).max(LIMITS.votersMax),
  /** A group founded over what another one agreed on, by `shardpact recover`: which, and up to where. */
  parent: z.object({ groupId: z.string(), index: count, chain: z.string() }).optional(),
});
export type Genesis = z.infer<typeof genesis>;

/** What an operator may ask for: one member at a time. */
export const memberChange = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("add_learner"), member: memberInfo.extend({ id: replicaId }) }),
  z.object({ kind: z.literal("promote"), id: replicaId }),
  z.object({ kind: z.literal("remove"), id: replicaId }),
  /** The learner `by` takes the vote of `id`, which leaves. */
  z.object({ kind: z.literal("replace"), id: replicaId, by: replicaId }),
]);
export type MemberChange = z.infer<typeof memberChange>;

/** What is kept of a request beside what it changed: for auditors, and so that a request sent twice is known. */
export const changeRecord = z.object({
  change: memberChange,
  /** Who says to have asked, and whose key signed it. */
  actor: z.string().max(LIMITS.nameCharsMax),
  signer: z.string(),
  nonce: z.string(),
});
export type ChangeRecord = z.infer<typeof changeRecord>;

const learners = z.array(memberInfo).max(LIMITS.learnersMax);

/** Payload of every later `config` entry, as canonical JSON. */
export const configurationPayload = z.object({
  format: z.literal("shardpact-configuration/1"),
  groupId: digest,
  /** 1 for the first after the genesis. */
  number: z.number().int().positive(),
  /** Digest of the configuration before; the group id when that is the genesis. */
  previous: digest,
  voters: z.array(memberInfo).min(1).max(LIMITS.votersMax),
  /** Not empty during a joint change: then majorities of both decide. */
  votersOutgoing: z.array(memberInfo).max(LIMITS.votersMax),
  learners,
  /** Multi-Paxos: the members' numbers in ballots, as its engine gave them. */
  ordinals: z
    .object({ of: z.record(z.string(), z.number().int().positive()), last: z.number().int().positive() })
    .optional(),
  /** Null when it ends a joint change: nobody asked for that. */
  request: changeRecord.nullable(),
});
export type ConfigurationPayload = z.infer<typeof configurationPayload>;

/** A configuration, wherever it was read. */
export interface GroupConfiguration {
  readonly number: number;
  /** The group id for the genesis. */
  readonly digest: Digest;
  /** Null for the genesis. */
  readonly previous: Digest | null;
  readonly voters: readonly MemberInfo[];
  readonly votersOutgoing: readonly MemberInfo[];
  readonly learners: readonly MemberInfo[];
  readonly ordinals?: ConfigurationPayload["ordinals"];
  readonly request: ChangeRecord | null;
}

export type VotersOf = Pick<GroupConfiguration, "voters" | "votersOutgoing">;

/** Both halves, each voter once. */
export function votersOf({ voters, votersOutgoing }: VotersOf): readonly MemberInfo[] {
  const incoming = new Set(voters.map((member) => member.id));
  return [...voters, ...votersOutgoing.filter((member) => !incoming.has(member.id))];
}

/** True when those that count are a majority of the voters, and of the outgoing ones during a joint change. */
export function isVoterQuorum({ voters, votersOutgoing }: VotersOf, counts: (member: MemberInfo) => boolean): boolean {
  return isMajority(voters, counts) && (votersOutgoing.length === 0 || isMajority(votersOutgoing, counts));
}

/** Never of nobody. */
export function isMajority(half: readonly MemberInfo[], counts: (member: MemberInfo) => boolean): boolean {
  return half.length > 0 && half.filter(counts).length > half.length / 2;
}

/** What a replica may do in a configuration. */
export type MemberRole = "voter" | "learner" | "none";

export function roleIn(
  configuration: Pick<GroupConfiguration, "voters" | "votersOutgoing" | "learners">,
  id: string,
): MemberRole {
  if (votersOf(configuration).some((member) => member.id === id)) return "voter";
  return configuration.learners.some((member) => member.id === id) ? "learner" : "none";
}
