/**
 * Owns what a replica is told: who it is, which group it belongs to, where its NATS and its Postgres are, its timing.
 */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { genesis, type Genesis } from "../model/api.ts";
import { canonicalJson } from "../model/commands.ts";
import { type Digest, formatDigest, utf8 } from "../model/bytes.ts";
import { ShardpactError, toShardpactError } from "../model/errors.ts";
import { type SigningKey, signingKey } from "../model/keys.ts";
import { replicaId } from "../model/names.ts";
import { hashAs } from "../merkle/hash.ts";

const ticks = z.number().int().positive();

/**
 * The defaults: a heartbeat every 60 ms, an election after 400 to 800 ms of silence. A dead leader is replaced within two
 * timeouts, and a process that is starved for a third of a second by its neighbours keeps its office.
 */
const timing = z
  .object({
    tickMs: z.number().int().min(1).max(1000).default(20),
    heartbeatTicks: ticks.default(3),
    electionTicksMin: ticks.default(20),
    electionTicksMax: ticks.default(40),
  })
  .refine((t) => t.heartbeatTicks * 3 <= t.electionTicksMin, "an election timeout must hold three heartbeats")
  .refine((t) => t.electionTicksMin < t.electionTicksMax, "electionTicksMin must be below electionTicksMax");
export type ReplicaTiming = z.infer<typeof timing>;

/**
 * How much of what is applied stays in the log, for followers that lag: up to so many entries, of at most so many bytes.
 * One that needs more gets a snapshot. It is cut when `compactEntries` more than that are there.
 */
const logTuning = z.object({
  keepEntries: z.number().int().nonnegative().default(100_000),
  keepBytes: z
    .number()
    .int()
    .positive()
    .default(256 * 1024 * 1024),
  compactEntries: z.number().int().positive().default(8_192),
});
export type LogTuning = z.infer<typeof logTuning>;

export const replicaConfig = z.object({
  replica: replicaId,
  /** User NKey seed: authenticates at NATS and signs answers. */
  seed: z.string(),
  genesis,
  nats: z.array(z.string().min(1)).min(1),
  /** URL of this replica's own database. */
  postgres: z.string().min(1),
  /** Where shard bytes may be found; told to clients as hints. */
  stores: z.array(z.string()),
  timing: timing.prefault({}),
  log: logTuning.prefault({}),
  /** Folder for snapshots on their way, this replica's alone; by default one below the system's for temporary files. */
  snapshotDir: z.string().min(1).optional(),
});
export type ReplicaConfig = z.infer<typeof replicaConfig>;
/** The same with `timing` and `log` optional: what a configuration file holds. */
export type ReplicaConfigInput = z.input<typeof replicaConfig>;

/** What follows from a configuration. */
export interface GroupIdentity {
  readonly key: SigningKey;
  /** Payload of the group's first log entry. */
  readonly genesisBytes: Uint8Array;
  readonly groupId: Digest;
}

/** Payload of the first entry and, by its digest, the group's name for ever. */
export function genesisPayload(value: Genesis): Uint8Array {
  return utf8(canonicalJson(value));
}

export function groupIdOf(genesisBytes: Uint8Array): Digest {
  return formatDigest(hashAs("genesis", genesisBytes));
}

/** Validates a configuration. @throws ShardpactError `config_invalid` naming the field */
export function parseReplicaConfig(value: unknown, source = "the configuration"): ReplicaConfig {
  const parsed = replicaConfig.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = issue?.path.join(".") ?? "";
    throw new ShardpactError(
      "config_invalid",
      `${source}: ${path === "" ? "" : `${path}: `}${issue?.message ?? "malformed"}`,
      {
        details: { path, issues: parsed.error.issues.length },
      },
    );
  }
  groupIdentity(parsed.data, source);
  return parsed.data;
}

/** Key and group id; checks that the key is the one that the genesis lists for this replica, if it does. @throws ShardpactError `config_invalid` */
export function groupIdentity(config: ReplicaConfig, source = "the configuration"): GroupIdentity {
  const key = signingKey(config.seed);
  const { voters } = config.genesis;
  const own = voters.find((voter) => voter.id === config.replica);
  if (new Set(voters.map((voter) => voter.id)).size !== voters.length) {
    throw new ShardpactError("config_invalid", `${source}: genesis.voters names a replica twice`);
  }
  // One that joins later is named by a later configuration.
  if (own && own.publicKey !== key.publicKeyHex) {
    throw new ShardpactError(
      "config_invalid",
      `${source}: the seed is not the key that the group lists for '${config.replica}'`,
      {
        details: { listed: own.publicKey, derived: key.publicKeyHex },
        hint: "Use the seed that was made together with this group's genesis.",
      },
    );
  }
  const genesisBytes = genesisPayload(config.genesis);
  return { key, genesisBytes, groupId: groupIdOf(genesisBytes) };
}

/** Reads and validates a JSON file. @throws ShardpactError `config_invalid` */
export async function loadReplicaConfig(path: string): Promise<ReplicaConfig> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new ShardpactError("config_invalid", `${path}: ${toShardpactError(cause).message}`, {
      cause,
      hint: "The file holds one JSON object; `shardpact init` writes one per replica.",
    });
  }
  return parseReplicaConfig(value, path);
}
