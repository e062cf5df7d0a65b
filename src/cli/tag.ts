/**
 * Owns `shardpact tag`: points a tag at a version; with `--expect` only if it points where the caller thinks.
 */
import { Option, type Command } from "commander";
import { command as send } from "../client/runs.ts";
import { resolve } from "../client/open.ts";
import { parseRef } from "../model/names.ts";
import { parseExpected, type ExpectedVersion } from "./publish.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";

type Options = GroupOptions & { readonly expect?: ExpectedVersion };

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "the version: name@v3, or another tag").argument("<tag>", "its new tag"))
    .addOption(
      new Option("--expect <version>", "only if the tag points at this version now: v2, or none").argParser(
        parseExpected,
      ),
    )
    .addHelpText("after", "\nExamples:\n  $ shardpact tag mnist@v1 prod\n  $ shardpact tag mnist@v2 prod --expect v1")
    .action((ref: string, tag: string, o: Options) => inGroup(o, (context) => moveTag(context, ref, tag, o)));
}

async function moveTag(
  { session, out, timeoutMs, signal }: Context,
  text: string,
  tag: string,
  o: Options,
): Promise<void> {
  const { version } = await resolve(session, parseRef(text), { timeoutMs, signal });
  const { dataset } = version;
  const body = {
    dataset,
    tag,
    version: version.version,
    ...(o.expect === undefined ? {} : { expected: o.expect === "none" ? null : o.expect }),
  };
  const { index, result } = await send(session, "tag.move", body, { timeoutMs, signal });
  out.data({ dataset, tag, version: version.version, index, ...result });
  const from = result["from"];
  out.line(
    `${dataset}@${tag} → v${version.version}${typeof from === "number" ? ` (was v${from})` : ""}  at index ${index}`,
  );
}
