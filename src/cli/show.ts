/**
 * Owns `shardpact show`: one version as a majority confirms it, with the root recomputed here. Revoked ones too.
 */
import type { Command } from "commander";
import { fetchManifest, fetchPage, type VersionHead } from "../client/manifest.ts";
import { resolve, waitForStragglers, type Resolved } from "../client/open.ts";
import { summarizeSplits } from "../client/splits.ts";
import type { ShardEntry } from "../client/types.ts";
import { parseRef } from "../model/names.ts";
import { inGroup, withGroupOptions, type Context, type GroupOptions } from "./context.ts";
import { bytesText, dateText, plural, table } from "./output.ts";

type Options = GroupOptions & { readonly shards?: boolean };

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "name, name@v3, name@tag or name@b3:<root>"))
    .option("--shards", "list its shards too")
    .addHelpText("after", "\nExamples:\n  $ shardpact show mnist@prod\n  $ shardpact show mnist@v1 --shards --json")
    .action((ref: string, o: Options) => inGroup(o, (context) => show(context, ref, o.shards === true)));
}

async function show(context: Context, text: string, withShards: boolean): Promise<void> {
  const { session, out, timeoutMs, signal } = context;
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  await waitForStragglers(session, resolved);
  const { version, splitRule, confirmation } = resolved;
  const needsPages = withShards || splitRule.kind === "positional";
  const shards = needsPages ? await collect(entriesOf(context, resolved)) : [];
  const splits = await summarizeSplits(version, splitRule, async function* () {
    yield* [shards];
  });
  out.data({
    ...version,
    splits,
    splitRule,
    confirmation,
    revocation: resolved.revocation,
    ...(withShards ? { shards } : {}),
  });
  out.line(`${version.dataset}@v${version.version}${resolved.revocation ? "  REVOKED" : ""}`);
  if (resolved.revocation) {
    const { actor, timeMs, reason } = resolved.revocation;
    out.line(`  revoked    by ${actor} at ${dateText(timeMs)}: ${reason}`);
  }
  out.line(`  root       ${version.root}`);
  out.line(`  committed  at index ${version.index}, ${dateText(version.timeMs)} UTC, by ${version.actor}`);
  if (version.message !== "") out.line(`  message    ${version.message}`);
  out.line(
    `  confirmed  by ${confirmation.replicas.join(", ")} at index ${confirmation.index}, chain ${confirmation.chain.slice(0, 16)}…`,
  );
  out.line(
    `  content    ${plural(
      version.totals.reduce((n, t) => n + t.shards, 0),
      "shard",
    )} in ${plural(version.pageCount, "page")}`,
  );
  out.line("");
  out.line(
    table(
      ["split", "rows", "bytes", "shards"],
      splits.map((s) => [s.name, s.rows, bytesText(s.bytes), s.shards]),
    ),
  );
  if (!withShards) return;
  out.line("");
  out.line(
    table(
      ["shard", "split", "rows", "bytes", "digest"],
      shards.map((s) => [s.name, version.splits[s.split] ?? "", s.rows, bytesText(s.bytes), s.digest]),
    ),
  );
}

/** Entries of all pages, each page checked against the confirmed root. */
export async function* entriesOf(context: Context, { version, confirmation }: Resolved): AsyncGenerator<ShardEntry> {
  const { session, timeoutMs, signal } = context;
  const head: VersionHead = { ...version, asOf: confirmation.index, splitCount: version.splits.length };
  const manifest = await fetchManifest(session, head, { timeoutMs, signal });
  for (const [position, page] of manifest.entries()) {
    yield* await fetchPage(session, head, position, page, { timeoutMs, signal });
  }
}

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const value of values) out.push(value);
  return out;
}
