/**
 * Owns `shardpact member replace`: a learner that has caught up takes the place of a voter, in one change.
 */
import type { Command } from "commander";
import { inGroup } from "../context.ts";
import { change, sayMembership, withWaitOption } from "./change.ts";
import { groupDir, type WaitOptions, withSignerOptions } from "./signer.ts";

export function register(command: Command): void {
  withWaitOption(
    withSignerOptions(command.argument("<id>", "the voter that leaves, dead or alive").argument("<by>", "the learner")),
  )
    .addHelpText("after", "\nThe number of voters stays. It waits until the learner has caught up.")
    .action((id: string, by: string, o: WaitOptions) =>
      inGroup(o, async (context) => {
        sayMembership(context, await change(context, groupDir(o), { kind: "replace", id, by }, o.wait));
        context.out.line(`Next: stop ${id} if it runs, take its key out of nats.conf, reload the NATS servers.`);
      }),
    );
}
