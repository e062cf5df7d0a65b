/**
 * Owns how configurations are named and read: the digest of a `config` entry's payload, and what the payload says.
 *
 * A configuration names the digest of the one before, and the first one's digest is the group id: whoever holds the id
 * can check every configuration back to it. That the group agreed on one is proven by its signatures (`certificate.ts`).
 */
import { bytesEqual, type Digest, formatDigest, utf8 } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { type ConfigurationPayload, configurationPayload, genesis, type GroupConfiguration } from "../model/group.ts";
import { canonicalJson } from "../model/json.ts";
import { hashAs } from "./hash.ts";

/** @throws ShardpactError `invalid_argument` when the payload is no configuration, or not in its one encoding */
export function readConfiguration(payload: Uint8Array): GroupConfiguration {
  const json = parse(payload);
  const first = genesis.safeParse(json);
  if (first.success) {
    const { voters } = first.data;
    const digest = formatDigest(hashAs("genesis", payload));
    return { number: 0, digest, previous: null, voters, votersOutgoing: [], learners: [], request: null };
  }
  const later = configurationPayload.safeParse(json);
  if (!later.success) throw malformed(later.error.issues[0]?.message ?? "it has no known format");
  if (!bytesEqual(configurationBytes(later.data), payload)) throw malformed("it is not canonical JSON");
  const { format: _format, groupId: _groupId, ...said } = later.data;
  return { ...said, digest: configurationDigest(payload) };
}

/** Payload of a later `config` entry. */
export function configurationBytes(value: ConfigurationPayload): Uint8Array {
  return utf8(canonicalJson(value));
}

export function configurationDigest(payload: Uint8Array): Digest {
  return formatDigest(hashAs("configuration", payload));
}

function parse(payload: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch {
    throw malformed("it is not JSON");
  }
}

function malformed(why: string): ShardpactError {
  return new ShardpactError("invalid_argument", `a configuration cannot be read: ${why}`);
}
