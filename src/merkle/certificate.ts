/**
 * Owns how a configuration is proven: by signatures of a quorum of the one before, over the log's history up to it.
 *
 * A voter signs a configuration once it has applied its entry, so that it is chosen; each configuration has one successor
 * at most. Whoever trusts one configuration can therefore follow the chain to any later one, whoever hands it out
 * (docs/spec.md, Configurations). What is not proven this way: that there is no newer one.
 */
import { fromHex, utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { type GroupConfiguration, isVoterQuorum, type VotersOf, votersOf } from "../model/group.ts";
import { canonicalJson } from "../model/json.ts";
import { verify } from "../model/keys.ts";
import { readConfiguration } from "./configuration.ts";
import { hashAs } from "./hash.ts";

/** What a voter of the configuration before signs. */
export interface ConfigurationStatement {
  readonly groupId: string;
  /** Of the configuration's entry, and the hex chain value after it. */
  readonly index: number;
  readonly chain: string;
  /** Digest of the configuration. */
  readonly configuration: string;
}

export interface ConfigurationSignature {
  readonly replica: string;
  /** Ed25519, hex. */
  readonly signature: string;
}

/** One link, as a replica hands it out. */
export interface ConfigurationLink {
  readonly index: number;
  readonly chain: string;
  readonly payload: Uint8Array;
  readonly signatures: readonly ConfigurationSignature[];
}

/** What is trusted of a configuration. */
export type TrustedLink = Pick<GroupConfiguration, "number" | "digest"> & VotersOf;

export function statementDigest({ groupId, index, chain, configuration }: ConfigurationStatement): Uint8Array {
  return hashAs("configurationSignature", utf8(canonicalJson({ chain, configuration, groupId, index })));
}

/** True when the signature is that of a voter of `before`. */
export function isSignedBy(
  before: VotersOf,
  statement: ConfigurationStatement,
  { replica, signature }: ConfigurationSignature,
): boolean {
  const voter = votersOf(before).find((member) => member.id === replica);
  if (!voter || !/^[0-9a-f]{128}$/.test(signature)) return false;
  return verify(voter.publicKey, statementDigest(statement), fromHex(signature));
}

/**
 * The configuration that follows `trusted`, proven; null when it is not signed by enough of its voters (yet).
 * @throws ShardpactError `group_forked` when the link is no successor of `trusted`, or cannot be read
 */
export function followLink(trusted: TrustedLink, groupId: string, link: ConfigurationLink): GroupConfiguration | null {
  const next = readConfiguration(link.payload);
  if (next.number !== trusted.number + 1 || next.previous !== trusted.digest) {
    throw new ShardpactError("group_forked", `configuration ${next.number} does not follow the trusted one`, {
      details: { trusted: trusted.digest, previous: next.previous },
    });
  }
  const statement = { groupId, index: link.index, chain: link.chain, configuration: next.digest };
  const signed = new Set<string>();
  for (const each of link.signatures.slice(0, SIGNATURES_MAX)) {
    if (!signed.has(each.replica) && isSignedBy(trusted, statement, each)) signed.add(each.replica);
  }
  return isVoterQuorum(trusted, ({ id }) => signed.has(id)) ? next : null;
}

/** Checking one costs time, and anybody may answer. */
const SIGNATURES_MAX = 64;
