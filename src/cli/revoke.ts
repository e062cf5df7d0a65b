/**
 * Owns `shardpact revoke`: a version, or a shard wherever it is used, is refused to every reader from now on.
 */
import type { Command } from "commander";
import { command as send } from "../client/runs.ts";
import { resolve } from "../client/open.ts";
import { formatDigest, parseDigest } from "../model/bytes.ts";
import { ShardpactError } from "../model/errors.ts";
import { parseRef } from "../model/names.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";

type Options = GroupOptions & { readonly reason: string };

export function register(command: Command): void {
  withGroupOptions(command.argument("<what>", "a version (name@v3), or a shard's file digest (b3:…)"))
    .requiredOption("--reason <text>", "why; everybody who is refused reads it")
    .addHelpText(
      "after",
      '\nA revocation can not be taken back: publish a good version instead. Running loaders stop.\n\nExample:\n  $ shardpact revoke mnist@v3 --reason "labels of val are shifted by one"',
    )
    .action((what: string, o: Options) => inGroup(o, (context) => revoke(context, what, o.reason)));
}

async function revoke({ session, out, timeoutMs, signal }: Context, what: string, reason: string): Promise<void> {
  const calls = { timeoutMs, signal };
  if (what.startsWith("b3:")) {
    const digest = formatDigest(parseDigest(what));
    const { index, result } = await send(session, "shard.revoke", { digest, reason }, calls);
    out.data({ index, ...result });
    return out.line(`shard ${digest} is revoked at index ${index}`);
  }
  const ref = parseRef(what);
  if (ref.target.kind !== "version" && ref.target.kind !== "root") {
    throw new ShardpactError("invalid_argument", `'${what}' may point elsewhere tomorrow`, {
      hint: "Name the version itself: name@v3. `shardpact show` tells which it is.",
    });
  }
  const { version } = await resolve(session, ref, calls);
  const body = { dataset: version.dataset, version: version.version, reason };
  const { index, result } = await send(session, "version.revoke", body, calls);
  out.data({ index, ...result });
  out.line(`${version.dataset}@v${version.version} is revoked at index ${index}`);
}
