/**
 * Owns `shardpact member add`: a new replica's key and files, and the group's word that it may learn.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { ShardpactError } from "../../model/errors.ts";
import { publicKeyHex } from "../../model/keys.ts";
import { replicaId } from "../../model/names.ts";
import { type Context, inGroup } from "../context.ts";
import { openGenesis, openMember } from "../embedded/group-files.ts";
import { change, sayMembership } from "./change.ts";
import { writeJoiningFiles } from "./files.ts";
import { groupDir, type SignedOptions, withSignerOptions } from "./signer.ts";

interface AddOptions extends SignedOptions {
  readonly postgres?: string;
  readonly nats?: string;
  readonly store?: string[];
}

const HELP = `
The new replica starts as a learner: it gets the whole log and decides nothing. Start it, and promote it.

Example:
  $ shardpact member add r4 --postgres 'postgres://shardpact:{password}@db-{id}:5432/shardpact'
  … deploy/nats.conf to every NATS server, then nats-server --signal reload
  … deploy/r4/ to its machine: shardpact node --config replica.json
  $ shardpact member promote r4`;

export function register(command: Command): void {
  withSignerOptions(command.argument("<id>", "a new id: never one that another machine had"))
    .option("--postgres <url>", "its database: {id} and {password} as for init; not needed below `shardpact up`")
    .option("--nats <urls>", "NATS servers, comma-separated (default: those of the other replicas)")
    .option(
      "--store <url>",
      "where clients find shard bytes; may be repeated",
      (url, all: string[]) => [...all, url],
      [],
    )
    .addHelpText("after", HELP)
    .action((id: string, o: AddOptions) => inGroup(o, (context) => add(context, id, o)));
}

async function add(context: Context, id: string, o: AddOptions): Promise<void> {
  const { out, session } = context;
  const dir = groupDir(o);
  if (!replicaId.safeParse(id).success) {
    throw new ShardpactError("invalid_argument", `'${id}' cannot be a replica's id`, {
      hint: "Use up to 32 lower-case letters, digits and '-'.",
    });
  }
  const genesis = await openGenesis(dir);
  if (genesis.name !== session.group || genesis.nonce !== session.genesis.nonce) {
    throw new ShardpactError(
      "config_invalid",
      `${dir} is of the group '${genesis.name}', not of the one that answers`,
      {
        hint: "Name the group's folder with --dir.",
      },
    );
  }
  // Below `shardpact up`, which runs the replicas itself and starts whoever has a key there.
  const isLocal = existsSync(join(dir, "ports.json"));
  const member = await openMember(dir, id, false);
  const files = isLocal ? [] : await writeJoiningFiles(dir, genesis, member, o);
  const publicKey = publicKeyHex(member.seed);
  const status = await change(context, dir, { kind: "add_learner", member: { id, publicKey } });
  sayMembership(context, status);
  for (const file of files) out.line(`  ${file}`);
  const next = isLocal
    ? "`shardpact up` starts it within a few seconds."
    : `Next: bring ${join(dir, "nats.conf")} to every NATS server and reload it, ${member.dir} to its machine, start it.`;
  out.line(`${next}\nThen: shardpact member promote ${id}`);
}
