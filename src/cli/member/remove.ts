/**
 * Owns `shardpact member remove`: a voter or learner leaves the group.
 */
import type { Command } from "commander";
import { inGroup } from "../context.ts";
import { change, sayMembership } from "./change.ts";
import { groupDir, type SignedOptions, withSignerOptions } from "./signer.ts";

export function register(command: Command): void {
  withSignerOptions(command.argument("<id>", "the voter or learner; the leader hands over first"))
    .addHelpText("after", "\nNothing of its database is deleted. Take its key out of nats.conf when it is stopped.")
    .action((id: string, o: SignedOptions) =>
      inGroup(o, async (context) => {
        sayMembership(context, await change(context, groupDir(o), { kind: "remove", id }));
        context.out.line(`Next: stop ${id}, take its key out of nats.conf, reload the NATS servers.`);
      }),
    );
}
