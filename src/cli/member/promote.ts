/**
 * Owns `shardpact member promote`: a learner that has caught up becomes a voter.
 */
import type { Command } from "commander";
import { inGroup } from "../context.ts";
import { CATCH_UP_SECONDS, change, sayMembership } from "./change.ts";
import { groupDir, type SignedOptions, withSignerOptions } from "./signer.ts";

export function register(command: Command): void {
  withSignerOptions(command.argument("<id>", "the learner"))
    .setOptionValueWithSource("timeout", CATCH_UP_SECONDS, "default")
    .addHelpText("after", "\nIt waits until the learner has caught up, ten minutes unless --timeout says otherwise.")
    .action((id: string, o: SignedOptions) =>
      inGroup(o, async (context) =>
        sayMembership(context, await change(context, groupDir(o), { kind: "promote", id })),
      ),
    );
}
