/**
 * Owns `shardpact transfer`: hands the lead to a named replica, before its machine is maintained or moved.
 */
import type { Command } from "commander";
import { findLeader, transferLead } from "../client/admin.ts";
import { ShardpactError } from "../model/errors.ts";
import { type Context, inGroup } from "./context.ts";
import { findSigner, groupDir, type SignedOptions, withSignerOptions } from "./member/signer.ts";

export function register(command: Command): void {
  withSignerOptions(command.argument("<id>", "the voter that is to lead"))
    .addHelpText("after", "\nExample:\n  $ shardpact transfer r2")
    .action((id: string, o: SignedOptions) => inGroup(o, (context) => transfer(context, id, o)));
}

async function transfer({ session, out, timeoutMs, signal }: Context, to: string, o: SignedOptions): Promise<void> {
  const { configuration, replica: from } = await findLeader(session, { timeoutMs, signal });
  if (configuration === null) throw new ShardpactError("internal", "a leader has a configuration");
  await transferLead(session, to, await findSigner(groupDir(o), configuration), { timeoutMs, signal });
  const { term } = await findLeader(session, { timeoutMs, signal });
  out.data({ group: session.group, from, to, term });
  out.line(from === to ? `${to} leads already` : `${to} leads now, in term ${term} (was ${from})`);
}
