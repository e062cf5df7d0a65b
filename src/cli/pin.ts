/**
 * Owns `shardpact pin`: a run claims a version for good, and the lock file that reproduces it is written.
 */
import type { Command } from "commander";
import { lockOf, writeLock } from "../client/lock.ts";
import { command as send } from "../client/runs.ts";
import { resolve } from "../client/open.ts";
import { refuseRevoked } from "../client/answers.ts";
import { parseRef } from "../model/names.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";

type Options = GroupOptions & { readonly run: string; readonly note: string; readonly lock: string | false };

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "the version: name@v3, name@tag"))
    .requiredOption("--run <id>", "the run that claims it")
    .option("--note <text>", "what for", "")
    .option("--lock <file>", "lock file to write or to add to", "shardpact.lock")
    .option("--no-lock", "write no lock file")
    .addHelpText(
      "after",
      "\nA run pins one version of a dataset, for ever. Put the lock file into git: `open({ lock })` gives the same\nbytes years later, or an error that says what differs.\n\nExample:\n  $ shardpact pin mnist@prod --run exp-42",
    )
    .action((ref: string, o: Options) => inGroup(o, (context) => pin(context, ref, o)));
}

async function pin({ session, stores, out, timeoutMs, signal }: Context, text: string, o: Options): Promise<void> {
  const calls = { timeoutMs, signal };
  const { version, confirmation, revocation } = await resolve(session, parseRef(text), calls);
  const { dataset, root } = version;
  refuseRevoked(`${dataset}@v${version.version}`, revocation);
  const body = { dataset, version: version.version, root, run: o.run, note: o.note };
  const { index, result } = await send(session, "pin.create", body, calls);
  if (o.lock !== false) {
    await writeLock(o.lock, lockOf(session, { dataset, version: version.version, root, confirmation }, stores.urls()));
  }
  out.data({ dataset, version: version.version, root, run: o.run, index, lock: o.lock || null, ...result });
  out.line(`${dataset}@v${version.version} is pinned to run ${o.run} at index ${index}`);
  if (o.lock !== false) out.line(`wrote ${o.lock}`);
}
