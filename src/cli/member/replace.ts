/**
 * Owns `shardpact member replace`: a learner that has caught up takes the place of a voter, in one change.
 */
import type { Command } from "commander";
import { inGroup } from "../context.ts";
import { CATCH_UP_SECONDS, change, sayMembership } from "./change.ts";
import { groupDir, type SignedOptions, withSignerOptions } from "./signer.ts";

export function register(command: Command): void {
  withSignerOptions(command.argument("<id>", "the voter that leaves, dead or alive").argument("<by>", "the learner"))
    .setOptionValueWithSource("timeout", CATCH_UP_SECONDS, "default")
    .addHelpText("after", "\nThe number of voters stays. It waits until the learner has caught up.")
    .action((id: string, by: string, o: SignedOptions) =>
      inGroup(o, async (context) => {
        sayMembership(context, await change(context, groupDir(o), { kind: "replace", id, by }));
        context.out.line(`Next: stop ${id} if it runs, take its key out of nats.conf, reload the NATS servers.`);
      }),
    );
}
