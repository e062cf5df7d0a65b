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
import { bytesText, count, dateText, plural, table } from "./output.ts";

type Options = GroupOptions & { readonly shards?: boolean };

/** Nobody reads more; whoever needs all of them asks for JSON. */
const LISTED_MAX = 1_000;

export function register(command: Command): void {
  withGroupOptions(command.argument("<ref>", "name, name@v3, name@tag or name@b3:<root>"))
    .option("--shards", `list its shards too: the first ${count(LISTED_MAX)}, with --json all`)
    .addHelpText("after", "\nExamples:\n  $ shardpact show mnist@prod\n  $ shardpact show mnist@v1 --shards --json")
    .action((ref: string, o: Options) => inGroup(o, (context) => show(context, ref, o.shards === true)));
}

async function show(context: Context, text: string, withShards: boolean): Promise<void> {
  const { session, out, timeoutMs, signal } = context;
  const resolved = await resolve(session, parseRef(text), { timeoutMs, signal });
  await waitForStragglers(session, resolved);
  const { version, splitRule, confirmation } = resolved;
  const { splits } = await summarizeSplits(version, splitRule, () => pagesOf(context, resolved));
  const data = { ...version, splits, splitRule, confirmation, revocation: resolved.revocation };
  if (out.json && withShards) return out.dataWithList(data, "shards", entriesOf(context, resolved));
  out.data(data);
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
  if (withShards && !out.json) await listShards(context, resolved);
}

async function listShards(context: Context, resolved: Resolved): Promise<void> {
  const { version } = resolved;
  const rows: (readonly (string | number)[])[] = [];
  for await (const { name, split, rows: rowCount, bytes, digest } of entriesOf(context, resolved)) {
    rows.push([name, version.splits[split] ?? "", rowCount, bytesText(bytes), digest]);
    if (rows.length === LISTED_MAX) break;
  }
  context.out.line(`\n${table(["shard", "split", "rows", "bytes", "digest"], rows)}`);
  const unlisted = version.totals.reduce((sum, total) => sum + total.shards, 0) - rows.length;
  if (unlisted > 0) context.out.line(`and ${count(unlisted)} more: --json lists all`);
}

/** Pages one by one, each checked against the confirmed root. */
async function* pagesOf(
  { session, timeoutMs, signal }: Context,
  { version, confirmation }: Resolved,
): AsyncGenerator<readonly ShardEntry[]> {
  const head: VersionHead = { ...version, asOf: confirmation.index };
  const manifest = await fetchManifest(session, head, { timeoutMs, signal });
  for (const [position, page] of manifest.entries()) {
    yield await fetchPage(session, head, position, page, { timeoutMs, signal });
  }
}

/** Entries of all pages. */
export async function* entriesOf(context: Context, resolved: Resolved): AsyncGenerator<ShardEntry> {
  for await (const entries of pagesOf(context, resolved)) yield* entries;
}
