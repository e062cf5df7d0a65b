/**
 * Owns `shardpact member promote`: a learner that has caught up becomes a voter.
 */
import type { Command } from "commander";
import { inGroup } from "../context.ts";
import { change, sayMembership, withWaitOption } from "./change.ts";
import { groupDir, type WaitOptions, withSignerOptions } from "./signer.ts";

export function register(command: Command): void {
  withWaitOption(withSignerOptions(command.argument("<id>", "the learner")))
    .addHelpText("after", "\nIt waits until the learner has caught up, and says how far it is.")
    .action((id: string, o: WaitOptions) =>
      inGroup(o, async (context) =>
        sayMembership(context, await change(context, groupDir(o), { kind: "promote", id }, o.wait)),
      ),
    );
}
