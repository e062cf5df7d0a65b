/**
 * Owns `shardpact init`: the files of a group that is run by hand or by docker compose (docs/operations.md).
 */
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Genesis } from "../model/api.ts";
import { ShardpactError } from "../model/errors.ts";
import { LIMITS } from "../model/limits.ts";
import { type GroupMember, openGroupFiles, writeReplicaConfig } from "./embedded/group-files.ts";
import { natsConfig } from "./embedded/nats-config.ts";
import { createOutput } from "./output.ts";

export interface InitOptions {
  readonly dir: string;
  readonly name: string;
  readonly replicas: number;
  readonly engine: Genesis["engine"];
  readonly nats: string;
  readonly postgres: string;
  readonly store: string[];
  readonly json?: boolean;
}

const EXAMPLE = `
Examples:
  $ shardpact init --nats nats://n1:4222,nats://n2:4222,nats://n3:4222 \\
      --postgres 'postgres://shardpact:{password}@db-{id}:5432/shardpact' --store file:///mnt/shards`;
const CLIENT_PORT = 4222;
const CLUSTER_PORT = 6222;

/** What every group's files need, old or new. */
export function addGroupFileOptions(command: Command): Command {
  return command
    .requiredOption("--nats <urls>", "NATS servers, comma-separated")
    .requiredOption("--postgres <url>", "a replica's database: {id} stands for r1, r2, …, {password} for one made here")
    .option("--replicas <count>", "voters: 3 or 5", replicaCount, 3)
    .option("--store <url>", "where clients find shard bytes (file:///…); may be repeated", append, [])
    .option("--json", "machine-readable output");
}

export function register(command: Command): void {
  addGroupFileOptions(command)
    .option("--dir <dir>", "where the files go; keys that are there are kept", "deploy")
    .option("--name <name>", "name of the group: part of its subjects and of its identity", "main")
    .addOption(new Option("--engine <engine>", "fixed for good").choices(["raft", "paxos"]).default("raft"))
    .addHelpText("after", EXAMPLE)
    .action(async (options: InitOptions) => {
      const made = await initGroup(options);
      const out = createOutput(options.json === true);
      out.data({ group: options.name, ...made });
      out.line(`group ${options.name}, id ${made.groupId}`);
      for (const file of made.files) out.line(`  ${file}`);
      out.line("Keep */seed.nk and */replica.json secret: whoever has them is that replica.");
    });
}

/** Writes everything below `dir`; keys and genesis only if they are not there. @throws ShardpactError `config_invalid` */
export async function initGroup(options: InitOptions): Promise<{ groupId: string; files: readonly string[] }> {
  const dir = resolve(options.dir);
  const servers = options.nats.split(",").map((url) => url.trim());
  const hosts = servers.map(hostOf);
  checkPostgres(options.postgres, options.replicas);
  const { name, replicas, engine } = options;
  const group = await openGroupFiles({ dir, name, replicas, engine });
  const files = [join(dir, "group.json"), join(dir, "nats.conf")];
  for (const member of group.members) {
    const postgres = await postgresUrl(options.postgres, member);
    await writeReplicaConfig(group, member, { nats: servers, postgres, stores: options.store });
    files.push(member.configFile);
  }
  const routes = hosts.map((host) => `nats-route://${host}:${CLUSTER_PORT}`);
  const cluster = hosts.length > 1 ? { port: CLUSTER_PORT, routes } : null;
  const access = { group: options.name, members: group.members };
  // Readable for the server's own user: it holds public keys only.
  await writeFile(join(dir, "nats.conf"), natsConfig({ access, host: "0.0.0.0", port: CLIENT_PORT, cluster }));
  return { groupId: group.groupId, files };
}

/** Fills the template in; a password is made once and kept beside the key, where the database's image can read it. */
export async function postgresUrl(template: string, member: GroupMember): Promise<string> {
  const url = template.replaceAll("{id}", member.id);
  if (!url.includes("{password}")) return url;
  const file = join(member.dir, "postgres-password");
  if (!existsSync(file)) {
    await mkdir(member.dir, { recursive: true });
    await writeFile(file, randomBytes(18).toString("base64url"), { mode: 0o600 });
  }
  return url.replaceAll("{password}", (await readFile(file, "utf8")).trim());
}

/** One database for all would be one copy of the log: each replica's must be another. */
export function checkPostgres(template: string, replicas: number): void {
  if (!/^postgres(ql)?:\/\/./.test(template) || !URL.canParse(template)) {
    throw new ShardpactError("config_invalid", `'${template}' is not the address of a Postgres database`, {
      hint: "Write postgres://shardpact:{password}@db-{id}:5432/shardpact.",
    });
  }
  if (replicas === 1 || template.includes("{id}")) return;
  throw new ShardpactError("config_invalid", `'${template}' is one database for all replicas`, {
    hint: "Each replica has its own: write {id} where they differ, in the host or in the database's name.",
  });
}

function hostOf(url: string): string {
  const host = URL.canParse(url) ? new URL(url).hostname : "";
  if (host !== "") return host;
  throw new ShardpactError("config_invalid", `'${url}' is not a NATS address`, { hint: "Write nats://host:4222." });
}

function replicaCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= LIMITS.votersMax && count % 2 === 1) return count;
  throw new InvalidArgumentError(`an odd number up to ${LIMITS.votersMax}; an even one adds no safety.`);
}

function append(value: string, before: readonly string[]): string[] {
  return [...before, value];
}
