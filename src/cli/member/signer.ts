/**
 * Owns in whose name an operator asks: the key of a voter, found in the folder that `init` or `up` made.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import type { Signer } from "../../client/admin.ts";
import type { ConfigurationStatus } from "../../model/api.ts";
import { ShardpactError } from "../../model/errors.ts";
import { votersOf } from "../../model/group.ts";
import { publicKeyHex } from "../../model/keys.ts";
import { type GroupOptions, withGroupOptions } from "../context.ts";
import { memberIds } from "../embedded/group-files.ts";

export interface SignedOptions extends GroupOptions {
  readonly dir?: string;
}

export interface WaitOptions extends SignedOptions {
  readonly wait: number;
}

/** The options of a verb that asks in a voter's name. */
export function withSignerOptions(command: Command): Command {
  return withGroupOptions(command).option(
    "--dir <dir>",
    "the group's folder with its keys (default: deploy, else .shardpact)",
  );
}

export function groupDir({ dir }: SignedOptions): string {
  return resolve(dir ?? (existsSync("deploy") || !existsSync(".shardpact") ? "deploy" : ".shardpact"));
}

/** The first voter whose key is in the folder. @throws ShardpactError `unauthorized` */
export async function findSigner(dir: string, configuration: ConfigurationStatus): Promise<Signer> {
  const ids = existsSync(dir) ? await memberIds(dir) : [];
  for (const { id, publicKey } of votersOf(configuration)) {
    if (!ids.includes(id)) continue;
    const seed = (await readFile(join(dir, id, "seed.nk"), "utf8")).trim();
    if (publicKeyHex(seed) === publicKey) return { id, seed };
  }
  throw new ShardpactError("unauthorized", `${dir} holds no key of a voter of this group`, {
    details: { voters: votersOf(configuration).map((member) => member.id) },
    hint: "Changes are signed with a voter's seed: name the folder with <id>/seed.nk by --dir.",
  });
}
