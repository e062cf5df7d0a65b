/**
 * Owns `shardpact unpin`: releases a run's claim; the record of it stays.
 */
import type { Command } from "commander";
import { command as send } from "../client/runs.ts";
import { inGroup, withGroupOptions, type GroupOptions } from "./context.ts";

type Options = GroupOptions & { readonly run: string };

export function register(command: Command): void {
  withGroupOptions(command.argument("<dataset>", "the dataset that the run pinned"))
    .requiredOption("--run <id>", "the run")
    .addHelpText("after", "\nExample:\n  $ shardpact unpin mnist --run exp-42")
    .action((dataset: string, o: Options) =>
      inGroup(o, async ({ session, out, timeoutMs, signal }) => {
        const { index, result } = await send(session, "pin.release", { dataset, run: o.run }, { timeoutMs, signal });
        out.data({ index, ...result });
        out.line(`${dataset}: run ${o.run} released v${String(result["version"])} at index ${index}`);
      }),
    );
}
