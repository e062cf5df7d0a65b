/**
 * Owns the files of a replica that joins: those that `init` makes for the first ones, taken from what it made for them.
 */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { ShardpactError } from "../../model/errors.ts";
import type { Genesis } from "../../model/group.ts";
import { type GroupMember, memberIds, writeReplicaConfig } from "../embedded/group-files.ts";
import { memberBlock, withMember } from "../embedded/nats-config.ts";
import { checkPostgres, postgresUrl } from "../init.ts";

export interface JoiningOptions {
  /** {id} and {password} as for `init`. */
  readonly postgres?: string;
  /** Default: the other replicas'. */
  readonly nats?: string;
  readonly store?: string[];
}

const known = z.object({ nats: z.array(z.string()), stores: z.array(z.string()) });

/** Writes its configuration, and lets its key in. @throws ShardpactError `invalid_argument`, `config_invalid` */
export async function writeJoiningFiles(
  dir: string,
  genesis: Genesis,
  member: GroupMember,
  o: JoiningOptions,
): Promise<string[]> {
  if (o.postgres === undefined) {
    throw new ShardpactError("invalid_argument", `'${member.id}' needs a database of its own`, {
      hint: "Write --postgres 'postgres://shardpact:{password}@db-{id}:5432/shardpact'.",
    });
  }
  checkPostgres(o.postgres, genesis.voters.length + 1);
  const others = await othersConfig(dir, member.id);
  const nats = o.nats?.split(",").map((url) => url.trim()) ?? others?.nats;
  if (nats === undefined) {
    throw new ShardpactError("invalid_argument", `${dir} holds no other replica's configuration to take NATS from`, {
      hint: "Name the servers with --nats.",
    });
  }
  const stores = o.store !== undefined && o.store.length > 0 ? o.store : (others?.stores ?? []);
  await writeReplicaConfig({ genesis }, member, { nats, postgres: await postgresUrl(o.postgres, member), stores });
  const natsFile = join(dir, "nats.conf");
  const changed = existsSync(natsFile) ? withMember(await readFile(natsFile, "utf8"), genesis.name, member) : null;
  if (changed === null) {
    throw new ShardpactError("config_invalid", `${natsFile} has no list of users to put '${member.id}' into`, {
      hint: `Let it in by hand:\n${memberBlock(genesis.name, member)}`,
    });
  }
  await writeFile(natsFile, changed);
  return [member.configFile, natsFile];
}

/** What another replica's file says of NATS and stores. */
async function othersConfig(dir: string, id: string): Promise<z.infer<typeof known> | null> {
  for (const other of await memberIds(dir)) {
    const file = join(dir, other, "replica.json");
    if (other === id || !existsSync(file)) continue;
    const parsed = known.safeParse(JSON.parse(await readFile(file, "utf8")));
    if (parsed.success) return parsed.data;
  }
  return null;
}
