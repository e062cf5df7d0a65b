/**
 * Owns the files that make a group: one secret key a replica, the genesis that names them, a configuration each.
 *
 * Keys and genesis are made once and then only read: the genesis is the group's identity, and a replica that lost its key
 * is no member any more. Configurations are written anew, because addresses may change.
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Genesis, genesis as genesisSchema } from "../../model/api.ts";
import { ShardpactError, toShardpactError } from "../../model/errors.ts";
import { groupName, isReplicaId } from "../../model/names.ts";
import { createSeed, nkeyOf, publicKeyHex } from "../../model/keys.ts";
import { type ReplicaConfigInput, genesisPayload, groupIdOf, parseReplicaConfig } from "../../replica/config.ts";
import type { NatsMember } from "./nats-config.ts";

export interface GroupOptions {
  /** `<dir>/group.json` is the genesis; `<dir>/<id>/` is what the replica's machine needs. */
  readonly dir: string;
  readonly name: string;
  readonly engine: "raft" | "paxos";
  /** How many: r1, r2, … */
  readonly replicas: number;
}

export interface GroupMember extends NatsMember {
  readonly dir: string;
  readonly configFile: string;
  readonly seed: string;
}

export interface GroupFiles {
  readonly genesis: Genesis;
  readonly groupId: string;
  /** The first voters, then whoever has a key here and came later (`shardpact member add`), by name. */
  readonly members: readonly GroupMember[];
}

/** The only command set there is so far; `upgrade_required` guards later ones. */
const CATALOG_LEVEL = 1;

/** Makes what is missing and reads what is there. @throws ShardpactError `config_invalid` when the folder holds another group */
export async function openGroupFiles(options: GroupOptions): Promise<GroupFiles> {
  const file = join(options.dir, "group.json");
  const ids = Array.from({ length: options.replicas }, (_, i) => `r${i + 1}`);
  checkName(options.name);
  const known = existsSync(file) ? await readGenesis(file) : null;
  if (known !== null) checkSame(known, options, ids, file);
  const voters = await Promise.all(ids.map((id) => openMember(options.dir, id, known !== null)));
  const genesis = known ?? newGenesis(options, voters);
  if (known === null) await writeWhole(file, genesis, 0o644);
  const joined = (await memberIds(options.dir)).filter((id) => !ids.includes(id));
  const members = [...voters, ...(await Promise.all(joined.map((id) => openMember(options.dir, id, true))))];
  return { genesis, groupId: groupIdOf(genesisPayload(genesis)), members };
}

/** Ids of all who have a key in a group's folder, by name. */
export async function memberIds(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory() && isReplicaId(entry.name));
  return folders
    .map((entry) => entry.name)
    .filter((id) => existsSync(join(dir, id, "seed.nk")))
    .toSorted();
}

/** The genesis of a group's folder. @throws ShardpactError `not_found`, `config_invalid` */
export async function openGenesis(dir: string): Promise<Genesis> {
  const file = join(dir, "group.json");
  if (existsSync(file)) return await readGenesis(file);
  throw new ShardpactError("not_found", `${file} is not there`, {
    hint: "Name the folder that `shardpact init` or `shardpact up` made: --dir <dir>.",
  });
}

/** Writes the member's configuration file. @throws ShardpactError `config_invalid` when it would not validate */
export async function writeReplicaConfig(
  { genesis }: Pick<GroupFiles, "genesis">,
  member: GroupMember,
  where: Pick<ReplicaConfigInput, "nats" | "postgres" | "stores" | "log" | "snapshotDir">,
): Promise<void> {
  const config: ReplicaConfigInput = { replica: member.id, ...where, seed: member.seed, genesis };
  parseReplicaConfig(config, member.configFile);
  await writeWhole(member.configFile, config, 0o600);
}

/** Replaces the file in one step. */
export async function writeWhole(file: string, value: unknown, mode: number): Promise<void> {
  const fresh = `${file}.new-${process.pid}`;
  await writeFile(fresh, `${JSON.stringify(value, null, 2)}\n`, { mode });
  await rename(fresh, file);
}

/** A member's files; its key is made when it isn't there, unless it must be. */
export async function openMember(groupDir: string, id: string, mustExist: boolean): Promise<GroupMember> {
  const dir = join(groupDir, id);
  const seedFile = join(dir, "seed.nk");
  await mkdir(dir, { recursive: true });
  if (!existsSync(seedFile)) {
    if (mustExist) {
      throw new ShardpactError("config_invalid", `${seedFile} is missing: the key of '${id}' is part of this group`, {
        hint: "Put the key back from your backup, or start a new group in another folder.",
      });
    }
    await writeFile(seedFile, `${createSeed()}\n`, { mode: 0o600 });
  }
  const seed = (await readFile(seedFile, "utf8")).trim();
  return { id, dir, seed, nkey: nkeyOf(seed), configFile: join(dir, "replica.json") };
}

/** The name is a token of the group's NATS subjects: a dot would make it two. */
function checkName(name: string): void {
  const parsed = groupName.safeParse(name);
  if (parsed.success && !name.includes(".")) return;
  throw new ShardpactError("config_invalid", `'${name}' cannot be a group's name`, {
    hint: "Use lower-case letters, digits, '_' and '-'; it starts and ends with a letter or digit.",
  });
}

function newGenesis({ name, engine }: GroupOptions, members: readonly GroupMember[]): Genesis {
  return {
    format: "shardpact-group/1",
    name,
    nonce: randomBytes(16).toString("hex"),
    engine,
    catalogLevel: CATALOG_LEVEL,
    voters: members.map(({ id, seed }) => ({ id, publicKey: publicKeyHex(seed) })),
  };
}

async function readGenesis(file: string): Promise<Genesis> {
  try {
    return genesisSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch (cause) {
    throw new ShardpactError("config_invalid", `${file} is no genesis: ${toShardpactError(cause).message}`, { cause });
  }
}

function checkSame(known: Genesis, { name, engine, dir }: GroupOptions, ids: readonly string[], file: string): void {
  const voters = known.voters.map((voter) => voter.id);
  const wanted = `${name}, ${engine}, ${ids.join(" ")}`;
  const got = `${known.name}, ${known.engine}, ${voters.join(" ")}`;
  if (wanted === got) return;
  throw new ShardpactError("config_invalid", `${file} holds the group (${got}), not (${wanted})`, {
    details: { wanted, got },
    hint: `Name, engine and first voters never change. Use another folder than ${dir} for another group.`,
  });
}
